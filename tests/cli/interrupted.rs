//! Ctrl-C, `kill -9` and several processes at once: nothing is lost, and the next command goes on.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{Sandbox, snapshot};
use crate::sshd::{Sshd, create, free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// A host that takes connections and says nothing.
fn hanging_host() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

/// A command that is on its way to a host that hangs.
fn stuck(sandbox: &Sandbox, host: &TcpListener, arguments: &[&str]) -> Child {
    let child = sandbox.command(arguments).spawn().unwrap();
    host.set_nonblocking(true).unwrap();
    let mut connection = None;
    wait_until(LIMIT, "it connects", || {
        connection = host.accept().ok();
        connection.is_some()
    });
    // Kept open, so that it goes on waiting for the greeting.
    std::mem::forget(connection);
    child
}

#[test]
fn ctrl_c_says_what_is_unfinished() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (host, port) = hanging_host();
    let key = sshd.key();
    let arguments = create("web1", &port, key.to_str().unwrap());
    let child = stuck(&sandbox, &host, &arguments);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = sandbox.ran(&arguments, child.wait_with_output().unwrap());
    let text = ran.to_string().replace(key.to_str().unwrap(), "[KEY]");
    snapshot!("ctrl_c", text);
    assert_eq!(ran.code, Some(130));
    assert_eq!(sandbox.names(), ["web1"]);
}

#[test]
fn a_second_ctrl_c_drops_what_the_first_waits_for() {
    let sandbox = Sandbox::new();
    let sshd = Sshd::start();
    let (host, port) = hanging_host();
    let file = format!(
        "name: shop
services:
  web:
    image: httpd:2.4
x-fleets:
  web:
    provider: generic
    min: 1
    max: 1
    target: {{cpu: 60}}
    options: {{ip-address: 127.0.0.1, ssh-port: {port}, ssh-key: {}}}
",
        sshd.key().display()
    );
    sandbox.write("windlass.yaml", &file);
    let arguments = ["autoscale", "--once"];
    let mut child = stuck(&sandbox, &host, &arguments);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).unwrap();
    let mut before = String::new();
    while !before.ends_with("a second Ctrl-C drops it\n") {
        assert_ne!(said.read_line(&mut before).unwrap(), 0, "{before}");
    }
    kill_process(pid, Signal::INT).unwrap();
    let mut after = String::new();
    said.read_to_string(&mut after).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{after}");
    assert_eq!(
        after,
        "interrupted in the middle of shop-web-1: connect; what was begun is recorded, and the same command goes on with it\n"
    );
    assert_eq!(sandbox.names(), ["shop-web-1"]);
}

#[test]
fn a_killed_create_is_finished_or_undone() {
    for finish in [true, false] {
        let sandbox = Sandbox::new();
        let (host, port) = hanging_host();
        let key_server = Sshd::start();
        let key = key_server.key();
        let arguments = create("web1", &port, key.to_str().unwrap());
        let mut child = stuck(&sandbox, &host, &arguments);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(host);
        assert_eq!(sandbox.names(), ["web1"], "the record was written before");
        if finish {
            let server = Sshd::start_at(port.parse().unwrap());
            let key = server.key();
            let again = sandbox.run(&create("web1", &port, key.to_str().unwrap()));
            assert!(again.stderr.contains("web1: connect … done"), "{again}");
            let there = sandbox.run(&["ssh", "web1", "--", "echo", "there"]);
            assert_eq!(there.stdout, "there\n", "{there}");
        }
        let removed = sandbox.run(&["rm", "-y", "web1"]);
        assert_eq!(removed.code, Some(0), "{removed}");
        assert!(sandbox.names().is_empty());
        assert!(!sandbox.state().join("machines/web1").exists());
    }
}

#[test]
fn two_on_one_machine() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (host, port) = hanging_host();
    let key = sshd.key();
    let arguments = create("web1", &port, key.to_str().unwrap());
    let mut first = stuck(&sandbox, &host, &arguments);
    let second = sandbox.run(&["rm", "-y", "web1"]);
    assert_eq!(second.code, Some(4), "{second}");
    snapshot!("machine_in_use", second);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(
        sandbox.run(&["rm", "-y", "web1"]).code,
        Some(0),
        "its lock went with it"
    );
}

#[test]
fn many_on_one_store() {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let (port, key) = (sshd.port.to_string(), sshd.key());
    let names: Vec<String> = (1..=6).map(|n| format!("web{n}")).collect();
    let children: Vec<Child> = names
        .iter()
        .map(|name| {
            let arguments = create(name, &port, key.to_str().unwrap());
            sandbox.command(&arguments).spawn().unwrap()
        })
        .collect();
    for child in children {
        let ran = sandbox.ran(&[], child.wait_with_output().unwrap());
        assert!(ran.stderr.contains("connect … done"), "{ran}");
    }
    assert_eq!(sandbox.names(), names);
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let removed = sandbox.run(&[&["rm", "-f"], all.as_slice()].concat());
    assert_eq!(removed.code, Some(0), "{removed}");
    assert!(sandbox.names().is_empty());
}

#[test]
fn nobody_reads_the_output() {
    let sandbox = Sandbox::new();
    let port = free_port().to_string();
    assert_ne!(port, "0");
    let mut child = sandbox.command(&["completion", "bash"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.code().is_some(), "it ends by itself");
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("panicked"));
}
