//! `windlass env`: a local socket that leads to the engine of a machine, held by a process of its own.
//!
//! The engine is a stand-in that answers a ping; the SSH server between is real.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use windlass_machine::{
    Engine, EngineKind, Machine, MachineName, SqliteStore, State, Store, Write,
};

use crate::sandbox::{Ran, Sandbox};
use crate::sshd::{Sshd, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// Answers every request with `OK` until the test ends.
fn stand_in_engine(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.extend(byte);
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK",
            );
        }
    });
}

/// A machine whose create is finished, with the stand-in for an engine.
fn machine() -> (Sandbox, Sshd) {
    let (sandbox, sshd) = (Sandbox::new(), Sshd::start());
    let socket = sandbox.path("engine.sock");
    stand_in_engine(&socket);
    let folder = sandbox.state().join("machines/web1");
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::copy(sshd.key(), folder.join("id_given")).unwrap();
    let name = MachineName::new("web1").unwrap();
    let engine = Engine {
        kind: EngineKind::Bundled,
        version: "0.1.0".to_owned(),
        digest: None,
        socket: socket.display().to_string(),
    };
    let options = [
        ("ip-address", "127.0.0.1".to_owned()),
        ("ssh-port", sshd.port.to_string()),
    ];
    let machine = Machine {
        name,
        driver: "generic".to_owned(),
        options: options.map(|(k, v)| (k.to_owned(), v)).into(),
        token: "t1".to_owned(),
        instance_id: Some(format!("127.0.0.1:{}", sshd.port)),
        address: Some("127.0.0.1".to_owned()),
        private_address: None,
        ssh_user: "root".to_owned(),
        ssh_port: sshd.port,
        key_file: Some(PathBuf::from("machines/web1/id_given")),
        state: State::Ready,
        slot: None,
        project: None,
        labels: Default::default(),
        created_at: time::OffsetDateTime::now_utc(),
        engine: Some(engine),
        generation: 1,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = SqliteStore::open(&sandbox.state()).unwrap();
    let insert = store.commit(vec![Write::Insert(Box::new(machine))]);
    runtime.block_on(insert).unwrap();
    (sandbox, sshd)
}

fn env(sandbox: &Sandbox) -> (Ran, PathBuf) {
    let ran = sandbox.run(&["env", "web1", "--shell", "bash"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let socket = sandbox.state().join("machines/web1/docker.sock");
    let line = "export DOCKER_HOST='unix://[SANDBOX]/state/machines/web1/docker.sock'\n";
    assert!(ran.stdout.starts_with(line), "{ran}");
    assert!(
        ran.stdout.contains("export WINDLASS_MACHINE='web1'\n"),
        "{ran}"
    );
    (ran, socket)
}

fn ping(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The process that holds the lock of the socket; found by the lock, since the test did not start it itself.
fn holder(sandbox: &Sandbox) -> Option<Pid> {
    let lock = fs_err::metadata(sandbox.state().join("machines/web1/forward.lock")).ok()?;
    let inode = std::os::unix::fs::MetadataExt::ino(&lock);
    let locks = fs_err::read_to_string("/proc/locks").unwrap();
    let line = locks
        .lines()
        .find(|line| line.contains(&format!(":{inode} ")))?;
    let pid = line.split_whitespace().nth(4)?;
    Pid::from_raw(pid.parse().ok()?)
}

#[test]
fn a_socket_that_leads_to_the_engine_and_goes_with_the_machine() {
    let (sandbox, _sshd) = machine();
    let asked = sandbox.command(&[]);
    let started = Command::new("sh")
        .args(["-c", "exec 7>kept; exec \"$0\" env web1 --shell bash"])
        .arg(Sandbox::program())
        .env_clear()
        .envs(asked.get_envs().filter_map(|(k, v)| Some((k, v?))))
        .current_dir(sandbox.path("work"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(started.success());
    let (_, socket) = env(&sandbox);
    assert!(ping(&socket).ends_with("OK"));
    let open = format!(
        "/proc/{}/fd",
        holder(&sandbox).unwrap().as_raw_nonzero().get()
    );
    for entry in fs_err::read_dir(open).unwrap().flatten() {
        let file = fs_err::read_link(entry.path()).unwrap_or_default();
        assert!(!file.ends_with("kept"), "what its starter had open");
    }
    let mode = fs_err::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = holder(&sandbox).unwrap();
    env(&sandbox);
    assert_eq!(holder(&sandbox), Some(first), "one process a machine");
    // Killed the hard way it leaves a dead socket behind, which is noticed.
    kill_process(first, Signal::KILL).unwrap();
    wait_until(LIMIT, "it ends", || holder(&sandbox).is_none());
    env(&sandbox);
    assert!(ping(&socket).ends_with("OK"));
    let second = holder(&sandbox).unwrap();
    assert_ne!(first, second);
    let removed = sandbox.run(&["rm", "-y", "web1"]);
    assert_eq!(removed.code, Some(0), "{removed}");
    wait_until(LIMIT, "it ends with its machine", || {
        test_kill_process(second).is_err() || is_zombie(second)
    });
    assert!(!sandbox.state().join("machines/web1").exists());
}

/// Where nobody reaps orphans, an ended process stays in the table.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn it_is_undone_by_unset() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["env", "--unset", "--shell", "fish"]);
    assert!(
        ran.stdout
            .starts_with("set -e DOCKER_HOST;\nset -e WINDLASS_MACHINE;\n"),
        "{ran}"
    );
}

#[test]
fn a_machine_in_use_is_listed_as_running() {
    let (sandbox, sshd) = machine();
    let list = sandbox.run(&["ls", "--filter", "state=running", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!(list[0]["name"], "web1");
    assert_eq!(list[0]["engine"]["version"], "0.1.0");
    assert_eq!(sandbox.run(&["status"]).stdout, "Running\n");
    drop(sshd);
    assert_eq!(sandbox.run(&["status", "web1"]).stdout, "Unreachable\n");
    let stopped = sandbox.run(&["stop", "web1"]);
    assert_eq!(stopped.code, Some(1), "{stopped}");
    assert!(
        stopped
            .stderr
            .contains("driver `generic` has no power switch"),
        "{stopped}"
    );
}
