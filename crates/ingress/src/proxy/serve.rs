//! Accepting connections, and ending them in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::Config;
use super::forward::handle;
use super::state::State;

/// A client that has sent no whole head for so long is let go: an idle one and a slow one alike.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const BACKLOG: u32 = 4096;

/// Binds a port.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Held by each connection: when the last one is gone, the receiver knows.
type Alive = mpsc::Sender<()>;

/// Serves until `stop`, then waits for the requests in progress, at most for the grace.
pub async fn run(
    listeners: Vec<TcpListener>,
    state: Arc<State>,
    config: Arc<Config>,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(());
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            tokio::spawn(accept(
                listener,
                Arc::clone(&state),
                Arc::clone(&config),
                stopped.clone(),
                alive.clone(),
            ))
        })
        .collect();
    drop(alive);
    drop(stopped);
    stop.await;
    drop(stopping);
    for task in accepting {
        // It ends by the same signal; a panic in it has been reported already.
        let _ = task.await;
    }
    if tokio::time::timeout(config.grace, all_gone.recv())
        .await
        .is_err()
    {
        tracing::warn!("requests in progress are cut off: the grace is over");
    }
}

async fn accept(
    listener: TcpListener,
    state: Arc<State>,
    config: Arc<Config>,
    mut stopped: watch::Receiver<()>,
    alive: Alive,
) {
    let signal = stopped.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let (state, config) = (Arc::clone(&state), Arc::clone(&config));
                tokio::spawn(connection(
                    stream,
                    client,
                    state,
                    config,
                    signal.clone(),
                    alive.clone(),
                ));
            }
            Err(e) => {
                // Out of file descriptors, mostly: others have to end first.
                tracing::warn!(error = %e, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    state: Arc<State>,
    config: Arc<Config>,
    mut stopped: watch::Receiver<()>,
    _alive: Alive,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!(error = %e, "a client left at once");
        return;
    }
    let service =
        service_fn(move |request| handle(Arc::clone(&state), Arc::clone(&config), client, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%client, error = %e, "a client's connection broke");
    }
}
