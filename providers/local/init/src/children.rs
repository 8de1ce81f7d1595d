//! The children of this process: those that it started, and as PID 1 every orphan of the machine.
//!
//! One place waits for all of them, since a process can be waited for only once.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(u32),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// The kernel wrote its memory to a file.
        dumped: bool,
    },
}

/// Starts processes and tells how they end.
#[derive(Clone, Default)]
pub struct Children {
    waiting: Arc<Mutex<HashMap<i32, oneshot::Sender<Exit>>>>,
    ended: Arc<Notify>,
}

impl Children {
    /// Starts `command`; the receiver has its end, which never comes when [`Children::reap`] is not running.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, oneshot::Receiver<Exit>)> {
        // Held over the start: a child that ends at once must not be reaped before it is known, and when the
        // program cannot be run the standard library waits for the child itself.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(child.id() as i32, sender);
        Ok((child, receiver))
    }

    /// Returns when any process has been reaped since the last call, an orphan too. For one caller.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Reaps until the end of the program.
    pub async fn reap(self) -> io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.collect();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn collect(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((pid, exit)) = next_ended() {
            self.ended.notify_one();
            if let Some(sender) = waiting.remove(&pid) {
                // Nobody may be interested any more.
                let _ = sender.send(exit);
            }
        }
    }
}

/// Not by `nix`, whose status loses the process when it was ended by a real-time signal.
fn next_ended() -> Option<(i32, Exit)> {
    let mut status = 0;
    // SAFETY: the pointer is to a local integer that outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal {
            number: libc::WTERMSIG(status),
            dumped: libc::WCOREDUMP(status),
        }
    } else {
        Exit::Code(libc::WEXITSTATUS(status) as u32)
    };
    Some((pid, exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since reaping takes every child of the process.
    #[tokio::test]
    async fn ends_are_told() {
        let children = Children::default();
        tokio::spawn(children.clone().reap());
        let run = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(script);
            children.spawn(&mut command).unwrap().1
        };
        let ends: Vec<_> = (0..20).map(|n| run(&format!("exit {n}"))).collect();
        for (n, end) in ends.into_iter().enumerate() {
            assert_eq!(end.await.unwrap(), Exit::Code(n as u32));
        }
        let Exit::Signal { number, .. } = run("kill -40 $$").await.unwrap() else {
            panic!("a signal ended it")
        };
        assert_eq!(number, 40, "real-time signals too");
        assert!(children.spawn(&mut Command::new("/nowhere")).is_err());
    }
}
