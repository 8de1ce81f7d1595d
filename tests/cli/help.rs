//! Every command has a help text, and it is the one on file.

use crate::sandbox::{Sandbox, snapshot};

/// The commands that the help names.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap();
    let list = list.split("\n\n").next().unwrap();
    let named = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_command_has_a_help_text() {
    let sandbox = Sandbox::new();
    let help = sandbox.run(&["--help"]);
    snapshot!("help", help);
    let commands = commands(&help.stdout);
    let wanted = "create ls status ip inspect ssh start stop restart kill upgrade rm env up down ps logs autoscale version completion";
    for command in wanted.split(' ') {
        assert!(commands.iter().any(|c| c == command), "no `{command}`");
    }
    for command in commands.iter().filter(|command| *command != "help") {
        let help = sandbox.run(&[command, "--help"]);
        assert_eq!(help.code, Some(0), "{help}");
        assert!(help.stdout.contains("Usage: windlass"), "{help}");
        snapshot!(format!("help_{command}"), help);
    }
}

#[test]
fn exit_codes_are_documented() {
    let sandbox = Sandbox::new();
    snapshot!("exit_codes", sandbox.run(&["help", "exit-codes"]));
}

#[test]
fn version_and_completion() {
    let sandbox = Sandbox::new();
    let version = sandbox.run(&["version", "--format", "json"]);
    let version: serde_json::Value = serde_json::from_str(&version.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(&["completion", shell]);
        assert!(script.stdout.contains("autoscale"), "{shell}");
    }
    assert!(!sandbox.state().exists(), "neither needs a store");
}

#[test]
fn usage_mistakes() {
    let sandbox = Sandbox::new();
    snapshot!("no_command", sandbox.run(&[]));
    snapshot!("unknown_command", sandbox.run(&["crate"]));
    snapshot!(
        "unknown_driver",
        sandbox.run(&["create", "-d", "amazon", "web1"])
    );
    snapshot!("bad_name", sandbox.run(&["create", "Web_1"]));
    snapshot!("bad_flag", sandbox.run(&["ls", "--fromat", "json"]));
    snapshot!(
        "template",
        sandbox.run(&["inspect", "-f", "{{.Driver.IPAddress}}", "web1"])
    );
    snapshot!("bad_filter", sandbox.run(&["ls", "--filter", "colour=red"]));
    assert!(!sandbox.state().exists(), "nothing was changed");
}
