//! `docker cp` and `docker export`.

use std::sync::Arc;

use base64::Engine as _;
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::heard::Heard;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Kind, Result};
use crate::container::extract::{self, Unpacking};
use crate::container::parts::Reader;
use crate::container::{Engine, Root, files, pack};

const PIPE: usize = 256 * 1024;

fn path(req: &Req) -> Result<String> {
    req.query("path")
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid("bad parameter: path cannot be empty"))
}

/// A missing file is named with its container, as the client calls it.
fn of_container(id: &str) -> impl Fn(Error) -> Error {
    move |error| {
        let is_file = error.kind == Kind::NotFound && error.message.ends_with(" in container");
        let suffix = if is_file {
            format!(" {id}")
        } else {
            String::new()
        };
        Error::new(error.kind, error.message + &suffix)
    }
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
    let stat = stat.map_err(of_container(id))?;
    with_stat(respond::empty(StatusCode::OK), &stat)
}

/// `GET /containers/{id}/archive`.
pub async fn get(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    let path = path(req)?;
    let root = engine.open_root(id).await?;
    let stat = match files::stat(&root.fd(), &path) {
        Ok(stat) => stat,
        Err(error) => {
            root.close().await;
            return Err(of_container(id)(error));
        }
    };
    root.tell("archive-path");
    let maps = root.maps();
    with_stat(
        packed(root, move |fd, out| pack::pack(fd, &path, maps, out)),
        &stat,
    )
}

/// `GET /containers/{id}/export`.
pub async fn export(engine: &Arc<Engine>, id: &str) -> Result<Reply> {
    let root = engine.open_layers(id).await?;
    root.tell("export");
    let maps = root.maps();
    let mut reply = packed(root, move |fd, out| pack::pack_all(fd, maps, out));
    let kind = HeaderValue::from_static("application/octet-stream");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(reply)
}

/// Packs in a thread of its own, as fast as the client reads.
fn packed<F>(root: Root, work: F) -> Reply
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
    let reader = reader(req);
    let root = engine.open_root(id).await?;
    let done = extract(&root, reader, path, req).await;
    if done.is_ok() {
        root.tell("extract-to-dir");
    }
    root.close().await;
    done.map_err(of_container(id))?;
    Ok(respond::empty(StatusCode::OK))
}

async fn extract(root: &Root, archive: Reader, path: String, req: &Req) -> Result<()> {
    root.check_writable(&path)?;
    let fd = root.fd();
    let owner = if req.flag("copyUIDGID") {
        let user = root.container().read(|r| r.config.user.clone());
        extract::owner(&fd, &user)?
    } else {
        None
    };
    let how = Unpacking {
        keep_kinds: req.flag("noOverwriteDirNonDir"),
        keep_owners: true,
        owner,
        maps: root.maps(),
    };
    let bridge = SyncIoBridge::new(archive);
    blocking(move || {
        let archive = crate::image::decompress(bridge).map_err(Error::internal)?;
        extract::put(&fd, &path, archive, &how)
    })
    .await
}

/// The request's body as a reader.
pub fn reader(req: &mut Req) -> Reader {
    match req.take_body() {
        Some(body) => Box::pin(StreamReader::new(Heard::new(body, &req.headers))),
        None => Box::pin(tokio::io::empty()),
    }
}
