//! Starting a program that outlives its caller, in a session of its own and adopted by PID 1.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// Starts `command` and prints its process number. Its output goes where this program's errors go.
pub fn run(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a program is missing")?;
    let mut child = Command::new(program);
    child
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?));
    // SAFETY: setsid is a bare system call, allowed between fork and exec.
    unsafe {
        child.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    let child = child
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    // This program ends now, so that the child is orphaned: its end is PID 1's affair and leaves no zombie here.
    println!("{}", child.id());
    Ok(())
}
