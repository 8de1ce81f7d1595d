//! A real OpenSSH server on loopback, with keys and configuration of its own; and a host that hangs.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Runs until it is dropped.
pub struct Sshd {
    folder: TempDir,
    server: Child,
    pub port: u16,
}

impl Sshd {
    /// A server that lets `key()` in.
    pub fn start() -> Self {
        Self::start_at(free_port())
    }

    pub fn start_at(port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("sshd").tempdir().unwrap();
        for name in ["host", "id", "stranger"] {
            key_pair(&folder.path().join(name));
        }
        fs_err::copy(
            folder.path().join("id.pub"),
            folder.path().join("authorized"),
        )
        .unwrap();
        let server = serve(folder.path(), port);
        Self {
            folder,
            server,
            port,
        }
    }

    /// Stops it, and starts it with another host key, as a reinstalled host has.
    pub fn with_new_host_key(mut self) -> Self {
        self.end();
        fs_err::remove_file(self.folder.path().join("host")).unwrap();
        key_pair(&self.folder.path().join("host"));
        self.server = serve(self.folder.path(), self.port);
        self
    }

    /// The private key that is let in.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("id")
    }

    /// A private key that is not.
    pub fn strangers_key(&self) -> PathBuf {
        self.folder.path().join("stranger")
    }

    fn end(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

/// What `create` is given for a host on loopback.
pub fn create<'a>(name: &'a str, port: &'a str, key: &'a str) -> [&'a str; 10] {
    let address = "127.0.0.1";
    [
        "create",
        "--driver",
        "generic",
        "--generic-ip-address",
        address,
        "--generic-ssh-port",
        port,
        "--generic-ssh-key",
        key,
        name,
    ]
}

/// A port of loopback that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits, for at most `limit`, until `done` says so.
pub fn wait_until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn key_pair(path: &Path) {
    let _ = fs_err::remove_file(path.with_extension("pub"));
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
}

fn serve(folder: &Path, port: u16) -> Child {
    // OpenSSH wants it, and makes it only by its init script.
    let _ = fs_err::create_dir_all("/run/sshd");
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
        at("host"),
        at("authorized")
    );
    fs_err::write(folder.join("config"), config).unwrap();
    let log = fs_err::File::create(folder.join("log")).unwrap();
    let server = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f"])
        .arg(folder.join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .unwrap();
    wait_until(Duration::from_secs(10), "sshd answers", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    server
}
