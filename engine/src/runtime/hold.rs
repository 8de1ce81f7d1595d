//! The shim's long life: passes output on, keeps it, answers requests, and records the end.
//!
//! One `poll` loop. Memory is bounded: while a client does not take what it has been sent, nothing more is read from the process. Where
//! others wait for more, that has an end.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::Group;
use super::guest::{Guest, Step};
use super::log::{Log, Stream};
use super::shim;
use super::sys;
use super::task::{ExitRecord, Reply, Request};
use crate::container::clock;

/// The record of the end in a shim's folder.
pub const EXIT: &str = "exit.json";
const CHUNK: usize = 8 * 1024;
/// After the end, for output that a surviving process holds open.
const DRAIN: Duration = Duration::from_secs(2);
/// After the end, for clients that are slow to take what is theirs.
const LINGER: Duration = Duration::from_secs(60);

/// For a client that takes nothing, while others have taken all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the process' output comes from and its input goes to.
#[derive(Debug)]
pub struct Outputs {
    streams: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
    is_terminal: bool,
}

impl Outputs {
    /// A terminal is both.
    pub fn terminal(controller: OwnedFd) -> Result<Self> {
        let input = Some(controller.try_clone()?);
        do_not_block(&controller)?;
        Ok(Self {
            streams: [Some(controller), None],
            input,
            is_terminal: true,
        })
    }

    /// Pipes.
    pub fn pipes(input: Option<OwnedFd>, outputs: [OwnedFd; 2]) -> Result<Self> {
        for fd in &outputs {
            do_not_block(fd)?;
        }
        Ok(Self {
            streams: outputs.map(Some),
            input,
            is_terminal: false,
        })
    }

    fn are_done(&self) -> bool {
        self.streams.iter().all(Option::is_none)
    }
}

fn do_not_block(fd: &OwnedFd) -> Result<()> {
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A process and everything about it.
#[derive(Debug)]
pub struct Held {
    /// The shim's own, open: once it is removed nothing more is written, whatever has come to its place.
    pub folder: std::fs::File,
    /// Clients come here.
    pub listener: UnixListener,
    /// The process.
    pub child: Pid,
    /// To the process, until it has executed.
    pub control: Option<UnixStream>,
    /// Its streams.
    pub outputs: Outputs,
    /// Where its output is kept.
    pub log: Option<Log>,
    /// The container's control group.
    pub group: Group,
    /// It is a container's first process.
    pub is_container: bool,
    /// Its end is the end of all others, by the kernel.
    pub own_processes: bool,
    /// Before it.
    pub oom_kills: u64,
}

impl Held {
    /// Lets the program start, and waits until it has been executed.
    pub fn start(&mut self) -> Result<()> {
        let Some(mut control) = self.control.take() else {
            bail!("it has been started already");
        };
        control.set_read_timeout(Some(Duration::from_secs(60)))?;
        control.write_all(b"S")?;
        let mut text = Vec::new();
        control.read_to_end(&mut text)?;
        if text.is_empty() {
            Ok(())
        } else {
            bail!("{}", shim::failure(&text))
        }
    }
}

/// What the kernel has news of.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signal,
    Listener,
    Output(Stream),
    Guest(usize),
}

/// The loop and its state.
#[derive(Debug)]
pub struct Holder {
    held: Held,
    guests: Vec<Guest>,
    signals: SignalFd,
    exit: Option<(ExitRecord, Instant)>,
}

