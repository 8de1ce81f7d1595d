//! A real OpenSSH server on loopback, started by a test and gone with it. Shared with the tests of the installer.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use windlass_ssh::keys::KeyPair;
use windlass_ssh::{Destination, FirstUse, Session};

/// A server with one key that may log in.
pub struct Sshd {
    child: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
    /// The private key that is let in.
    pub key: PathBuf,
}

impl Sshd {
    pub fn start() -> Self {
        Self::start_with("", "")
    }

    /// With more lines for its configuration, and more variables (`A=b C=d`) for what it starts.
    pub fn start_with(more: &str, variables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("id_ed25519");
        let pair = KeyPair::generate("test").unwrap();
        pair.write(&key).unwrap();
        fs_err::write(folder.path().join("authorized_keys"), &pair.public).unwrap();
        // A user other than root has to be able to reach its file of keys.
        fs_err::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        KeyPair::generate("host")
            .unwrap()
            .write(&folder.path().join("host_key"))
            .unwrap();
        let port = free_port();
        let child = spawn(folder.path(), port, more, variables);
        let server = Self {
            child,
            folder,
            port,
            key,
        };
        server.wait_until_it_listens();
        server
    }

    pub fn host_key_path(&self) -> PathBuf {
        self.folder.path().join("host_key")
    }

    pub fn authorized_keys(&self) -> PathBuf {
        self.folder.path().join("authorized_keys")
    }

    pub fn pins(&self) -> PathBuf {
        self.folder.path().join("machine/known_hosts")
    }

    /// Where a session goes.
    pub fn destination(&self) -> Destination {
        let mut destination = Destination::new("127.0.0.1", self.pins());
        destination.port = Some(self.port);
        destination.keys = vec![self.key.clone()];
        destination.connect_timeout = Duration::from_secs(10);
        destination
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.destination(), &|_: &FirstUse| {})
            .await
            .unwrap()
    }

    /// Kills the listener, and with `ssh` connections those too.
    pub fn stop(&mut self) {
        for pid in descendants(self.child.id()) {
            kill(pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The processes that serve connections (not the commands they run).
    pub fn connections(&self) -> Vec<u32> {
        children(self.child.id())
    }

    fn wait_until_it_listens(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs_err::read_to_string(self.folder.path().join("sshd.log"));
            assert!(Instant::now() < end, "sshd does not start: {:?}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(folder: &Path, port: u16, more: &str, variables: &str) -> Child {
    fs_err::create_dir_all("/run/sshd").unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         SetEnv HOME={} {variables}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n{more}\n",
        at("host_key"),
        at("authorized_keys"),
        // What the user's own start files do is none of a test's business, and a killed shell must not leave their locks.
        folder.display(),
    );
    fs_err::write(folder.join("sshd_config"), config).unwrap();
    let log = fs_err::File::create(folder.join("sshd.log")).unwrap();
    Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &at("sshd_config")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .unwrap()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn kill(pid: u32) {
    send(pid, Signal::SIGKILL);
}

pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, signal);
}

fn children(of: u32) -> Vec<u32> {
    let file = format!("/proc/{of}/task/{of}/children");
    let text = fs_err::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

pub fn descendants(of: u32) -> Vec<u32> {
    let mut all = children(of);
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        all.extend(children(pid));
        next += 1;
    }
    all
}
