//! Docker Engine API: wire types and a client that runs over any byte stream.
//!
//! Deliberately absent: how the stream is made (a unix socket, an SSH channel); see [`Dial`].

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens a new stream to one fixed peer: an engine's socket, an ingress' admin socket.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A fresh connection.
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>>;
}
