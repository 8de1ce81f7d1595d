//! `--init`: a reaper as the container's first process; the program runs below it.
//!
//! It is this very process image after a fork, as nothing of ours is in the container that could be executed.

use anyhow::Result;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::sys;
use super::task::Process;

/// Comes back in the process that is to execute the program; the other one reaps until that has ended, and ends as it did.
pub fn supervise(process: &Process) -> Result<()> {
    let mut all = SigSet::all();
    all.remove(Signal::SIGSEGV);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None)?;
    let Some(program) = sys::fork()? else {
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        if process.tty {
            nix::unistd::tcsetpgrp(std::io::stdin(), nix::unistd::getpid()).ok();
        }
        sys::default_signals();
        return Ok(());
    };
    nix::sys::prctl::set_name(c"docker-init").ok();
    let mut words = vec!["/sbin/docker-init".to_owned(), "--".to_owned()];
    words.extend(process.args.iter().cloned());
    sys::show_arguments(&words);
    sys::close_from(3);
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => reap(program),
            Ok(signal) => {
                kill(program, signal).ok();
            }
            Err(_) => {}
        }
    }
}

fn reap(program: Pid) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => sys::exit_now(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                sys::exit_now(128 + signal as i32)
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
