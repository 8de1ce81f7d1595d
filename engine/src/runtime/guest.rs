//! A client of a shim: one connection, one request, its answer, and for those who watch the output after it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use windlass_engine_api::{Source, frame_header};

use super::log::Stream;
use super::sys;
use super::task::{Reply, Request};

/// A request is a short line.
const LONGEST: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Its request is not complete.
    Asking,
    /// It wants to hear of the end.
    Waiting,
    /// It gets output.
    Watching,
    /// It gets what is queued and no more.
    Leaving,
    Gone,
}

/// What a client did.
#[derive(Debug)]
pub enum Step {
    /// A complete request.
    Asked(Request),
    /// Nothing to do.
    Nothing,
}

/// One client.
#[derive(Debug)]
pub struct Guest {
    stream: UnixStream,
    state: State,
    received: Vec<u8>,
    queue: Vec<u8>,
    /// When it last took something of a queue that is not empty.
    took: Option<Instant>,
}

impl Guest {
    /// One who has just come.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            state: State::Asking,
            received: Vec::new(),
            queue: Vec::new(),
            took: None,
        }
    }

    /// One who gets output and asks nothing.
    pub fn watching(stream: UnixStream) -> Self {
        Self {
            state: State::Watching,
            ..Self::new(stream)
        }
    }

    /// The answer, and output from now on.
    pub fn watch(&mut self, reply: &Reply) {
        self.state = State::Watching;
        self.queue_line(reply);
        self.send();
    }

    /// It hears of the end.
    pub fn wait_for_end(&mut self) {
        self.state = State::Waiting;
    }

    /// It waits for the end.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Waiting
    }

    /// The connection can be dropped.
    pub fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// It has not taken all that it was sent.
    pub fn is_owed_output(&self) -> bool {
        !self.queue.is_empty()
    }

    /// It gets output, and has taken all there was.
    pub fn is_up_to_date(&self) -> bool {
        self.state == State::Watching && self.queue.is_empty()
    }

    /// It has taken nothing for so long.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        self.took.is_some_and(|at| at.elapsed() > patience)
    }

    /// It gets nothing more.
    pub fn let_go(&mut self) {
        self.queue = Vec::new();
        self.state = State::Gone;
    }

    /// It must get something before the shim may end.
    pub fn is_owed(&self) -> bool {
        self.is_owed_output() || matches!(self.state, State::Waiting | State::Watching)
    }

    /// Reads and writes what is possible.
    pub fn step(&mut self) -> Step {
        self.send();
        let mut buffer = [0; 512];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.state = State::Gone;
                return Step::Nothing;
            }
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Step::Nothing;
            }
            Err(_) => {
                self.state = State::Gone;
                return Step::Nothing;
            }
        };
        if self.state != State::Asking {
            return Step::Nothing;
        }
        self.received.extend_from_slice(&buffer[..count]);
        let Some(end) = self.received.iter().position(|b| *b == b'\n') else {
            if self.received.len() > LONGEST {
                self.state = State::Gone;
            }
            return Step::Nothing;
        };
        let line = std::mem::take(&mut self.received);
        match serde_json::from_slice(&line[..end]) {
            Ok(request) => Step::Asked(request),
            Err(error) => {
                self.reply(&Reply {
                    error: Some(format!("bad request: {error}")),
                    ..Reply::default()
                });
                Step::Nothing
            }
        }
    }

    /// The answer; nothing follows unless it watches.
    pub fn reply(&mut self, reply: &Reply) {
        self.queue_line(reply);
        self.leave();
    }

    fn queue_line(&mut self, reply: &Reply) {
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            self.queue.extend_from_slice(&line);
        }
    }

    /// The answer, and a descriptor with its first byte.
    pub fn reply_with(&mut self, reply: &Reply, fd: BorrowedFd<'_>) {
        let mut line = serde_json::to_vec(reply).unwrap_or_default();
        line.push(b'\n');
        let first = line.remove(0);
        match sys::send_descriptor(self.stream.as_fd(), first, fd) {
            Ok(()) => {
                self.queue.extend_from_slice(&line);
                self.leave();
            }
            Err(_) => self.state = State::Gone,
        }
    }

    /// Output, if it watches.
    pub fn send_output(&mut self, stream: Stream, bytes: &[u8]) {
        if self.state != State::Watching {
            return;
        }
        let source = match stream {
            Stream::Stdout => Source::Stdout,
            Stream::Stderr => Source::Stderr,
        };
        self.queue
            .extend_from_slice(&frame_header(source, bytes.len() as u32));
        self.queue.extend_from_slice(bytes);
        self.send();
    }

    /// There is no more output.
    pub fn end_output(&mut self) {
        if self.state == State::Watching {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if self.state != State::Gone {
            self.state = State::Leaving;
        }
        self.send();
    }

    fn send(&mut self) {
        while !self.queue.is_empty() {
            match self.stream.write(&self.queue) {
                Ok(count) if count == self.queue.len() => self.queue = Vec::new(),
                Ok(count) => {
                    self.queue.drain(..count);
                    self.took = Some(Instant::now());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.took.get_or_insert_with(Instant::now);
                    return;
                }
                Err(_) => self.let_go(),
            }
        }
        self.took = None;
        if self.state == State::Leaving {
            self.state = State::Gone;
        }
    }
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_takes_nothing_is_known() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut guest = Guest::watching(ours);
        guest.send_output(Stream::Stdout, b"hi");
        assert!(guest.is_up_to_date() && !guest.is_stuck(Duration::ZERO));
        while !guest.is_owed_output() {
            guest.send_output(Stream::Stderr, &[b'x'; 8192]);
        }
        assert!(guest.is_stuck(Duration::ZERO) && !guest.is_stuck(Duration::from_secs(60)));
        assert!(!guest.is_up_to_date());
        let mut all = vec![0; 1 << 20];
        while guest.is_owed_output() {
            assert!(theirs.read(&mut all).unwrap() > 0);
            guest.step();
        }
        assert!(guest.is_up_to_date() && !guest.is_stuck(Duration::ZERO));
        guest.let_go();
        assert!(guest.is_gone());
    }
}
