//! Images that come and go: pull, push, import, load, save.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use http::StatusCode;
use tokio_util::io::{ReaderStream, StreamReader};
use windlass_engine_api::types::Progress;

use super::super::archive::reader;
use super::super::request::Req;
use super::super::respond::{self, Reply};
use super::progress::with_errors_inside;
use super::registry::credentials;
use super::{check_platform_of, familiar, named, with_progress};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::parts::{Import, ProgressSink, Pull, Reader};
use crate::image::Reference;

/// `POST /images/create`: pull, or import with `fromSrc`.
pub async fn create(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let Some(name) = req.query("fromImage") else {
        let source = req.query("fromSrc").map(str::to_owned);
        let source =
            source.ok_or_else(|| Error::invalid("parameter fromImage or fromSrc is missing"))?;
        return import(engine, req, source).await;
    };
    // `docker pull -a` of older clients ends the name with a colon.
    let name = name.trim_end_matches(':');
    let wanted = Pull {
        reference: named(name, req.query("tag")),
        auth: credentials(req),
        platform: req.query("platform").map(str::to_owned),
    };
    let engine = engine.clone();
    let repository = Reference::parse(&wanted.reference)?.familiar_name();
    with_progress(move |progress| async move {
        let reference = wanted.reference.clone();
        engine.images.pull(wanted, progress).await?;
        engine.tell_image("pull", &reference, &repository);
        Ok(())
    })
    .await
}

/// `POST /images/{name}/push`.
pub async fn push(engine: &Arc<Engine>, req: &Req, name: &str) -> Result<Reply> {
    let (name, auth) = (name.to_owned(), credentials(req));
    let tag = req.query("tag").map(str::to_owned);
    let repository = Reference::parse(&named(&name, tag.as_deref()))?.familiar_name();
    let engine = engine.clone();
    with_progress(move |progress| async move {
        let images = &engine.images;
        images.push(&name, tag.as_deref(), auth, progress).await?;
        let reference = tag.map_or_else(|| name.clone(), |tag| format!("{name}:{tag}"));
        engine.tell_image("push", &reference, &repository);
        Ok(())
    })
    .await
}

async fn import(engine: &Arc<Engine>, req: &mut Req, source: String) -> Result<Reply> {
    let message = req.query("message").map(str::to_owned);
    let wanted = Import {
        name: req.query("repo").map(|repo| named(repo, req.query("tag"))),
        changes: req.query_all("changes").map(str::to_owned).collect(),
        message: message.unwrap_or_else(|| format!("Imported from {source}")),
        platform: req.query("platform").map(str::to_owned),
    };
    if let Some(name) = &wanted.name {
        Reference::parse(name)?;
    }
    let body = (source == "-").then(|| reader(req));
    let engine = engine.clone();
    with_progress(move |progress| async move {
        let archive = match body {
            Some(body) => body,
            None => downloaded(&source, &progress).await?,
        };
        let name = wanted.name.clone();
        let id = engine.images.import(archive, wanted).await?;
        if let Some(name) = name {
            engine.tell_image("tag", &id, &familiar(&name));
        }
        engine.tell_image("import", &id, &id);
        say(&progress, id).await;
        Ok(())
    })
    .await
}

async fn say(progress: &ProgressSink, status: String) {
    let line = Progress {
        status,
        ..Progress::default()
    };
    progress.send(line).await.ok();
}

/// What lies at an address; without a scheme it is HTTP.
async fn downloaded(source: &str, progress: &ProgressSink) -> Result<Reader> {
    let address = if source.contains("://") {
        source.to_owned()
    } else {
        format!("http://{source}")
    };
    let response = crate::image::fetch(&address).await?;
    say(progress, format!("Downloading from {address}")).await;
    let pieces = response.bytes_stream().map_err(std::io::Error::other);
    Ok(Box::pin(StreamReader::new(pieces)))
}

/// `POST /images/load`.
pub async fn load(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let archive = reader(req);
    let engine = engine.clone();
    let reply = with_progress(move |progress| async move {
        for id in engine.images.load(archive, progress).await? {
            engine.tell_image("load", &id, &id);
        }
        Ok(())
    });
    with_errors_inside(reply.await)
}

/// `GET /images/get`.
pub async fn save(engine: &Engine, req: &Req, names: Vec<String>) -> Result<Reply> {
    for name in &names {
        check_platform_of(engine, req, name)?;
    }
    let (archive, ids) = engine.images.save(names).await?;
    for id in ids {
        engine.tell_image("save", &id, &id);
    }
    Ok(respond::typed(
        StatusCode::OK,
        "application/x-tar",
        respond::stream(ReaderStream::with_capacity(archive, 64 * 1024)),
    ))
}
