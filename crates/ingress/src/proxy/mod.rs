//! The proxy: HTTP/1.1 on TCP in front, HTTP/1.1 to the replicas behind, its table over a unix socket.
//!
//! In the order of a request: [`serve`] accepts, `forward` picks an upstream from the `state` (which the `router` looks up in),
//! takes a connection from the `pool`, and passes head, body and upgrades on. `health` probes in the background.
//!
//! Deliberately absent: TLS, HTTP/2, caching, rewriting.

mod admin_server;
mod backend;
mod body;
mod forward;
mod headers;
mod health;
mod pool;
mod router;
mod serve;
mod state;
mod tunnel;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use state::State;

/// What the proxy is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where requests come in.
    pub listen: Vec<SocketAddr>,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Keeps the table in force, so that a restarted proxy serves at once.
    pub state_file: PathBuf,
    /// What to do with the `X-Forwarded-*` of requests.
    pub forwarded: Forwarded,
    /// A connection to an upstream that takes longer counts as refused.
    pub connect_timeout: Duration,
    /// How long a connection to an upstream is kept without a request. Under the 5 s after which Apache and Node close theirs.
    pub idle_timeout: Duration,
    /// How long requests in progress may take after the signal to stop.
    pub grace: Duration,
    /// Whether each request is logged.
    pub access_log: AccessLog,
}

/// What a client says about where its request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The proxy is the edge: replace it.
    Replace,
    /// Another proxy that we trust is in front: add to it.
    Trust,
}

/// Whether each request is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Not at all.
    Off,
    /// One event a request.
    On,
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its port is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Its admin socket is not to be had.
    #[error("cannot listen on the admin socket {}", path.display())]
    Admin {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Config {
    /// The defaults for these places.
    pub fn new(listen: Vec<SocketAddr>, admin_socket: PathBuf, state_file: PathBuf) -> Self {
        Self {
            listen,
            admin_socket,
            state_file,
            forwarded: Forwarded::Replace,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(4),
            grace: Duration::from_secs(30),
            access_log: AccessLog::Off,
        }
    }
}

/// Runs until `stop` is ready and the requests in progress are done or the grace is over.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let config = Arc::new(config);
    let mut listeners = Vec::new();
    for address in &config.listen {
        listeners.push(serve::listen(*address).map_err(|source| Error::Listen {
            address: *address,
            source,
        })?);
    }
    let admin = admin_server::listen(&config.admin_socket)
        .await
        .map_err(|source| Error::Admin {
            path: config.admin_socket.clone(),
            source,
        })?;
    let state = Arc::new(State::load(&config));
    let upkeep = tokio::spawn(state::upkeep(Arc::clone(&state)));
    let admin = tokio::spawn(admin_server::run(admin, Arc::clone(&state)));
    serve::run(listeners, Arc::clone(&state), Arc::clone(&config), stop).await;
    admin.abort();
    upkeep.abort();
    // Only tidiness: a socket file that is left behind is replaced at the next start.
    let _ = fs_err::remove_file(&config.admin_socket);
    Ok(())
}
