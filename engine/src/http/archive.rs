//! `docker cp` and `docker export`.

use std::sync::Arc;

use base64::Engine as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::files::{self, Root, Unpacking};

const PIPE: usize = 256 * 1024;

fn path(req: &Req) -> Result<String> {
    req.query("path")
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid("bad parameter: filename cannot be empty"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::internal)?
}

fn with_stat(mut reply: Reply, stat: &windlass_engine_api::types::PathStat) -> Result<Reply> {
    let json = serde_json::to_vec(stat).map_err(Error::internal)?;
    let value = base64::engine::general_purpose::STANDARD.encode(json);
    let value = HeaderValue::from_str(&value).map_err(Error::internal)?;
    reply.headers_mut().insert(
        HeaderName::from_static("x-docker-container-path-stat"),
        value,
    );
    Ok(reply)
}

/// `HEAD /containers/{id}/archive`.
pub async fn stat(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    let path = path(req)?;
    let root = engine.open_root(id).await?;
    let stat = files::stat(&root.fd(), &path);
    root.close().await;
    with_stat(respond::empty(StatusCode::OK), &stat?)
}

/// `GET /containers/{id}/archive`.
pub async fn get(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    let path = path(req)?;
    let root = engine.open_root(id).await?;
    let stat = match files::stat(&root.fd(), &path) {
        Ok(stat) => stat,
        Err(error) => {
            root.close().await;
            return Err(error);
        }
    };
    with_stat(
        pack(root, move |fd, out| files::pack(fd, &path, out)),
        &stat,
    )
}

/// `GET /containers/{id}/export`.
pub async fn export(engine: &Arc<Engine>, id: &str) -> Result<Reply> {
    let root = engine.open_root(id).await?;
    Ok(pack(root, files::pack_all))
}

/// Packs in a thread of its own, as fast as the client reads.
fn pack<F>(root: Root, work: F) -> Reply
where
    F: FnOnce(&std::os::fd::OwnedFd, SyncIoBridge<tokio::io::DuplexStream>) -> Result<()>
        + Send
        + 'static,
{
    let (writer, reader) = tokio::io::duplex(PIPE);
    let (failed, failure) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let fd = root.fd();
        let packed = blocking(move || work(&fd, SyncIoBridge::new(writer))).await;
        root.close().await;
        if let Err(error) = packed {
            tracing::warn!(%error, "packing");
            failed.send(std::io::Error::other(error)).ok();
        }
    });
    // An archive that is not whole must not look as if it were: the connection breaks instead of ending.
    let failure = futures_util::stream::once(failure)
        .filter_map(|failure| std::future::ready(failure.ok().map(Err)));
    let pieces = ReaderStream::with_capacity(reader, 64 * 1024).chain(failure);
    respond::typed(StatusCode::OK, "application/x-tar", respond::stream(pieces))
}

/// `PUT /containers/{id}/archive`.
pub async fn put(engine: &Arc<Engine>, req: &mut Req, id: &str) -> Result<Reply> {
    let path = path(req)?;
    let how = Unpacking {
        keep_kinds: req.flag("noOverwriteDirNonDir"),
        keep_owners: true,
    };
    let reader = reader(req);
    let root = engine.open_root(id).await?;
    let fd = root.fd();
    let bridge = SyncIoBridge::new(reader);
    let done = blocking(move || files::put(&fd, &path, bridge, how)).await;
    root.close().await;
    done?;
    Ok(respond::empty(StatusCode::OK))
}

/// The request's body as a reader.
pub fn reader(req: &mut Req) -> crate::container::parts::Reader {
    match req.take_body() {
        Some(body) => Box::pin(StreamReader::new(
            body.into_data_stream().map_err(std::io::Error::other),
        )),
        None => Box::pin(tokio::io::empty()),
    }
}
