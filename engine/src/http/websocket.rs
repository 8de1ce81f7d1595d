//! WebSockets (RFC 6455), as far as `attach/ws` needs them: the handshake, and bytes in binary messages.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::io::StreamReader;
use windlass_engine_api::Frame;

use super::attach::Out;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// The answer that opens one.
pub fn accept(req: &Req) -> Result<Reply> {
    let asked = req
        .header("upgrade")
        .is_some_and(|u| u.eq_ignore_ascii_case("websocket"));
    let key = req.header("sec-websocket-key").filter(|_| asked);
    let key = key.ok_or_else(|| Error::invalid("not websocket protocol"))?;
    let answer = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    let mut reply = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        answer.map_err(Error::internal)?,
    );
    Ok(reply)
}

/// An open one.
pub struct Socket {
    sink: SplitSink<Stream, Message>,
    stream: SplitStream<Stream>,
}

/// After the answer.
pub async fn open(io: Upgraded) -> Socket {
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
    let (sink, stream) = stream.split();
    Socket { sink, stream }
}

impl Socket {
    /// `false` when the client has gone.
    pub async fn send(&mut self, bytes: Bytes) -> bool {
        self.sink.send(Message::Binary(bytes)).await.is_ok()
    }

    /// Both directions: messages as bytes, and the other way round.
    pub fn halves(&mut self) -> (impl AsyncRead + Unpin, SocketOut<'_>) {
        let pieces = (&mut self.stream).filter_map(|message| {
            std::future::ready(match message {
                Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                    Some(Ok(message.into_data()))
                }
                Ok(_) => None,
                Err(error) => Some(Err(std::io::Error::other(error))),
            })
        });
        (StreamReader::new(pieces), SocketOut(&mut self.sink))
    }

    /// Says that it ends.
    pub async fn close(mut self) {
        self.sink.close().await.ok();
    }
}

/// Output as messages.
pub struct SocketOut<'a>(&'a mut SplitSink<Stream, Message>);

impl Out for SocketOut<'_> {
    async fn send(&mut self, frame: Frame, _: bool) -> bool {
        self.0.send(Message::Binary(frame.data)).await.is_ok()
    }
}
