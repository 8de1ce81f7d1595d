//! An engine for a test, in a network and a mount namespace of the test's own, and the real `docker` command that speaks with it.
//! Whatever happens, nothing of it is left when the test ends.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the image can do.
const APPLETS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "echo", "env", "false", "grep", "head", "hostname", "httpd",
    "id", "ip", "ln", "ls", "mkdir", "mount", "nc", "nslookup", "ping", "ps", "pwd", "rm", "sleep",
    "stat", "stty", "test", "touch", "trap", "true", "wget",
];

/// Runs a test with an engine that has one image, `box`.
pub fn with_engine(test: impl FnOnce(&mut Bench) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("needs root");
        let nothing: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        let mut bench = Bench::new();
        bench.start();
        bench.import();
        test(&mut bench);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// See [`with_engine`].
pub struct Bench {
    folder: tempfile::TempDir,
    engine: Option<Child>,
}

impl Bench {
    fn new() -> Self {
        // On a real file system: an overlay's upper layer cannot lie on an overlay.
        let folder = tempfile::Builder::new()
            .prefix("windlass-cli-")
            .tempdir_in("/var/tmp")
            .unwrap();
        Self {
            folder,
            engine: None,
        }
    }

    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the engine (again) and waits until it answers.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = self.serve().stderr(log).spawn().unwrap();
        self.engine = Some(child);
        self.until("the engine answers", |b| {
            b.docker(&["version"]).status.success()
        });
    }

    fn serve(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlassd"));
        for (option, place) in [
            ("--root", "root"),
            ("--run", "run"),
            ("--socket", "socket"),
            ("--config", "engine.json"),
        ] {
            command.arg(option).arg(self.path(place));
        }
        command
            .args(["--bridge", "wlcli0", "--bridge-subnet", "10.78.0.0/24"])
            .env("WINDLASSD_LOG", "debug,hyper=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// What an engine says that ends at once.
    pub fn refuses_to_start(&self) -> String {
        let output = self.serve().output().unwrap();
        assert!(!output.status.success(), "it has started");
        text(&output.stderr)
    }

    /// The engine's process.
    pub fn engine_pid(&self) -> u32 {
        self.engine.as_ref().map_or(0, Child::id)
    }

    /// An empty file system at a place on the host.
    pub fn mount_tmpfs(&self, at: &Path) {
        let nothing: Option<&str> = None;
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    }

    /// A file system with little room.
    pub fn mount_sized(&self, at: &Path, size: &str) {
        let flags = MsFlags::empty();
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(size)).unwrap();
    }

    /// What is mounted there later is seen by those who share it.
    pub fn share(&self, at: &Path) {
        let nothing: Option<&str> = None;
        mount(nothing, at, nothing, MsFlags::MS_SHARED, nothing).unwrap();
    }

    /// `kill -9`.
    pub fn kill_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.kill().unwrap();
            engine.wait().unwrap();
        }
    }

    /// Brings the image `box`.
    pub fn import(&self) {
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_path_with_name(busybox(), "bin/busybox")
            .unwrap();
        for name in APPLETS {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive
                .append_link(&mut header, format!("bin/{name}"), "busybox")
                .unwrap();
        }
        let mut header = tar::Header::new_gnu();
        let users = b"root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/:/bin/sh\n";
        header.set_size(users.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "etc/passwd", &users[..])
            .unwrap();
        let bytes = archive.into_inner().unwrap();
        let made = self.feed(&["import", "-", "box:latest"], &bytes);
        assert!(text(&made.stdout).starts_with("sha256:"), "{made:?}");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.path("docker-config"))
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.path("socket").display()),
            );
        command
    }

    /// The docker command.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        self.feed(arguments, b"")
    }

    /// [`Bench::docker`] with input.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the docker command is needed: Debian has it in docker-cli or docker.io");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input).ok());
        let pid = Pid::from_raw(child.id() as i32);
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if waits.recv_timeout(PATIENCE).is_err() {
                kill(pid, Signal::SIGKILL).ok();
            }
        });
        let output = child.wait_with_output().unwrap();
        done.send(()).ok();
        watch.join().unwrap();
        feeder.join().unwrap();
        output
    }

    /// Its output; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout).trim_end().to_owned()
    }

    /// Its exit code and words; it must fail.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.docker(arguments);
        assert!(!output.status.success(), "docker {arguments:?} succeeded");
        (
            output.status.code().unwrap_or(-1),
            text(&output.stderr).trim_end().to_owned(),
        )
    }

    /// One value out of `docker inspect`.
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.ok(&["inspect", "-f", format, name])
    }

    /// The docker command on a terminal of its own.
    pub fn on_terminal(&self, arguments: &[&str], input: &str) -> String {
        let mut line = "docker".to_owned();
        for argument in arguments {
            line.push_str(&format!(" '{argument}'"));
        }
        let mut command = self.command(&[]);
        let mut script = Command::new("script");
        script
            .args(["-qfec", &line, "/dev/null"])
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.stdin(Stdio::null());
        let mut child = script.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        // The input stays open: its end would be the terminal's.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        text(&output.stdout)
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "waited for: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of the engine's log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let alive = self
            .engine
            .as_mut()
            .is_some_and(|e| matches!(e.try_wait(), Ok(None)));
        if alive {
            let all = text(&self.docker(&["ps", "-aq"]).stdout);
            let all: Vec<_> = all.split_whitespace().collect();
            if !all.is_empty() {
                self.docker(&[&["rm", "-f", "-v"], &all[..]].concat());
            }
        }
        if let Some(engine) = &mut self.engine {
            engine.kill().ok();
            engine.wait().ok();
        }
        // What an engine that failed has left: processes that name this test's folder.
        for pid in processes_of(self.folder.path()) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        let end = Instant::now() + PATIENCE;
        while std::fs::remove_dir_all(self.folder.path()).is_err() && Instant::now() < end {
            for mounted in mounts_below(self.folder.path()) {
                nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH).ok();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn processes_of(folder: &Path) -> Vec<i32> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&folder))
    })
    .collect()
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|l| l.split(' ').nth(1));
    let mut below: Vec<_> = points
        .map(PathBuf::from)
        .filter(|p| p.starts_with(folder))
        .collect();
    below.reverse();
    below
}

fn busybox() -> &'static str {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .expect("busybox-static is needed")
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a web server on this host says.
pub fn get(port: u16) -> Option<String> {
    let wait = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        .ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.trim_end().to_owned())
}
