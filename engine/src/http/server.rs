//! The socket: accepting, one HTTP/1 connection a client.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use fs_err as fs;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};

use super::lenient::Lenient;
use super::request::Req;
use super::respond::{self, Reply};
use super::route;
use crate::container::Engine;

/// Makes the socket, only for root.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => anyhow::bail!(
            "another engine listens on {}; stop it first, or choose another --socket",
            path.display()
        ),
        Err(_) => match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        },
    }
    // Between bind and chmod nobody else may connect.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o117));
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()));
    nix::sys::stat::umask(old);
    let listener = listener?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Accepts until the future is dropped.
pub async fn serve(listener: UnixListener, engine: Arc<Engine>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let engine = engine.clone();
                tokio::spawn(connection(stream, engine));
            }
            Err(error) => {
                // Out of descriptors: those in use will be closed.
                tracing::error!(%error, "accept");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, engine: Arc<Engine>) {
    let gone = hung_up(&stream);
    let stream = match Lenient::over(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "connection");
            return;
        }
    };
    // What was begun is done to its end, also when its client has gone.
    let service = service_fn(move |request| {
        let answered = tokio::spawn(answer(engine.clone(), request));
        async { answered.await.map_err(std::io::Error::other) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        // As Docker's server writes them: scripts look for `X-Docker-Container-Path-Stat`.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::debug!(%error, "connection");
            }
        }
        // Its answers' bodies go with it: what only it listened to ends.
        () = gone => tracing::debug!("the client has gone"),
    }
}

/// Resolves when the other side has closed both directions: hyper, which lets a client close its own and wait, does not see that while it has nothing to write.
#[allow(unsafe_code)]
fn hung_up(stream: &UnixStream) -> impl Future<Output = ()> + Send + use<> {
    use std::os::fd::AsFd as _;
    let watched = stream
        .as_fd()
        .try_clone_to_owned()
        .ok()
        // SAFETY: the descriptor is owned by what is registered, and so stays open as long.
        .and_then(|fd| unsafe { AsyncFd::register_with_interest(fd, Interest::PRIORITY) }.ok());
    async move {
        let Some(watched) = watched else {
            return std::future::pending().await;
        };
        loop {
            match watched.ready(Interest::PRIORITY).await {
                Ok(guard) if guard.ready().is_read_closed() => return,
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

async fn answer(engine: Arc<Engine>, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let reply = match Req::new(parts, body) {
        Ok(req) => route::dispatch(engine, req).await,
        Err(error) => Err(error),
    };
    let mut reply = reply.unwrap_or_else(|error| {
        tracing::debug!(%method, path, message = error.message, "refused");
        respond::error(&error)
    });
    tracing::debug!(%method, path, status = reply.status().as_u16(), "request");
    super::system::headers(reply.headers_mut());
    if method == http::Method::HEAD && reply.status() != StatusCode::NOT_MODIFIED {
        *reply.body_mut() = respond::empty(StatusCode::OK).into_body();
    }
    reply
}
