//! The private engine: a `windlassd` of this state folder's own, started on demand, kept while there are machines.
//!
//! It outlives the command line, and the machines outlive it: when it has died or is an older version, another takes over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use windlass_engine_api::{Client, UnixDial};
use windlass_provider::Result;

use crate::binaries;
use crate::failure;
use crate::layout::{Layout, RUN};
use crate::lock::{Lock, Mode};
use crate::subnet;

/// How long an engine may take until it answers.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(10);
/// How long another windlass may start or stop it.
const SWITCH: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Which process it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    pid: i32,
    /// In the kernel's clock ticks since the boot: process numbers come back.
    started: u64,
    /// The program's file.
    program: PathBuf,
}

/// Whether a running engine of another version may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Any will do.
    Any,
    /// It has to be the one of these binaries.
    Current,
}

/// A client of the engine, which runs afterwards.
pub async fn ensure(layout: &Layout, binaries: Option<&Path>, version: Version) -> Result<Client> {
    if version == Version::Any && answers(layout).await {
        return Ok(client(layout));
    }
    let _lock = Lock::take(&layout.switching(), Mode::Exclusive, SWITCH).await?;
    let program = binaries::unpack(binaries, "windlassd", &layout.programs())?.path;
    if answers(layout).await {
        let current = running(layout).is_some_and(|engine| engine.program == program);
        if version == Version::Any || current {
            return Ok(client(layout));
        }
        tracing::info!("another version of the private engine takes over");
    }
    end(layout).await?;
    start(layout, binaries, &program).await?;
    Ok(client(layout))
}

/// Ends it, and takes back what it made outside its own folder. The machines must be gone.
pub async fn stop(layout: &Layout) -> Result<()> {
    let _lock = Lock::take(&layout.switching(), Mode::Exclusive, SWITCH).await?;
    end(layout).await?;
    if let Ok(program) = binaries::unpack(None, "windlassd", &layout.programs()) {
        clear(layout, &program)?;
    }
    match fs::remove_dir_all(&layout.run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure::of_host(
            "cannot remove the folder of the sockets",
        )(error)),
        _ => Ok(()),
    }
}

/// Takes the bridge and the rules out of the kernel, which keeps them when an engine ends.
fn clear(layout: &Layout, program: &binaries::Program) -> Result<()> {
    let output = Command::new(&program.path)
        .args(["clear", "--bridge", &layout.bridge()])
        .stdin(Stdio::null())
        .output()
        .map_err(failure::of_host("cannot start the private engine"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failure::other(format!(
        "cannot take back the network of the machines: {}",
        said.trim()
    )))
}

fn client(layout: &Layout) -> Client {
    Client::new(Arc::new(UnixDial::new(layout.socket())))
}

async fn answers(layout: &Layout) -> bool {
    matches!(
        timeout(Duration::from_secs(5), client(layout).ping()).await,
        Ok(Ok(_))
    )
}

async fn start(layout: &Layout, binaries: Option<&Path>, program: &Path) -> Result<()> {
    let init = binaries::unpack(binaries, "windlass-local-init", &layout.programs())?.path;
    // Two state folders must not choose the same subnet.
    let shared = Path::new(RUN).join("lock");
    let _lock = Lock::take(&shared, Mode::Exclusive, SWITCH).await?;
    let subnet = chosen_subnet(layout)?;
    let pid = spawn(layout, &init, program, &subnet)?;
    let engine = Running {
        pid,
        started: start_time(pid).unwrap_or(0),
        program: program.to_owned(),
    };
    let text = serde_json::to_string(&engine).map_err(|error| failure::other(error.to_string()))?;
    fs::write(record(layout), text).map_err(failure::of_host("cannot record the engine"))?;
    let deadline = Instant::now() + START;
    while !answers(layout).await {
        if !is_alive(&engine) {
            return Err(broken(layout, "the private engine ended at once"));
        }
        if Instant::now() >= deadline {
            return Err(broken(layout, "the private engine does not answer"));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// The choice is kept with the lasting files, and shown to other state folders in `/run`.
fn chosen_subnet(layout: &Layout) -> Result<String> {
    let subnet = subnet::choose(&layout.base.join("subnet"), Path::new(RUN))?;
    fs::write(layout.run.join("subnet"), &subnet)
        .map_err(failure::of_host("cannot reserve the subnet"))?;
    Ok(subnet)
}

/// By way of the init, which can put a program into a session of its own.
fn spawn(layout: &Layout, init: &Path, program: &Path, subnet: &str) -> Result<i32> {
    let log = fs::File::create(layout.log()).map_err(failure::of_host("cannot write the log"))?;
    let output = Command::new(init)
        .arg("detach")
        .arg(program)
        .arg("--root")
        .arg(layout.engine())
        .arg("--run")
        .arg(&layout.run)
        .arg("--socket")
        .arg(layout.socket())
        .arg("--config")
        .arg(layout.base.join("engine.json"))
        .args(["--bridge", &layout.bridge(), "--bridge-subnet", subnet])
        .stdin(Stdio::null())
        .stderr(Stdio::from(log.into_parts().0))
        .output()
        .map_err(failure::of_host("cannot start the private engine"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().parse() {
        Ok(pid) if output.status.success() => Ok(pid),
        _ => Err(broken(layout, "cannot start the private engine")),
    }
}

async fn end(layout: &Layout) -> Result<()> {
    let Some(engine) = running(layout) else {
        return Ok(());
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(engine.pid), signal);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if !is_alive(&engine) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(failure::other(format!(
        "the private engine (process {}) does not end",
        engine.pid
    )))
}

fn record(layout: &Layout) -> PathBuf {
    layout.run.join("engine.json")
}

/// The process of the record, if it is still the same one.
fn running(layout: &Layout) -> Option<Running> {
    let text = fs::read(record(layout)).ok()?;
    let engine: Running = serde_json::from_slice(&text).ok()?;
    is_alive(&engine).then_some(engine)
}

fn is_alive(engine: &Running) -> bool {
    start_time(engine.pid) == Some(engine.started)
}

/// `None` when there is no such process, or only what its parent has not fetched yet.
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second column is the program's name, and may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut columns = rest.split_whitespace();
    let state = columns.next()?;
    let started = columns.nth(18)?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then_some(started)
}

fn broken(layout: &Layout, what: &str) -> windlass_provider::ProviderError {
    let log = fs::read_to_string(layout.log()).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    failure::other(format!("{what}: {}", last.join(" | ")))
        .with_hint(format!("its log is {}", layout.log().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = std::process::id() as i32;
        let started = start_time(own).unwrap();
        assert!(started > 0);
        let mut engine = Running {
            pid: own,
            started,
            program: PathBuf::new(),
        };
        assert!(is_alive(&engine));
        engine.started += 1;
        assert!(!is_alive(&engine), "the number was given to another");
        assert_eq!(start_time(i32::MAX), None);
    }
}
