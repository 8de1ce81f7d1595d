//! Starting a program that outlives its caller, in a session of its own and adopted by PID 1.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

const CLOSE_ON_EXEC: libc::c_uint = 4;

/// Starts `command` and prints its process number. Its output goes where this program's errors go.
pub fn run(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("a program is missing")?;
    let mut child = Command::new(program);
    child
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned()?));
    // SAFETY: both are bare system calls, allowed between fork and exec. The second only sets flags, so that what the caller's caller
    // has open (a lock, a pipe that somebody waits at the end of) is not held for as long as the program runs; older kernels lack it.
    unsafe {
        child.pre_exec(|| {
            nix::unistd::setsid()?;
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_ON_EXEC);
            Ok(())
        });
    }
    let child = child
        .spawn()
        .with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
    // This program ends now, so that the child is orphaned: its end is PID 1's affair and leaves no zombie here.
    println!("{}", child.id());
    Ok(())
}
