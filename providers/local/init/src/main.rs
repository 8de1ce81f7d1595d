//! PID 1 of a local machine: makes a bare root file system usable, reaps, serves SSH, and ends everything in order.
//!
//! It has two further uses: `serve` is the SSH server alone, for its tests, and `detach` starts a program that outlives
//! its caller. Deliberately absent: services (an installed engine is kept running and `/etc/rc.local` is run at boot, that is all), logins of others than root, SFTP.

// System calls without a safe wrapper, and the code between fork and exec, are in four of the modules.
#![allow(unsafe_code)]

mod arguments;
mod cgroup;
mod children;
mod detach;
mod engine;
mod machine;
mod setup;
mod ssh;
mod terminal;

use std::process::ExitCode;

use arguments::Use;

fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args_os().skip(1).collect(), std::process::id()) {
        Ok(Use::Boot) => machine::boot(),
        Ok(Use::Serve(server)) => machine::serve(server),
        Ok(Use::Detach(command)) => detach::run(&command),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on the machine's console, which is the container's log.
fn report(line: &str) {
    eprintln!("windlass-local-init: {line}");
}
