//! The life of a machine: from its first process to its last.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fs_err as fs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Server;
use crate::children::Children;
use crate::{report, setup, ssh};

/// How long processes may take to end when they are asked to.
const GRACE: Duration = Duration::from_secs(8);
/// How long the kernel may take to end them.
const FORCE: Duration = Duration::from_secs(5);

/// Runs the machine until it is told to stop.
pub fn boot() -> Result<()> {
    // Before the runtime: a cgroup namespace belongs to a thread.
    let server = setup::prepare()?;
    runtime()?.block_on(live(server))
}

/// Serves SSH, without the machine around it.
pub fn serve(server: Server) -> Result<()> {
    runtime()?.block_on(async {
        let children = Children::default();
        let reaping = tokio::spawn(children.clone().reap());
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = ssh::serve(server, children) => ended,
            _ = reaping => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the event loop")
}

async fn live(server: Server) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let children = Children::default();
    let reaping = tokio::spawn(children.clone().reap());
    start_engine(&children);
    start_local(&children);
    let mut serving = tokio::spawn(ssh::serve(server, children));
    report("ready");
    let ended = tokio::select! {
        served = &mut serving => served.context("the SSH server broke")?,
        _ = terminate.recv() => Ok(()),
    };
    report("stopping");
    // Interactive shells do not heed SIGTERM, but the loss of their terminal.
    serving.abort();
    end_all().await;
    reaping.abort();
    ended
}

/// Starts an engine that was installed here, as on a computer whose service manager does it.
fn start_engine(children: &Children) {
    let program = Path::new("/usr/local/lib/windlass/windlassd");
    if !program.is_file() {
        return;
    }
    let start = || -> Result<()> {
        fs::create_dir_all("/run/windlass")?;
        fs::create_dir_all("/var/log/windlass")?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open("/var/log/windlass/windlassd.log")?;
        let mut command = Command::new(program);
        command
            .args(["--root", "/var/lib/windlass", "--run", "/run/windlass"])
            .args(["--socket", "/run/windlass/engine.sock"])
            .stdout(Stdio::from(log.try_clone()?.into_parts().0))
            .stderr(Stdio::from(log.into_parts().0));
        // SAFETY: setsid is a bare system call, as is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
        }
        let (child, _) = children.spawn(in_background(&mut command))?;
        // Where an installation looks for an engine that no service manager keeps.
        fs::write("/run/windlass/windlassd.pid", format!("{}\n", child.id()))?;
        Ok(())
    };
    if let Err(error) = start() {
        report(&format!("cannot start the engine: {error:#}"));
    }
}

/// Runs `/etc/rc.local`, as many systems without a service manager do.
fn start_local(children: &Children) {
    let path = Path::new("/etc/rc.local");
    let runs = path
        .metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if !runs {
        return;
    }
    if let Err(error) = children.spawn(in_background(&mut Command::new(path))) {
        report(&format!("cannot run {}: {error}", path.display()));
    }
}

fn in_background(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .current_dir("/")
        .stdin(Stdio::null())
}

/// Asks every process to end, and ends those that have not after [`GRACE`].
async fn end_all() {
    for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, FORCE)] {
        // From PID 1, -1 is every process of the machine but itself; an error is that there are none.
        let everyone = Pid::from_raw(-1);
        if kill(everyone, signal).is_err() {
            return;
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if kill(everyone, None).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
