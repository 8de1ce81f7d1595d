//! The engine that was installed on this machine: started at boot, and again when it ends, as a service manager would do it.
//!
//! Its process file is a token. Who has renamed it away may start and stop the engine, and nobody else does meanwhile: here it is
//! renamed for a restart, and an installation renames it before it stops the engine or starts another one. An engine that was started by
//! hand, without a process file, is not looked after.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fs_err as fs;

use crate::children::Children;
use crate::machine::in_background;
use crate::report;

const PROGRAM: &str = "/usr/local/lib/windlass/windlassd";
const RUN: &str = "/run/windlass";
const LOGS: &str = "/var/log/windlass";
const SOCKET: &str = "/run/windlass/engine.sock";
const PID_FILE: &str = "/run/windlass/windlassd.pid";
/// The process file while this process has it.
const TAKEN: &str = "/run/windlass/windlassd.pid.init";
/// When it was started again, for an installation that waits for its own engine.
const RESTARTED: &str = "/run/windlass/windlassd.pid.restarted";

/// Before the first restart; doubled for each that follows soon.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// An engine that has run so long has worked.
const WORKED: Duration = Duration::from_secs(60);

/// Starts an engine that was installed here earlier.
pub fn boot(children: &Children) {
    if !Path::new(PROGRAM).is_file() {
        return;
    }
    let boot = || -> Result<()> {
        fs::create_dir_all(RUN)?;
        fs::write(PID_FILE, start(children)?)?;
        Ok(())
    };
    if let Err(error) = boot() {
        report(&format!("cannot start the engine: {error:#}"));
    }
}

/// Starts the engine again whenever it has ended and nobody else is about to.
pub async fn supervise(children: Children) {
    let mut pause = SHORTEST;
    let mut begun = Instant::now();
    loop {
        if !has_ended() {
            children.ended().await;
            continue;
        }
        if begun.elapsed() >= WORKED {
            pause = SHORTEST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
        begun = Instant::now();
        match restart(&children) {
            Ok(true) => report("the engine had ended, and was started again"),
            Ok(false) => {}
            Err(error) => report(&format!("cannot start the engine again: {error:#}")),
        }
    }
}

/// Whether there should be an engine, and is none.
fn has_ended() -> bool {
    fs::read_to_string(PID_FILE).is_ok_and(|pid| !is_engine(&pid))
}

/// By its command line: another process may have got its number. One that was not waited for yet has none.
fn is_engine(pid: &str) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == SOCKET.as_bytes())
}

/// `false` when somebody else starts or has started it. From taking to giving back the token nothing is waited for.
fn restart(children: &Children) -> Result<bool> {
    match fs::rename(PID_FILE, TAKEN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        taken => taken?,
    }
    let runs = fs::read_to_string(TAKEN).is_ok_and(|pid| is_engine(&pid));
    let done = if runs {
        Ok(false)
    } else {
        note_restart()
            .and_then(|()| start(children))
            .and_then(|pid| Ok(fs::write(TAKEN, pid)?))
            .map(|()| true)
    };
    fs::rename(TAKEN, PID_FILE)?;
    done
}

fn note_restart() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    fs::write(RESTARTED, format!("{}\n", now.as_secs()))?;
    Ok(())
}

/// Starts it; the answer is what belongs into its process file.
fn start(children: &Children) -> Result<String> {
    fs::create_dir_all(LOGS)?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new(LOGS).join("windlassd.log"))?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["--root", "/var/lib/windlass", "--run", RUN])
        .args(["--socket", SOCKET])
        .stdout(Stdio::from(log.try_clone()?.into_parts().0))
        .stderr(Stdio::from(log.into_parts().0));
    // SAFETY: setsid is a bare system call, as is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    let (child, _) = children
        .spawn(in_background(&mut command))
        .context(PROGRAM)?;
    Ok(format!("{}\n", child.id()))
}