impl Holder {
    /// Ready to run.
    pub fn new(held: Held) -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            held,
            guests: Vec::new(),
            signals,
            exit: None,
        })
    }

    /// One who gets output from the beginning.
    pub fn add_output(&mut self, stream: Option<UnixStream>) {
        self.guests.extend(stream.map(Guest::watching));
    }

    /// Until the process has ended and everybody knows.
    pub fn run(&mut self) -> Result<()> {
        sys::forget_code();
        // It may have ended before signals were looked at.
        self.reap();
        while !self.is_done() {
            for source in self.wait()? {
                match source {
                    Source::Signal => while matches!(self.signals.read_signal(), Ok(Some(_))) {},
                    Source::Listener => self.accept(),
                    Source::Output(stream) => self.pass_on(stream),
                    Source::Guest(index) => self.serve(index),
                }
            }
            self.reap();
            self.tell_waiting();
            self.let_go_of_stuck();
            self.guests.retain(|g| !g.is_gone());
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let Some((_, at)) = &self.exit else {
            return false;
        };
        let open = self.guests.iter().any(Guest::is_owed);
        (self.is_drained() && !open) || at.elapsed() > LINGER
    }

    fn is_drained(&self) -> bool {
        let late = self
            .exit
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() > DRAIN);
        self.held.outputs.are_done() || late
    }

    fn wait(&self) -> Result<Vec<Source>> {
        let is_held_up = self.exit.is_none() && self.guests.iter().any(Guest::is_owed_output);
        let mut sources = vec![Source::Signal, Source::Listener];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.held.listener.as_fd(), PollFlags::POLLIN),
        ];
        if !is_held_up {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = &self.held.outputs.streams[stream as usize] {
                    sources.push(Source::Output(stream));
                    fds.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
                }
            }
        }
        for (index, guest) in self.guests.iter().enumerate() {
            let mut flags = PollFlags::POLLIN;
            if guest.is_owed_output() {
                flags |= PollFlags::POLLOUT;
            }
            sources.push(Source::Guest(index));
            fds.push(PollFd::new(guest.as_fd(), flags));
        }
        let timeout = match &self.exit {
            None if is_held_up => PollTimeout::from(1000u16),
            None => PollTimeout::NONE,
            Some(_) => PollTimeout::from(100u8),
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let news = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        let pairs = sources.into_iter().zip(&fds);
        Ok(pairs.filter(|(_, fd)| news(fd)).map(|(s, _)| s).collect())
    }

    /// One client alone may hold the process up as long as it likes, like the reader of a pipe.
    fn let_go_of_stuck(&mut self) {
        if self.guests.iter().any(Guest::is_up_to_date) {
            let stuck = self.guests.iter_mut().filter(|g| g.is_stuck(PATIENCE));
            stuck.for_each(Guest::let_go);
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.held.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.guests.push(Guest::new(stream));
            }
        }
    }

    /// One piece of output, to the log and everybody who watches.
    fn pass_on(&mut self, stream: Stream) {
        let slot = &mut self.held.outputs.streams[stream as usize];
        let Some(fd) = slot else { return };
        let mut buffer = [0; CHUNK];
        let count = match nix::unistd::read(fd.as_raw_fd(), &mut buffer) {
            Ok(count) => count,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return,
            // A terminal that nobody has open any more.
            Err(_) => 0,
        };
        if count == 0 {
            *slot = None;
            if let Some(log) = &mut self.held.log {
                log.flush(stream);
            }
            if self.held.outputs.are_done() {
                self.guests.iter_mut().for_each(Guest::end_output);
            }
            return;
        }
        let bytes = &buffer[..count];
        if let Some(log) = &mut self.held.log {
            log.write(stream, bytes);
        }
        for guest in &mut self.guests {
            guest.send_output(stream, bytes);
        }
    }

    fn serve(&mut self, index: usize) {
        if let Step::Asked(request) = self.guests[index].step() {
            let reply = self.answer(index, request);
            if let Some(reply) = reply {
                self.guests[index].reply(&reply);
            }
        }
    }

    /// `None`: the answer comes later, or has been given.
    fn answer(&mut self, index: usize, request: Request) -> Option<Reply> {
        let mut reply = Reply::default();
        let done: Result<()> = match request {
            Request::Start => self.held.start(),
            Request::Wait => {
                self.guests[index].wait_for_end();
                return None;
            }
            Request::State => {
                reply.pid = match self.exit {
                    None => self.held.child.as_raw(),
                    Some(_) => 0,
                };
                Ok(())
            }
            Request::Signal(number) => self.signal(number),
            Request::Resize(rows, columns) => self.resize(rows, columns),
            Request::Output => {
                self.guests[index].watch(&reply);
                if self.held.outputs.are_done() {
                    self.guests[index].end_output();
                }
                return None;
            }
            Request::Stdin => {
                if let Some(input) = &self.held.outputs.input {
                    let input = input.as_fd();
                    self.guests[index].reply_with(&reply, input);
                    return None;
                }
                Err(anyhow::anyhow!("it takes no input"))
            }
            Request::CloseStdin => {
                if !self.held.outputs.is_terminal {
                    self.held.outputs.input = None;
                }
                Ok(())
            }
        };
        reply.error = done.err().map(|e| format!("{e:#}"));
        Some(reply)
    }

    fn signal(&self, number: i32) -> Result<()> {
        if self.exit.is_some() {
            bail!("the process has ended");
        }
        // Not reaped yet, so the number is still its own. Real-time signals have no name in nix.
        sys::send_signal(self.held.child, number)?;
        Ok(())
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        match &self.held.outputs {
            Outputs {
                input: Some(terminal),
                is_terminal: true,
                ..
            } => Ok(sys::set_window_size(terminal.as_fd(), rows, columns)?),
            // Docker says nothing either.
            _ => Ok(()),
        }
    }

    /// Whoever has ended; of the held process its end is recorded.
    fn reap(&mut self) {
        loop {
            let code = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.held.child => i64::from(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.held.child => {
                    128 + signal as i64
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            self.ended(code);
        }
    }

    fn ended(&mut self, code: i64) {
        let is_container = self.held.is_container;
        let record = ExitRecord {
            code,
            oom_killed: is_container && self.held.group.oom_kills() > self.held.oom_kills,
            at: clock::now(),
        };
        if is_container && !self.held.own_processes {
            self.held.group.kill();
        }
        self.record(&record).ok();
        self.exit = Some((record, Instant::now()));
    }

    /// Whole or not at all. It must outlive the engine, not the host: after a boot nothing runs that it could be about.
    fn record(&self, record: &ExitRecord) -> Result<()> {
        let folder = PathBuf::from(format!("/proc/self/fd/{}", self.held.folder.as_raw_fd()));
        let (part, whole) = (folder.join("exit.part"), folder.join(EXIT));
        let mut file = std::fs::File::create(&part)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        std::fs::rename(part, whole)?;
        Ok(())
    }

    fn tell_waiting(&mut self) {
        if !self.is_drained() {
            return;
        }
        let Some((record, _)) = &self.exit else {
            return;
        };
        let reply = Reply {
            exit: Some(record.clone()),
            ..Reply::default()
        };
        for guest in self.guests.iter_mut().filter(|g| g.is_waiting()) {
            guest.reply(&reply);
        }
        self.guests.iter_mut().for_each(Guest::end_output);
    }
}
