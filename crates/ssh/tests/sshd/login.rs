//! Who gets in, whose host key is taken, and what the errors say.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use windlass_ssh::keys::KeyPair;
use windlass_ssh::{Error, FirstUse, Session, WaitLimits, pin, wait_until_up};

use crate::harness::{Sshd, free_port, kill};

const QUIET: &(dyn Fn(&FirstUse) + Send + Sync) = &|_| {};

#[tokio::test]
async fn the_host_key_is_shown_once_pinned_and_checked_ever_after() {
    let server = Sshd::start();
    let seen = Mutex::new(Vec::new());
    let note = |first: &FirstUse| seen.lock().unwrap().push(first.clone());
    let destination = server.destination();
    Session::connect(&destination, &note).await.unwrap();
    Session::connect(&destination, &note).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let shown = Command::new("ssh-keygen")
        .args(["-lf"])
        .arg(server.host_key_path())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&seen[0].fingerprint), "{shown} {seen:?}");

    let other = KeyPair::generate("").unwrap();
    fs_err::write(server.pins(), format!("* {}\n", other.public)).unwrap();
    let error = Session::connect(&destination, QUIET).await.unwrap_err();
    let Error::HostKeyChanged(change) = &error else {
        panic!("{error}");
    };
    assert_eq!(change.address, format!("127.0.0.1:{}", server.port));
    assert_eq!(change.offered, seen[0].fingerprint);
    assert_eq!(change.file, server.pins());
    assert!(error.nothing_sent());
    let log = fs_err::read_to_string(server.folder.path().join("sshd.log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 2, "{log}");
    assert_eq!(log.matches("Failed").count(), 0, "{log}");
}

#[tokio::test]
async fn an_injected_host_key_needs_no_first_use() {
    let server = Sshd::start();
    let public = fs_err::read_to_string(server.host_key_path().with_extension("pub")).unwrap();
    pin(&server.pins(), &public).unwrap();
    let never = |first: &FirstUse| panic!("{first:?}");
    Session::connect(&server.destination(), &never)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wrong_key_is_one_clear_error() {
    let server = Sshd::start();
    let wrong = server.folder.path().join("wrong");
    KeyPair::generate("").unwrap().write(&wrong).unwrap();
    let mut destination = server.destination();
    destination.keys = vec![wrong.clone()];
    let error = Session::connect(&destination, QUIET).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("root@127.0.0.1") && text.contains(wrong.to_str().unwrap()),
        "{text}"
    );
    assert!(
        !server.pins().exists(),
        "nothing is pinned before a login has worked"
    );

    destination.keys = vec![server.folder.path().join("absent")];
    let error = Session::connect(&destination, QUIET).await.unwrap_err();
    assert!(matches!(error, Error::KeyFile { .. }), "{error}");
}

struct Agent {
    child: Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("agent.sock");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < end, "ssh-agent does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        kill(self.child.id());
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_agent_logs_in_also_for_an_encrypted_file() {
    let server = Sshd::start();
    let agent = Agent::start(server.folder.path());
    let mut destination = server.destination();
    destination.agent = Some(agent.socket.clone());
    destination.keys.clear();
    let error = Session::connect(&destination, QUIET).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    agent.add(&server.key);
    Session::connect(&destination, QUIET).await.unwrap();

    // The same key with a passphrase: the agent signs for it, and without the agent the error says so.
    let status = Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
        .arg(&server.key)
        .status()
        .unwrap();
    assert!(status.success());
    destination.keys = vec![server.key.clone()];
    Session::connect(&destination, QUIET).await.unwrap();
    destination.agent = None;
    let error = Session::connect(&destination, QUIET).await.unwrap_err();
    assert!(error.to_string().contains("ssh-add"), "{error}");
}

#[tokio::test]
async fn rsa_keys_log_in() {
    let server = Sshd::start();
    let rsa = server.folder.path().join("rsa");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"])
        .arg(&rsa)
        .status()
        .unwrap();
    assert!(made.success());
    fs_err::copy(rsa.with_extension("pub"), server.authorized_keys()).unwrap();
    let mut destination = server.destination();
    destination.keys = vec![rsa];
    Session::connect(&destination, QUIET).await.unwrap();
}

#[tokio::test]
async fn waiting_ends_with_the_host_up_or_the_time_over() {
    let limits = WaitLimits {
        total: Duration::from_secs(1),
        interval: Duration::from_millis(50),
        ..WaitLimits::default()
    };
    let server = Sshd::start();
    let mut destination = server.destination();
    let session = wait_until_up(&destination, limits, QUIET).await.unwrap();
    assert_eq!(session.user(), "root");

    destination.port = Some(free_port());
    let begin = Instant::now();
    let error = wait_until_up(&destination, limits, QUIET)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(3));

    destination.host = "no-such-host.invalid".to_owned();
    let error = wait_until_up(&destination, limits, QUIET)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn a_login_that_is_refused_at_first_is_tried_again_if_asked_for() {
    let server = Sshd::start();
    let keys = fs_err::read(server.authorized_keys()).unwrap();
    fs_err::write(server.authorized_keys(), "").unwrap();
    let limits = WaitLimits {
        total: Duration::from_secs(20),
        refused_login: Duration::from_secs(15),
        interval: Duration::from_millis(100),
    };
    let destination = server.destination();
    let final_at_once = wait_until_up(&destination, WaitLimits::default(), QUIET).await;
    assert!(matches!(final_at_once, Err(Error::Auth { .. })));
    let later = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs_err::write(server.authorized_keys(), keys).unwrap();
    };
    let (session, ()) = tokio::join!(wait_until_up(&destination, limits, QUIET), later);
    session.unwrap();
}
