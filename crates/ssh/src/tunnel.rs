//! Streams to unix sockets of the host, for the engine's API and the ingress.
//!
//! The server's own forwarding is used where the login user may connect to the socket. Where not (a user with sudo, or a server
//! that forbids or cannot forward), a bridge command on the host joins its stdin and stdout with the socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use windlass_engine_api::{Dial, Stream};

use crate::command::Command;
use crate::connection::{OpenError, Wanted};
use crate::error::Result;
use crate::pump::{self, Alive, Ended, ProcessInput, ProcessOutput, Streams};
use crate::session::Session;

/// The engine's own bridge.
const BRIDGE: &str = "/usr/local/lib/windlass/windlassd";

impl Session {
    /// Dials a unix socket of the host, again and again, on whatever connection is live.
    pub fn unix_socket(&self, path: impl Into<String>) -> Arc<dyn Dial> {
        let path = path.into();
        let bridge = Command::new([BRIDGE, "dial", &path]).as_root();
        self.unix_socket_with(path, bridge)
    }

    /// The same with another bridge: a command that joins its stdin and stdout with the socket.
    pub fn unix_socket_with(&self, path: impl Into<String>, bridge: Command) -> Arc<dyn Dial> {
        Arc::new(UnixSocket {
            session: self.clone(),
            path: path.into(),
            bridge,
            bridged: AtomicBool::new(false),
        })
    }

    /// One stream to a unix socket of the host, by the server's own forwarding only.
    pub async fn dial_unix(&self, path: &str) -> Result<Box<dyn Stream>> {
        let (_, channel) = self.open(Wanted::Unix(path)).await?;
        Ok(Box::new(Tunnel::forwarded(pump::start(channel))))
    }
}

struct UnixSocket {
    session: Session,
    path: String,
    bridge: Command,
    /// The server's forwarding was of no use the last time.
    bridged: AtomicBool,
}

#[async_trait]
impl Dial for UnixSocket {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        self.stream().await.map_err(io::Error::other)
    }
}

impl UnixSocket {
    async fn stream(&self) -> Result<Box<dyn Stream>> {
        if self.bridged.load(Ordering::Relaxed) {
            return self.over_bridge().await;
        }
        match self.session.open(Wanted::Unix(&self.path)).await {
            Ok((_, channel)) => Ok(Box::new(Tunnel::forwarded(pump::start(channel)))),
            Err(OpenError::Other(e)) => Err(e),
            // OpenSSH says the same where nothing listens, where the user may not connect, and where it is told not to forward.
            Err(OpenError::NotThere(e)) if !self.is_there().await? => Err(e),
            Err(OpenError::NotThere(e) | OpenError::NotDone(e)) => {
                tracing::debug!(path = %self.path, reason = %e, "the socket is reached by a command on the host");
                let stream = self.over_bridge().await?;
                self.bridged
                    .store(!self.session.is_root(), Ordering::Relaxed);
                Ok(stream)
            }
        }
    }

    async fn is_there(&self) -> Result<bool> {
        let test = Command::new(["test", "-S", &self.path]).as_root();
        Ok(self.session.exec(&test).await?.success())
    }

    async fn over_bridge(&self) -> Result<Box<dyn Stream>> {
        let (streams, _) = self.session.start(&self.bridge).await?;
        Ok(Box::new(Tunnel::bridged(streams)))
    }
}

/// Both directions of a channel. A bridge that fails is an error with what it said, not an end of file.
struct Tunnel {
    input: ProcessInput,
    output: ProcessOutput,
    errors: ProcessOutput,
    said: Vec<u8>,
    /// Of a bridge, whose end says whether it worked.
    ended: Option<oneshot::Receiver<Ended>>,
    _alive: Alive,
}

impl Tunnel {
    fn forwarded(streams: Streams) -> Self {
        let mut tunnel = Self::bridged(streams);
        tunnel.ended = None;
        tunnel
    }

    fn bridged(streams: Streams) -> Self {
        Self {
            input: streams.input,
            output: streams.output,
            errors: streams.errors,
            said: Vec::new(),
            ended: Some(streams.ended),
            _alive: streams.alive,
        }
    }

    /// At the end of the output: how it ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ended) = self.ended.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        // Its stderr is at its end too, or will be in a moment.
        let mut buffer = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut self.errors).poll_read(cx, &mut read))?;
            match read.filled() {
                [] => break,
                some if self.said.len() < 4096 => self.said.extend_from_slice(some),
                _ => {}
            }
        }
        let end = ready!(Pin::new(ended).poll(cx));
        self.ended = None;
        match end {
            Ok(Ended::Status(0)) => Poll::Ready(Ok(())),
            Ok(Ended::Status(status)) => {
                let said = String::from_utf8_lossy(&self.said);
                let said = said.trim();
                let message = format!("the bridge to the socket failed ({status}): {said}");
                Poll::Ready(Err(io::Error::other(message)))
            }
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_end(cx)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}
