//! Byte streams to a socket.

use std::path::{Path, PathBuf};

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

/// Dials a unix socket of this computer.
#[derive(Debug, Clone)]
pub struct UnixDial {
    path: PathBuf,
}

impl UnixDial {
    /// Connects to `path` each time.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
        }
    }
}

#[async_trait]
impl Dial for UnixDial {
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = tokio::net::UnixStream::connect(&self.path)
            .await
            .map_err(|e| {
                std::io::Error::new(e.kind(), format!("connect to {}: {e}", self.path.display()))
            })?;
        Ok(Box::new(stream))
    }
}
