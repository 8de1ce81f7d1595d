//! A state folder of its own, with machines that go when the test ends, however it ends.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};
use windlass_provider::{Context, CreateRequest, Instance, OptionValues, Provider};
use windlass_provider_local::Local;

/// Why a test cannot run.
pub const WHY: &str = "WINDLASS_BINARIES has to name the folder of the binaries for hosts; `cargo xtask binaries` prints it";

pub struct Scene {
    folder: Option<tempfile::TempDir>,
    binaries: PathBuf,
}

impl Scene {
    /// Panics with `why` without what it needs.
    pub fn new(why: &str) -> Self {
        let binaries = std::env::var_os("WINDLASS_BINARIES").map(PathBuf::from);
        let given = binaries.unwrap_or_else(|| panic!("{why}"));
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        // Not in /tmp, which may be in memory: the engine stacks file systems there.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let binaries = folder.path().join("binaries");
        copy(&given.join(ARCH), &binaries.join(ARCH));
        for name in ["user", "host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(folder.path().join(name))
                .status()
                .unwrap();
            assert!(made.success());
        }
        Self {
            folder: Some(folder),
            binaries,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// The process of the private engine.
    pub fn engine(&self) -> Pid {
        let record = std::fs::read_to_string(self.run_folder().join("engine.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        Pid::from_raw(record["pid"].as_i64().unwrap() as i32)
    }

    /// The same engine in another file: an upgrade.
    pub fn another_engine(&self) {
        let packed = self.binary("windlassd");
        let gzip = |flags: &[&str], input: &Path| {
            let output = Command::new("gzip")
                .args(flags)
                .arg(input)
                .output()
                .unwrap();
            assert!(output.status.success());
            output.stdout
        };
        let plain = self.path("plain");
        std::fs::write(&plain, gzip(&["-dc"], &packed)).unwrap();
        let before = std::fs::read(&packed).unwrap();
        std::fs::write(&packed, gzip(&["-2", "-n", "-c"], &plain)).unwrap();
        assert!(std::fs::read(&packed).unwrap() != before);
    }

    /// Ends what holds the machines, and with it the machines.
    pub fn kill_shims(&self) {
        for shim in processes_of(&self.run_folder()) {
            let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"));
            kill(Pid::from_raw(shim));
            for child in children.unwrap_or_default().split_whitespace() {
                kill(Pid::from_raw(child.parse().unwrap()));
            }
        }
    }

    fn digest(&self) -> String {
        let base = std::fs::canonicalize(self.path("state/local")).unwrap();
        hex::encode(Sha256::digest(base.as_os_str().as_encoded_bytes()))
    }

    fn run_folder(&self) -> PathBuf {
        Path::new("/run/windlass-local").join(&self.digest()[..12])
    }

    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(ARCH).join(format!("{name}.gz"))
    }

    pub fn provider(&self) -> Local {
        self.provider_with(&[])
    }

    pub fn provider_with(&self, options: &[(&str, &str)]) -> Local {
        let values: OptionValues = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let context = Context {
            state: self.path("state"),
            binaries: Some(self.binaries.clone()),
        };
        Local::new(&values, &context).unwrap()
    }

    pub fn request(&self, name: &str) -> CreateRequest {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        CreateRequest {
            name: name.to_owned(),
            token: format!("token-{name}"),
            authorized_key: read("user.pub"),
            host_key: Some(read("host")),
        }
    }

    /// The real OpenSSH client, which knows the host key beforehand.
    pub fn ssh(&self, machine: &Instance, command: &str) -> Output {
        self.ssh_command(machine, command).output().unwrap()
    }

    pub fn ssh_command(&self, machine: &Instance, command: &str) -> Command {
        let address = machine.address.as_ref().unwrap();
        let known = self.path(&format!("known-{address}"));
        let key = std::fs::read_to_string(self.path("host.pub")).unwrap();
        std::fs::write(&known, format!("{address} {key}")).unwrap();
        let mut ssh = Command::new("timeout");
        ssh.args(["60", "ssh", "-F", "/dev/null", "-i"])
            .arg(self.path("user"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10"])
            .arg(format!("root@{address}"))
            .arg(command)
            .stdin(Stdio::null());
        ssh
    }

    /// What `command` prints; it must succeed.
    pub fn say(&self, machine: &Instance, command: &str) -> String {
        let output = self.ssh(machine, command);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: `{command}`: {err}",
            machine.name
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// No engine, no machine, no mount of this state folder.
    pub async fn assert_nothing_is_left(&self) {
        assert!(self.provider().list().await.unwrap().is_empty());
        let state = self.path("state");
        until("the end of the engine", || processes_of(&state).is_empty());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let left: Vec<&str> = mounts
            .lines()
            .filter(|line| line.contains(state.to_str().unwrap()))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let bridge = format!("/sys/class/net/wl-{}", &self.digest()[..6]);
        assert!(!Path::new(&bridge).exists(), "{bridge} is left");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Ends a process at once, and waits until it has.
pub fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    until("the end of a process", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    });
}

/// Processes whose command line names the folder.
fn processes_of(folder: &Path) -> Vec<i32> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(folder))
        })
        .collect()
}

impl Drop for Scene {
    fn drop(&mut self) {
        let provider = self.provider();
        // Another runtime: this one may be the one that panics.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for machine in provider.list().await.unwrap_or_default() {
                    if let Err(error) = provider.delete(&machine.id).await {
                        eprintln!("{} is left: {error}", machine.name);
                    }
                }
            });
        });
        let _ = cleaning.join();
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let log = std::fs::read_to_string(folder.path().join("state/local/engine.log"));
            eprintln!("the engine's log:\n{}", log.unwrap_or_default());
        }
    }
}

/// Waits for it, for half a minute at most.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
