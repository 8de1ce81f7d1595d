//! The task that moves bytes between a channel and the streams that its user holds.
//!
//! russh gives a channel its window back when data arrives, not when it is read, and stalls the whole connection on a reader that
//! does not keep up. So what arrives is queued here, up to [`QUEUE_BYTES`] a stream, before the connection is held up.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};

use crate::shell::WindowSize;

/// Unread bytes of one stream before its reader holds up the connection.
const QUEUE_BYTES: usize = 16 << 20;
/// Chunks written and not yet sent.
const INPUT_CHUNKS: usize = 4;
const CHUNK_BYTES: usize = 32 << 10;

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an exit status.
    Status(i32),
    /// Closed, without one.
    Closed,
    /// The connection was lost.
    Lost,
}

/// While one of these exists the channel stays open.
pub(crate) type Alive = Arc<DropGuard>;

/// The user's side of a channel.
pub(crate) struct Streams {
    pub input: ProcessInput,
    pub output: ProcessOutput,
    pub errors: ProcessOutput,
    pub ended: oneshot::Receiver<Ended>,
    pub alive: Alive,
}

/// Starts the task for a channel without a terminal.
pub(crate) fn start(channel: Channel<Msg>) -> Streams {
    start_resizable(channel, mpsc::channel(1).1)
}

/// Starts the task for a channel; sizes of the terminal are passed on.
pub(crate) fn start_resizable(channel: Channel<Msg>, sizes: mpsc::Receiver<WindowSize>) -> Streams {
    let cancel = CancellationToken::new();
    let alive: Alive = Arc::new(cancel.clone().drop_guard());
    let (input_tx, input_rx) = mpsc::channel(INPUT_CHUNKS);
    let (output_in, output) = queue(&alive);
    let (errors_in, errors) = queue(&alive);
    let (ended_tx, ended) = oneshot::channel();
    let task = async move {
        let (mut read, write) = channel.split();
        let end = tokio::select! {
            end = read_all(&mut read, output_in, errors_in) => end,
            never = write_side(&write, input_rx, sizes) => match never {},
            () = cancel.cancelled() => Ended::Closed,
        };
        let _ = write.close().await;
        let _ = ended_tx.send(end);
    };
    tokio::spawn(task);
    Streams {
        input: ProcessInput {
            sender: PollSender::new(input_tx),
            _alive: alive.clone(),
        },
        output,
        errors,
        ended,
        alive,
    }
}

/// Sends what there is to send, and then never ends: the reading side notices the end of the channel.
async fn write_side(
    write: &ChannelWriteHalf<Msg>,
    input: mpsc::Receiver<Bytes>,
    mut sizes: mpsc::Receiver<WindowSize>,
) -> Infallible {
    let resizing = async {
        while let Some(size) = sizes.recv().await {
            if write
                .window_change(size.columns, size.rows, 0, 0)
                .await
                .is_err()
            {
                return;
            }
        }
    };
    tokio::join!(write_all(write, input), resizing);
    std::future::pending().await
}

async fn write_all(write: &ChannelWriteHalf<Msg>, mut input: mpsc::Receiver<Bytes>) {
    while let Some(chunk) = input.recv().await {
        if write.data_bytes(chunk).await.is_err() {
            return;
        }
    }
    let _ = write.eof().await;
}

async fn read_all(read: &mut ChannelReadHalf, output: QueueIn, errors: QueueIn) -> Ended {
    let mut status = None;
    let mut queues = Some((output, errors));
    loop {
        match (read.wait().await, &queues) {
            (Some(ChannelMsg::Data { data }), Some((output, _))) => output.push(data).await,
            (Some(ChannelMsg::ExtendedData { data, ext: 1 }), Some((_, errors))) => {
                errors.push(data).await;
            }
            (Some(ChannelMsg::Eof), _) => queues = None,
            (Some(ChannelMsg::ExitStatus { exit_status }), _) => {
                status = Some(i32::try_from(exit_status).unwrap_or(255));
            }
            (Some(ChannelMsg::ExitSignal { signal_name, .. }), _) => {
                status = Some(128 + signal_number(&signal_name));
            }
            (Some(ChannelMsg::Close), _) => return status.map_or(Ended::Closed, Ended::Status),
            (None, _) => {
                if let (None, Some((output, errors))) = (status, queues) {
                    output.fail();
                    errors.fail();
                }
                return status.map_or(Ended::Lost, Ended::Status);
            }
            _ => {}
        }
    }
}

fn signal_number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) if name == "USR2" => 12,
        Sig::Custom(_) => 0,
    }
}

struct QueueIn {
    sender: mpsc::UnboundedSender<io::Result<Bytes>>,
    room: Arc<Semaphore>,
}

fn queue(alive: &Alive) -> (QueueIn, ProcessOutput) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(QUEUE_BYTES));
    let output = ProcessOutput {
        receiver,
        room: room.clone(),
        current: Bytes::new(),
        _alive: alive.clone(),
    };
    (QueueIn { sender, room }, output)
}

impl QueueIn {
    /// Waits for room. Where nobody reads any more the data is dropped.
    async fn push(&self, data: Bytes) {
        let bytes = u32::try_from(data.len().min(QUEUE_BYTES)).unwrap_or(0);
        if let Ok(room) = self.room.acquire_many(bytes).await {
            room.forget();
            let _ = self.sender.send(Ok(data));
        }
    }

    fn fail(&self) {
        let lost = io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the SSH connection was lost",
        );
        let _ = self.sender.send(Err(lost));
    }
}

/// Bytes from a channel; an error, not an end of file, when the connection is lost.
pub struct ProcessOutput {
    receiver: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    room: Arc<Semaphore>,
    current: Bytes,
    _alive: Alive,
}

impl Drop for ProcessOutput {
    fn drop(&mut self) {
        self.room.close();
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Ok(data)) => {
                    self.room.add_permits(data.len().min(QUEUE_BYTES));
                    self.current = data;
                }
                Some(Err(e)) => return Poll::Ready(Err(e)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = buf.remaining().min(self.current.len());
        buf.put_slice(&self.current[..count]);
        self.current.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Bytes to a channel. Shutting it down, or dropping it, is end of file.
pub struct ProcessInput {
    sender: PollSender<Bytes>,
    _alive: Alive,
}

impl AsyncWrite for ProcessInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.sender.poll_reserve(cx)).map_err(|_| closed())?;
        let count = buf.len().min(CHUNK_BYTES);
        let chunk = Bytes::copy_from_slice(&buf[..count]);
        self.sender.send_item(chunk).map_err(|_| closed())?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other side has closed")
}
