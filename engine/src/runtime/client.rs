//! Talking with shims: one connection a request.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use windlass_engine_api::{Frame, FrameDecoder};

use super::shim::SOCKET;
use super::sys;
use super::task::{Reply, Request};

/// Frames that wait for a slow reader before the shim is held up.
const FRAMES: usize = 16;
const CHUNK: usize = 16 * 1024;

/// A connection to the shim of this folder.
pub type Connection = BufReader<UnixStream>;

async fn connect(folder: &Path) -> Result<UnixStream> {
    let opened = std::fs::File::open(folder)?;
    // Socket addresses are short; folders need not be.
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd())).await
}

/// Whether an error means that there is no shim.
pub fn is_gone(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
    )
}

async fn send(folder: &Path, request: &Request) -> Result<UnixStream> {
    let mut stream = connect(folder).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream)
}

/// Asks and waits for the answer.
pub async fn ask(folder: &Path, request: &Request) -> Result<Reply> {
    let mut connection = BufReader::with_capacity(1024, send(folder, request).await?);
    reply(&mut connection).await
}

/// The next line.
pub async fn reply(connection: &mut Connection) -> Result<Reply> {
    let mut line = Vec::new();
    connection.read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(Error::new(ErrorKind::UnexpectedEof, "the shim has ended"));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Output from now on.
pub async fn watch(folder: &Path) -> Result<mpsc::Receiver<Frame>> {
    let stream = send(folder, &Request::Output).await?;
    let mut connection = BufReader::with_capacity(CHUNK, stream);
    if let Some(error) = reply(&mut connection).await?.error {
        return Err(Error::other(error));
    }
    Ok(frames(connection))
}

/// What comes on a connection, until it ends or nobody wants it.
pub fn frames(mut connection: Connection) -> mpsc::Receiver<Frame> {
    let (sender, receiver) = mpsc::channel(FRAMES);
    tokio::spawn(async move {
        let mut decoder = FrameDecoder::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = tokio::select! {
                count = connection.read(&mut buffer) => count.unwrap_or(0),
                () = sender.closed() => return,
            };
            if count == 0 {
                return;
            }
            decoder.push(&buffer[..count]);
            while let Ok(Some(frame)) = decoder.next_frame() {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The process' input; `None`: it takes none.
pub async fn input(folder: &Path) -> Result<Option<Input>> {
    let stream = send(folder, &Request::Stdin).await?;
    let mut first = [0];
    let received = stream
        .async_io(Interest::READABLE, || {
            sys::receive(stream.as_fd(), &mut first)
        })
        .await?;
    match received {
        (0, _) => Err(Error::new(ErrorKind::UnexpectedEof, "the shim has ended")),
        (_, None) => Ok(None),
        (_, Some(fd)) => {
            fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            Ok(Some(Input {
                fd: Some(register(fd)?),
                folder: folder.to_owned(),
            }))
        }
    }
}

#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::WRITABLE) }?)
}

/// The process' own pipe or terminal. Shut down, the input ends for everybody; dropped, others may go on.
#[derive(Debug)]
pub struct Input {
    fd: Option<AsyncFd<OwnedFd>>,
    folder: PathBuf,
}

impl AsyncWrite for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let Some(fd) = &self.fd else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut guard = ready!(fd.poll_write_ready(context))?;
            let written = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?));
            if let Ok(done) = written {
                return Poll::Ready(done);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        // What was written is in the pipe already: the end comes after it.
        if self.fd.take().is_some() {
            let folder = std::mem::take(&mut self.folder);
            tokio::spawn(async move { ask(&folder, &Request::CloseStdin).await });
        }
        Poll::Ready(Ok(()))
    }
}
