//! A server on loopback and clients for it, in a folder of their own; all end with the test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

pub struct Scene {
    folder: tempfile::TempDir,
    server: Child,
    pub port: u16,
}

/// What a client printed, and its exit code.
pub struct Done {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["user", "stranger"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.path().join(name))
                .status()
                .unwrap();
            assert!(made.success());
        }
        let path = |name: &str| folder.path().join(name);
        fs::copy(path("user.pub"), path("authorized_keys")).unwrap();
        let port = free_port();
        let server = Command::new(env!("CARGO_BIN_EXE_windlass-local-init"))
            .args(["serve", "--address", &format!("127.0.0.1:{port}")])
            .arg("--authorized-keys")
            .arg(path("authorized_keys"))
            .arg("--host-key")
            .arg(path("host_key"))
            .spawn()
            .unwrap();
        let config = format!(
            "Host m\n HostName 127.0.0.1\n Port {port}\n User root\n BatchMode yes\n IdentitiesOnly yes\n \
             UserKnownHostsFile {0}/known_hosts\n StrictHostKeyChecking accept-new\n LogLevel ERROR\n",
            folder.path().display()
        );
        fs::write(path("config"), config).unwrap();
        let scene = Self {
            folder,
            server,
            port,
        };
        until("the server", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn authorize(&self, text: &str) {
        fs::write(self.path("authorized_keys"), text).unwrap();
    }

    pub fn init(&self) -> Command {
        Command::new(env!("CARGO_BIN_EXE_windlass-local-init"))
    }

    /// For a shell, without the host.
    pub fn command_line(&self) -> String {
        format!(
            "ssh -F {0}/config -i {0}/user",
            self.folder.path().display()
        )
    }

    /// A client for the host `m`.
    pub fn ssh(&self, flags: &[&str], command: Option<&str>) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F")
            .arg(self.path("config"))
            .args(flags)
            .current_dir(self.folder.path());
        if !flags.contains(&"-i") {
            ssh.arg("-i").arg(self.path("user"));
        }
        ssh.arg("m")
            .args(command.filter(|text| !text.is_empty()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        ssh
    }

    pub fn run(&self, flags: &[&str], command: &str, input: &[u8]) -> Done {
        let (out, err, code) = self.run_bytes(flags, command, input);
        Done {
            out: String::from_utf8_lossy(&out).into_owned(),
            err: String::from_utf8_lossy(&err).into_owned(),
            code,
        }
    }

    pub fn run_bytes(
        &self,
        flags: &[&str],
        command: &str,
        input: &[u8],
    ) -> (Vec<u8>, Vec<u8>, Option<i32>) {
        let mut ssh = self.ssh(flags, Some(command));
        ssh.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finished(ssh.spawn().unwrap(), input)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Feeds and drains a child until its end.
pub fn finished(mut child: Child, input: &[u8]) -> (Vec<u8>, Vec<u8>, Option<i32>) {
    let stdin = child.stdin.take();
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                // Not yet waited for, so the number is still its own.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        });
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // The child may not want all of it.
                let _ = stdin.write_all(input);
            }
        });
        scope.spawn(|| {
            stderr
                .as_mut()
                .map(|pipe| pipe.read_to_end(&mut err).unwrap());
        });
        stdout
            .as_mut()
            .map(|pipe| pipe.read_to_end(&mut out).unwrap());
        drop(ended);
    });
    let code = child.wait().unwrap().code();
    (out, err, code)
}

/// Waits for it, for half a minute at most.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
