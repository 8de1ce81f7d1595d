//! Channels to a socket inside the machine.

use std::time::Duration;

use bytes::Bytes;
use russh::ChannelOpenFailure;
use russh::server::ChannelOpenHandle;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::handler::{Closed, Writer};
use super::inbox::Outlet;

/// How long the peer may take to accept.
const CONNECT: Duration = Duration::from_secs(30);

/// Where to.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(String, u16),
    Unix(String),
}

/// Connects, answers the client, and carries bytes until both sides have ended or the channel is closed.
pub async fn run(
    target: Target,
    reply: ChannelOpenHandle,
    channel: Writer,
    input: Outlet,
    closed: Closed,
) {
    match target {
        Target::Tcp(host, port) => match timeout(CONNECT, TcpStream::connect((host, port))).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                reply.accept().await;
                let (from, to) = stream.into_split();
                carry(from, to, channel, input, closed).await;
            }
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        },
        Target::Unix(path) => match timeout(CONNECT, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => {
                reply.accept().await;
                let (from, to) = stream.into_split();
                carry(from, to, channel, input, closed).await;
            }
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        },
    }
}

async fn carry(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    channel: Writer,
    mut input: Outlet,
    closed: Closed,
) {
    let inwards = async {
        while let Some(data) = input.next().await {
            if to.write_all(&data).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        // What still comes has no reader; it must not pile up.
        while input.next().await.is_some() {}
    };
    let outwards = async {
        pump(from, &channel, None).await;
        let _ = channel.eof().await;
    };
    tokio::select! {
        _ = async { tokio::join!(inwards, outwards) } => {}
        () = closed.wait() => {}
    }
    let _ = channel.close().await;
}

/// Sends everything from `from` on the channel; `extended` is the number of a side stream.
pub async fn pump(mut from: impl AsyncRead + Unpin, channel: &Writer, extended: Option<u32>) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || send(channel, extended, &buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Sends `data` as the client's window allows.
pub async fn send(
    channel: &Writer,
    extended: Option<u32>,
    data: &[u8],
) -> Result<(), russh::Error> {
    let data = Bytes::copy_from_slice(data);
    match extended {
        None => channel.data_bytes(data).await,
        Some(number) => channel.extended_data_bytes(number, data).await,
    }
}
