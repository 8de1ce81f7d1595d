//! The life of a machine: from its first process to its last.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Server;
use crate::children::Children;
use crate::{engine, report, setup, ssh};

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
    engine::boot(&children);
    let supervising = tokio::spawn(engine::supervise(children.clone()));
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
    supervising.abort();
    end_all().await;
    reaping.abort();
    ended
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

/// With a bare environment, and nobody to ask.
pub fn in_background(command: &mut Command) -> &mut Command {
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
