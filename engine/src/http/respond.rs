//! Answers: JSON, nothing, an error, a stream.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::container::error::{Error, Kind, Result};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// An answer.
pub type Reply = Response<Body>;

/// A body in memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A status without content.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *reply.status_mut() = status;
    reply
}

/// 204.
pub fn no_content() -> Result<Reply> {
    Ok(empty(StatusCode::NO_CONTENT))
}

/// JSON with 200.
pub fn json(value: &impl Serialize) -> Result<Reply> {
    json_status(StatusCode::OK, value)
}

/// JSON with another status.
pub fn json_status(status: StatusCode, value: &impl Serialize) -> Result<Reply> {
    let mut bytes = serde_json::to_vec(value).map_err(Error::internal)?;
    bytes.push(b'\n');
    Ok(typed(status, "application/json", full(bytes)))
}

/// Any body with its type.
pub fn typed(status: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    reply
}

/// Text.
pub fn text(text: &'static str) -> Reply {
    typed(StatusCode::OK, "text/plain; charset=utf-8", full(text))
}

/// `{"message": …}` with the error's status.
pub fn error(error: &Error) -> Reply {
    let status = match error.kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => return empty(StatusCode::NOT_MODIFIED),
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    message(status, &error.message)
}

/// `{"message": …}`.
pub fn message(status: StatusCode, text: &str) -> Reply {
    let body = serde_json::json!({ "message": text }).to_string() + "\n";
    typed(status, "application/json", full(body))
}

/// The writing end of a streamed answer.
#[derive(Debug, Clone)]
pub struct BodySender(mpsc::Sender<Bytes>);

impl BodySender {
    /// `false` when the client has gone.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(bytes.into()).await.is_ok()
    }

    /// A JSON value and a line end.
    pub async fn send_json(&self, value: &impl Serialize) -> bool {
        let Ok(mut bytes) = serde_json::to_vec(value) else {
            return true;
        };
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes).await
    }

    /// A JSON value and a line end, as everything but progress is streamed.
    pub async fn send_json_line(&self, value: &impl Serialize) -> bool {
        let Ok(mut bytes) = serde_json::to_vec(value) else {
            return true;
        };
        bytes.push(b'\n');
        self.send(bytes).await
    }

    /// Resolves when the client has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body whose bytes come later.
pub fn channel() -> (BodySender, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(bytes)), receiver))
    });
    (BodySender(sender), StreamBody::new(stream).boxed_unsync())
}

/// A body from a stream of pieces.
pub fn stream<S>(stream: S) -> Body
where
    S: futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    use futures_util::TryStreamExt as _;
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}
