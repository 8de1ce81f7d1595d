//! Bad input to the commands about machines, and hosts that do not let us in.

use std::process::Command;

use crate::sandbox::{Sandbox, snapshot};
use crate::sshd::{Sshd, create, free_port};

#[test]
fn options_are_checked_before_anything_is_made() {
    let sandbox = Sandbox::new();
    snapshot!(
        "missing_option",
        sandbox.run(&["create", "-d", "generic", "web1"])
    );
    snapshot!(
        "bad_address",
        sandbox.run(&[
            "create",
            "-d",
            "generic",
            "--generic-ip-address",
            "a b",
            "web1"
        ])
    );
    snapshot!(
        "other_drivers_flag",
        sandbox.run(&[
            "create",
            "-d",
            "local",
            "--generic-ip-address",
            "192.0.2.1",
            "web1"
        ])
    );
    let none = create("web1", "2222", "/nowhere/key");
    snapshot!("missing_key_file", sandbox.run(&none));
    assert!(sandbox.names().is_empty());
}

#[test]
fn machines_that_are_not_there() {
    let sandbox = Sandbox::new();
    for command in [
        "status", "ip", "inspect", "ssh", "start", "stop", "restart", "kill", "upgrade", "env",
    ] {
        let ran = sandbox.run(&[command, "web1"]);
        assert_eq!(ran.code, Some(3), "{ran}");
        assert!(ran.stderr.contains("there is no machine `web1`"), "{ran}");
        assert!(ran.stdout.is_empty(), "{ran}");
    }
    snapshot!("unknown_machine", sandbox.run(&["ip", "web1"]));
    snapshot!(
        "unknown_machine_rm",
        sandbox.run(&["rm", "-y", "web1", "web2"])
    );
    snapshot!("no_machine_at_all", sandbox.run(&["ip"]));
    snapshot!("empty_list", sandbox.run(&["ls"]));
    let empty = sandbox.run(&["ls", "--format", "json"]);
    assert_eq!(empty.stdout, "[]\n");
}

#[test]
fn a_host_that_is_down() {
    let sandbox = Sandbox::new();
    let (port, sshd_key) = (free_port().to_string(), sandbox.path("key"));
    key(&sshd_key);
    let arguments = create("web1", &port, sshd_key.to_str().unwrap());
    snapshot!("host_down", sandbox.run(&arguments));
    snapshot!("host_down_ls", sandbox.run(&["ls"]));
    snapshot!("host_down_start", sandbox.run(&["start", "web1"]));
    let ssh = sandbox.run(&["ssh", "web1", "--", "true"]);
    assert_eq!(ssh.code, Some(255), "{ssh}");
    snapshot!("rm_asks", sandbox.run(&["rm", "web1"]));
    assert_eq!(sandbox.names(), ["web1"]);
    let removed = sandbox.run(&["rm", "-y", "web1"]);
    assert_eq!(removed.code, Some(0), "{removed}");
    assert!(sandbox.names().is_empty());
    assert!(!sandbox.state().join("machines/web1").exists());
}

#[test]
fn a_wrong_key_and_then_the_right_one() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (port, wrong, right) = (sshd.port.to_string(), sshd.strangers_key(), sshd.key());
    let refused = sandbox.run(&create("web1", &port, wrong.to_str().unwrap()));
    let refused_text = refused
        .to_string()
        .replace(wrong.to_str().unwrap(), "[KEY]");
    snapshot!("wrong_key", refused_text);
    // The same command with the right key goes on; what is missing then are the binaries for hosts.
    let installed = sandbox.run(&create("web1", &port, right.to_str().unwrap()));
    assert_eq!(installed.code, Some(1), "{installed}");
    let text = installed
        .to_string()
        .replace(right.to_str().unwrap(), "[KEY]");
    snapshot!("no_binaries", text);
    snapshot!("unfinished_env", sandbox.run(&["env", "web1"]));
    let there = sandbox.run(&["ls", "--format", "json"]);
    let there: serde_json::Value = serde_json::from_str(&there.stdout).unwrap();
    assert_eq!(there[0]["unfinished"], "create");
    assert_eq!(there[0]["address"], "127.0.0.1");
    let kept = sandbox.state().join("machines/web1/id_given");
    assert_eq!(fs_err::read(kept).unwrap(), fs_err::read(right).unwrap());
}

#[test]
fn a_key_with_a_passphrase_and_what_is_no_key() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let port = sshd.port.to_string();
    sandbox.write("no-key", "hello\n");
    snapshot!("no_key", sandbox.run(&create("web1", &port, "no-key")));
    assert!(sandbox.names().is_empty(), "nothing is left behind");
    assert!(!sandbox.state().join("machines/web1").exists());
}

#[test]
fn only_the_owner_can_read_the_state() {
    use std::os::unix::fs::PermissionsExt as _;
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (port, key) = (sshd.port.to_string(), sshd.key());
    sandbox.run(&create("web1", &port, key.to_str().unwrap()));
    let mode = |name: &str| {
        let path = sandbox.state().join(name);
        fs_err::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("machines/web1"), 0o700);
    assert_eq!(mode("machines/web1/id_given"), 0o600);
}

#[test]
fn the_trace_shows_no_key() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (port, key) = (sshd.port.to_string(), sshd.key());
    let arguments = create("web1", &port, key.to_str().unwrap());
    let traced = sandbox.run(&[&["-vv"], arguments.as_slice()].concat());
    assert!(traced.stderr.contains("DEBUG"), "{traced}");
    let private = fs_err::read_to_string(&key).unwrap();
    let secret = private.lines().filter(|line| !line.starts_with('-'));
    for line in secret {
        assert!(!traced.stderr.contains(line), "a line of the key");
    }
}

#[test]
fn local_machines_need_root() {
    if !rustix::process::geteuid().is_root() {
        // Then the error is the same without any help.
        return;
    }
    let sandbox = Sandbox::new();
    let folder = tempfile::Builder::new()
        .prefix("wl")
        .tempdir_in("/tmp")
        .unwrap();
    let program = folder.path().join("windlass");
    fs_err::copy(Sandbox::program(), &program).unwrap();
    for (path, mode) in [(folder.path(), 0o777), (program.as_path(), 0o755)] {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(["create", "--driver", "local", "web1"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("WINDLASS_HOME", folder.path().join("state"))
        .current_dir("/")
        .output()
        .unwrap();
    snapshot!(
        "local_without_root",
        sandbox.ran(&["create", "--driver", "local", "web1"], output)
    );
}

fn key(path: &std::path::Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}
