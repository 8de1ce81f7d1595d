//! `windlass ssh` against a real server: arguments, streams, exit codes, a terminal, host keys.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{Sandbox, snapshot};
use crate::sshd::{Sshd, create};

/// A machine that has got as far as the login.
fn machine() -> (Sandbox, Sshd) {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (port, key) = (sshd.port.to_string(), sshd.key());
    let created = sandbox.run(&create("web1", &port, key.to_str().unwrap()));
    assert!(created.stderr.contains("web1: connect … done"), "{created}");
    (sandbox, sshd)
}

#[test]
fn arguments_streams_and_exit_codes_pass_through() {
    let (sandbox, _sshd) = machine();
    let exact = sandbox.run(&[
        "ssh", "web1", "--", "printf", "[%s]", "a b", "$HOME", "'", "*",
    ]);
    assert_eq!(exact.stdout, "[a b][$HOME]['][*]", "{exact}");
    let line = sandbox.run(&["ssh", "web1", "echo out; echo err >&2; exit 42"]);
    assert_eq!(
        (line.code, line.stdout.as_str()),
        (Some(42), "out\n"),
        "{line}"
    );
    assert_eq!(line.stderr, "err\n");
    let killed = sandbox.run(&["ssh", "web1", "kill -9 $$"]);
    assert_eq!(killed.code, Some(137), "{killed}");
    let mut command = sandbox.command(&["ssh", "web1", "--", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    drop(stdin);
    let counted = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(counted.stdout).unwrap().trim(), "1048576");
}

#[test]
fn a_terminal_has_the_size_of_ours() {
    let (sandbox, _sshd) = machine();
    let program = Sandbox::program().display().to_string();
    let inside = format!("stty cols 77 rows 33; {program} ssh -t web1 'stty size; tty; exit 9'");
    let output = Command::new("script")
        .args(["-qec", &inside, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .env("WINDLASS_HOME", sandbox.state())
        .env("HOME", sandbox.path("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("33 77"), "{said}");
    assert!(said.contains("/dev/pts/"), "{said}");
    assert_eq!(output.status.code(), Some(9), "{said}");
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let (sandbox, _sshd) = machine();
    let program = Sandbox::program().display().to_string();
    let pid_file = sandbox.path("pid");
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let inside = format!(
            "sh -c 'echo $$ >{}; exec {program} ssh -t web1 \"echo ready; sleep 60\"'; echo ended with $?; stty -a",
            pid_file.display()
        );
        let mut child = Command::new("script")
            .args(["-qec", &inside, "/dev/null"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TERM", "xterm")
            .env("WINDLASS_HOME", sandbox.state())
            .env("HOME", sandbox.path("home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut before = String::new();
        while !before.ends_with("ready\r\n") {
            assert_ne!(said.read_line(&mut before).unwrap(), 0, "{before}");
        }
        let pid = fs_err::read_to_string(&pid_file).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let mut after = String::new();
        said.read_to_string(&mut after).unwrap();
        child.wait().unwrap();
        assert!(after.contains(&format!("ended with {code}\r\n")), "{after}");
        assert!(after.contains(" icanon"), "{after}");
        assert!(after.contains(" echo "), "{after}");
    }
}

#[test]
fn a_changed_host_key_stops_everything() {
    let (sandbox, sshd) = machine();
    let pins = fs_err::read(sandbox.state().join("machines/web1/known_hosts")).unwrap();
    let _sshd = sshd.with_new_host_key();
    let refused = sandbox.run(&["ssh", "web1", "--", "touch", "should-not-be"]);
    snapshot!("changed_host_key", refused);
    let after = fs_err::read(sandbox.state().join("machines/web1/known_hosts")).unwrap();
    assert_eq!(pins, after, "the pin stays");
}

#[test]
fn hosts_are_reached_as_the_users_ssh_would() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let ssh = sandbox.path("home").join(".ssh");
    fs_err::create_dir(&ssh).unwrap();
    let config = format!(
        "Host shop\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n",
        sshd.port,
        sshd.key().display()
    );
    fs_err::write(ssh.join("config"), config).unwrap();
    let created = sandbox.run(&[
        "create",
        "-d",
        "generic",
        "--generic-ip-address",
        "shop",
        "web1",
    ]);
    assert!(created.stderr.contains("web1: connect … done"), "{created}");
    let whoami = sandbox.run(&["ssh", "web1", "--", "echo", "there"]);
    assert_eq!(whoami.stdout, "there\n", "{whoami}");
}
