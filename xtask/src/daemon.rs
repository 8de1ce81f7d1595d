//! The two engines that are measured and compared, each on its own socket and data root, ended when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use windlass_fixtures::program;

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A running engine.
pub struct Engine {
    /// What the table calls it.
    pub name: &'static str,
    socket: PathBuf,
    // In the order in which they end; the folder last.
    processes: Vec<Process>,
    /// How the first of them was started.
    command: Command,
    folder: TempDir,
}

impl Engine {
    /// A command of the `docker` client for it.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(arguments)
            // Nobody's logins and contexts.
            .env("DOCKER_CONFIG", self.socket.with_extension("none"));
        docker
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a command of the client that must succeed; its output.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        program::checked(&mut self.docker(arguments), Duration::from_secs(300))
            .with_context(|| self.name)
    }

    /// The process ids of the engine itself.
    pub fn pids(&self) -> Vec<u32> {
        self.processes
            .iter()
            .map(|process| process.0.id())
            .collect()
    }

    /// Ends the engine itself as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let engine = self.processes.first_mut().context("no engine")?;
        engine.0.kill()?;
        engine.0.wait()?;
        Ok(())
    }

    /// Starts it anew after [`Engine::kill`], and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        let again = Process::start(&mut self.command, &log)?;
        if let Some(engine) = self.processes.first_mut() {
            *engine = again;
        }
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        program::wait_for(&format!("{} answers", self.name), STARTS_WITHIN, || {
            self.ok(&["version"]).ok()
        })
        .map(drop)
    }
}

/// Ours, with more arguments.
pub fn windlassd(binary: &Path, arguments: &[&str]) -> Result<Engine> {
    let folder = folder()?;
    let at = |name: &str| folder.path().join(name);
    let mut command = Command::new(binary);
    command
        .arg("--root")
        .arg(at("root"))
        .arg("--run")
        .arg(at("run"))
        .arg("--socket")
        .arg(at("engine.sock"))
        .arg("--config")
        .arg(at("engine.json"))
        .args(arguments);
    let engine = Engine {
        name: "windlassd",
        socket: at("engine.sock"),
        processes: vec![Process::start(&mut command, &at("log"))?],
        command,
        folder,
    };
    engine.wait_until_it_answers()?;
    Ok(engine)
}

/// Debian's, with a containerd of its own.
pub fn dockerd() -> Result<Engine> {
    let folder = folder()?;
    let at = |name: &str| folder.path().join(name);
    let containerd = at("containerd.sock");
    let mut first = Command::new("containerd");
    first
        .arg("--root")
        .arg(at("containerd-root"))
        .arg("--state")
        .arg(at("containerd-run"))
        .arg("--address")
        .arg(&containerd);
    let containerd_process = Process::start(&mut first, &at("containerd.log"))?;
    program::wait_for("containerd listens", STARTS_WITHIN, || {
        containerd.exists().then_some(())
    })?;
    let mut second = Command::new("dockerd");
    second
        .arg("--containerd")
        .arg(&containerd)
        .arg("--data-root")
        .arg(at("root"))
        .arg("--exec-root")
        .arg(at("run"))
        .arg("--pidfile")
        .arg(at("pid"))
        .arg("--config-file")
        .arg(at("daemon.json"))
        .arg("--host")
        .arg(format!("unix://{}", at("docker.sock").display()));
    fs_err::write(at("daemon.json"), "{}")?;
    let engine = Engine {
        name: "dockerd",
        socket: at("docker.sock"),
        processes: vec![Process::start(&mut second, &at("log"))?, containerd_process],
        command: second,
        folder,
    };
    engine.wait_until_it_answers()?;
    Ok(engine)
}

/// On a disk: overlays do not stack on every file system.
fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("engine-")
        .tempdir_in("/var/tmp")?)
}

struct Process(Child);

impl Process {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = fs_err::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.file().try_clone()?)
            .stderr(log.into_parts().0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = program::wait(&mut self.0, ENDS_WITHIN);
    }
}
