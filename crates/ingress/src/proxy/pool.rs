//! Connections to upstreams, kept for the next request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::OutBody;

const IDLE_PER_UPSTREAM: usize = 256;

/// A connection that can send.
pub type Sender = SendRequest<OutBody>;

/// Idle connections, by address.
#[derive(Clone)]
pub struct Pool {
    idle: Arc<Mutex<HashMap<SocketAddr, Vec<Idle>>>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pool {
    pub fn new(connect_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            idle: Arc::default(),
            connect_timeout,
            idle_timeout,
        }
    }

    /// The connection used last that is still open.
    pub fn take(&self, address: SocketAddr) -> Option<Sender> {
        let mut idle = self.lock();
        let connections = idle.get_mut(&address)?;
        while let Some(connection) = connections.pop() {
            if connection.sender.is_ready() && connection.since.elapsed() < self.idle_timeout {
                return Some(connection.sender);
            }
        }
        None
    }

    /// Takes the connection back once its answer has been read.
    pub fn give_back(&self, address: SocketAddr, mut sender: Sender) {
        let pool = self.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                let mut idle = pool.lock();
                let connections = idle.entry(address).or_default();
                if connections.len() < IDLE_PER_UPSTREAM {
                    connections.push(Idle {
                        sender,
                        since: Instant::now(),
                    });
                }
            }
        });
    }

    /// A new connection.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Sender> {
        let stream = tokio::time::timeout(self.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        // A machine that vanishes sends no goodbye: without this a request that waits there would wait for ever.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let (sender, connection) = Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!(%address, error = %e, "connection to an upstream ended");
            }
        });
        Ok(sender)
    }

    /// Closes the idle connections to all other addresses.
    pub fn retain(&self, keep: impl Fn(SocketAddr) -> bool) {
        self.lock().retain(|address, _| keep(*address));
    }

    /// Closes what has been idle for too long.
    pub fn expire(&self) {
        self.lock().retain(|_, connections| {
            connections.retain(|c| c.since.elapsed() < self.idle_timeout && !c.sender.is_closed());
            !connections.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
