//! Request targets as scripts write them: `curl '…/containers/json?filters={"name":["x"]}'` sends quotes that RFC 3986 wants encoded. Docker's
//! server takes them, hyper refuses; so they are encoded before hyper sees them.
//!
//! Deliberately limited to the first request of a connection, which is the only one of such clients, and to those that came in one piece.
//!
//! And a client that has asked for another protocol is left the time to read that it got it: docker-py reads the head through a buffer that it
//! then throws away, with all that was sent by then.

#![allow(unsafe_code)]

use std::future::Future as _;
use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

/// Longest request line that is looked at.
const LOOK_AT: usize = 8 * 1024;

/// How long a client may take to read a head before what follows comes anyway.
const TAKEN_WITHIN: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_micros(500);

nix::ioctl_read_bad!(unread_by_peer, libc::TIOCOUTQ, libc::c_int);

/// A connection whose first bytes may have been replaced.
pub struct Lenient {
    stream: UnixStream,
    first: Vec<u8>,
    read: usize,
    head: Option<Head>,
}

/// The head of an answer that changes the protocol, sent and perhaps not read yet.
struct Head {
    until: Instant,
    again: Pin<Box<Sleep>>,
}

impl Lenient {
    /// Waits for the first bytes of a client and sees whether they need it.
    pub async fn over(stream: UnixStream) -> io::Result<Self> {
        let mut bytes = vec![0; LOOK_AT];
        let count = loop {
            stream.readable().await?;
            match stream.try_read(&mut bytes) {
                // Readiness may be a false alarm.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read?,
            }
        };
        bytes.truncate(count);
        let first = encoded(&bytes).unwrap_or(bytes);
        Ok(Self {
            stream,
            first,
            read: 0,
            head: None,
        })
    }

    /// Ready once the client has read the head, where there is one to wait for.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(head) = &mut self.head {
            if is_taken(&self.stream) || Instant::now() >= head.until {
                self.head = None;
                break;
            }
            ready!(head.again.as_mut().poll(cx));
            head.again.as_mut().reset(Instant::now() + LOOK_AGAIN);
        }
        Poll::Ready(())
    }

    fn note_head(&mut self, written: &[u8]) {
        if written.starts_with(b"HTTP/1.1 101") {
            self.head = Some(Head {
                until: Instant::now() + TAKEN_WITHIN,
                again: Box::pin(sleep(LOOK_AGAIN)),
            });
        }
    }
}

/// Whether the client has read all that was written; where that cannot be told it has.
fn is_taken(stream: &UnixStream) -> bool {
    let mut unread = 0;
    // SAFETY: the descriptor is open, and the kernel writes one integer.
    let asked = unsafe { unread_by_peer(stream.as_raw_fd(), &raw mut unread) };
    asked.is_err() || unread == 0
}

/// The same request with its target encoded, where it has to be.
fn encoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    if line.len() == bytes.len() || !line.iter().any(|byte| is_refused(*byte)) {
        return None;
    }
    let begin = line.iter().position(|byte| *byte == b' ')? + 1;
    let end = line.iter().rposition(|byte| *byte == b' ')?;
    let target = line.get(begin..end)?;
    let mut out = bytes[..begin].to_vec();
    for byte in target {
        if is_refused(*byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    out.extend_from_slice(&bytes[end..]);
    Some(out)
}

/// Those that have a place in a target only in other servers' opinion.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | 0x7f..)
}

impl AsyncRead for Lenient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read < self.first.len() {
            let count = buffer.remaining().min(self.first.len() - self.read);
            buffer.put_slice(&self.first[self.read..self.read + count]);
            self.read += count;
            if self.read == self.first.len() {
                // A connection may last for days.
                self.first = Vec::new();
                self.read = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx));
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.note_head(bytes);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(cx));
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts))?;
        self.note_head(parts.first().map_or(&[], |part| part));
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_a_target_are_encoded_and_nothing_else() {
        let request =
            b"GET /containers/json?filters={\"id\":[\"x\"]} HTTP/1.1\r\nHost: \"x\"\r\n\r\n";
        assert_eq!(
            String::from_utf8(encoded(request).unwrap()).unwrap(),
            "GET /containers/json?filters={%22id%22:[%22x%22]} HTTP/1.1\r\nHost: \"x\"\r\n\r\n"
        );
    }

    #[test]
    fn a_proper_or_unfinished_request_stays_as_it_is() {
        for request in [
            &b"GET /_ping HTTP/1.1\r\nHost: \"x\"\r\n\r\n"[..],
            b"GET /x?\"",
            b"\"\r\n",
            b"GET\"\r\n",
            b"",
        ] {
            assert_eq!(encoded(request), None, "{request:?}");
        }
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_before_the_rest() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"GET /\" HTTP/1.1\r\n").await.unwrap();
        let mut lenient = Lenient::over(server).await.unwrap();
        client.write_all(b"\r\nbody").await.unwrap();
        drop(client);
        let mut all = String::new();
        lenient.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET /%22 HTTP/1.1\r\n\r\nbody");
    }

    #[tokio::test]
    async fn what_follows_a_change_of_protocol_waits_for_the_head_to_be_read() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut lenient = Lenient::over(server).await.unwrap();
        let head = b"HTTP/1.1 101 UPGRADED\r\n\r\n";
        let writer = tokio::spawn(async move {
            lenient.write_all(head).await.unwrap();
            lenient.write_all(b"data").await.unwrap();
            lenient
        });
        client.readable().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        // One read, as large as may be, gets the head alone.
        let mut bytes = [0; 100];
        let count = client.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], head);
        let count = client.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], b"data");
        drop(writer.await.unwrap());
    }
}
