//! `/images`, `/auth`.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use windlass_engine_api::types::{
    ErrorDetail, ImageDeleted, ImageSummary, Progress, PruneReport, StringMap,
};
use windlass_engine_api::{Filters, RegistryAuth};

use super::archive::reader;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Kind, Result};

/// `GET /images/json`.
pub async fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let mut images = engine.images.list()?;
    images.retain(|image| passes(image, &filters));
    if let Some(name) = req.query("filter") {
        images.retain(|image| {
            image
                .repo_tags
                .iter()
                .any(|tag| reference_matches(tag, name))
        });
    }
    respond::json(&images)
}

fn passes(image: &ImageSummary, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let untagged =
        image.repo_tags.is_empty() || image.repo_tags.iter().all(|t| t == "<none>:<none>");
    any("dangling", &|w| untagged == matches!(w, "1" | "true"))
        && any("reference", &|w| {
            image.repo_tags.iter().any(|tag| reference_matches(tag, w))
        })
        && filters.match_labels(&image.labels)
}

/// `name`, `name:tag`, with `*` for any characters but a slash.
fn reference_matches(tag: &str, pattern: &str) -> bool {
    let repository = tag
        .rsplit_once(':')
        .map_or(tag, |(repository, _)| repository);
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(c, tail)| *c != b'/' && glob(pattern, tail))
        }
        (Some((p, rest)), Some((c, tail))) => (p == c || *p == b'?') && glob(rest, tail),
        _ => false,
    }
}

/// `GET /images/{name}/json`.
pub async fn inspect(engine: &Engine, name: &str) -> Result<Reply> {
    respond::json(&engine.images.inspect(name)?)
}

/// `GET /images/{name}/history`.
pub async fn history(engine: &Engine, name: &str) -> Result<Reply> {
    respond::json(&engine.images.history(name)?)
}

/// Runs `work`, whose progress is the answer. An error before the first line is the request's own.
pub async fn with_progress<F, Fut>(work: F) -> Result<Reply>
where
    F: FnOnce(mpsc::Sender<Progress>) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel::<Progress>(64);
    let mut task = tokio::spawn(work(sender));
    let first = tokio::select! {
        biased;
        first = receiver.recv() => first,
        done = &mut task => {
            done.map_err(Error::internal)??;
            // It may have spoken just before it was done.
            let mut lines = String::new();
            while let Ok(line) = receiver.try_recv() {
                lines.push_str(&(serde_json::to_string(&line).map_err(Error::internal)? + "\r\n"));
            }
            return Ok(respond::typed(StatusCode::OK, "application/json", respond::full(lines)));
        }
    };
    if first.is_none() {
        // The sender is gone before anything was said: the result says why.
        task.await.map_err(Error::internal)??;
        return Ok(respond::typed(
            StatusCode::OK,
            "application/json",
            respond::full(""),
        ));
    }
    let (body_sender, body) = respond::channel();
    tokio::spawn(async move {
        let mut next = first;
        while let Some(line) = next {
            if !body_sender.send_json(&line).await {
                // The client has gone: like Docker, the work is given up.
                task.abort();
                return;
            }
            next = receiver.recv().await;
        }
        let error = match task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(join) => Error::internal(join),
        };
        let detail = ErrorDetail {
            code: None,
            message: error.message.clone(),
        };
        body_sender
            .send_json(&Progress {
                error: error.message,
                error_detail: Some(detail),
                ..Progress::default()
            })
            .await;
    });
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}

/// `POST /images/create`: pull, or import with `fromSrc=-`.
pub async fn create(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    if let Some(source) = req.query("fromSrc") {
        if source != "-" {
            return Err(Error::not_implemented(
                "windlassd imports from the request only: download the archive and give -",
            ));
        }
        return import(engine, req).await;
    }
    let name = req
        .query("fromImage")
        .ok_or_else(|| Error::invalid("parameter fromImage is missing"))?;
    let reference = match req.query("tag") {
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    let auth = req
        .header("x-registry-auth")
        .and_then(RegistryAuth::from_header);
    let platform = req.query("platform").map(str::to_owned);
    let engine = engine.clone();
    with_progress(move |progress| async move {
        engine
            .images
            .pull(&reference, auth, platform.as_deref(), progress)
            .await?;
        tell(&engine, "pull", &reference);
        Ok(())
    })
    .await
}

fn tell(engine: &Engine, action: &str, reference: &str) {
    engine.events.publish(
        "image",
        action,
        reference,
        [("name".to_owned(), reference.to_owned())].into(),
    );
}

async fn import(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let name = req.query("repo").map(|repo| named(repo, req.query("tag")));
    let changes = req.query_all("changes").map(str::to_owned).collect();
    let archive = reader(req);
    let engine = engine.clone();
    with_progress(move |progress| async move {
        let id = engine.images.import(archive, name, changes).await?;
        tell(&engine, "import", &id);
        progress
            .send(Progress {
                status: id,
                ..Progress::default()
            })
            .await
            .ok();
        Ok(())
    })
    .await
}

/// `POST /images/load`.
pub async fn load(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let archive = reader(req);
    let engine = engine.clone();
    with_progress(move |progress| async move { engine.images.load(archive, progress).await }).await
}

/// `GET /images/get`.
pub async fn save(engine: &Engine, names: Vec<String>) -> Result<Reply> {
    if names.is_empty() {
        return Err(Error::invalid("parameter names is missing"));
    }
    let archive = engine.images.save(names).await?;
    Ok(respond::typed(
        StatusCode::OK,
        "application/x-tar",
        respond::stream(ReaderStream::with_capacity(archive, 64 * 1024)),
    ))
}

/// The command line puts the tag into the name, other clients beside it.
fn named(repository: &str, tag: Option<&str>) -> String {
    match tag.filter(|t| !t.is_empty()) {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    }
}

/// `POST /images/{name}/tag`.
pub async fn tag(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    let repository = req
        .query("repo")
        .ok_or_else(|| Error::invalid("parameter repo is missing"))?;
    let new = named(repository, req.query("tag"));
    engine.images.tag(name, &new)?;
    tell(engine, "tag", &new);
    Ok(respond::empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`.
pub async fn remove(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    let force = req.flag("force");
    check_unused(engine, name, force)?;
    let deleted = engine.images.remove(name, force).await?;
    for item in &deleted {
        let (action, what) = if item.deleted.is_empty() {
            ("untag", &item.untagged)
        } else {
            ("delete", &item.deleted)
        };
        tell(engine, action, what);
    }
    respond::json(&deleted)
}

/// An image's last name stays while a container is made from it.
fn check_unused(engine: &Engine, name: &str, force: bool) -> Result<()> {
    let image = engine.images.inspect(name)?;
    let by_id = !image.repo_tags.iter().any(|tag| same_name(tag, name));
    if image.repo_tags.len() > 1 && !by_id {
        return Ok(());
    }
    for container in engine.containers.all() {
        let (uses, runs) =
            container.read(|r| (r.image_id == image.id, r.state.status.has_process()));
        let short = |id: &str| {
            id.trim_start_matches("sha256:")
                .chars()
                .take(12)
                .collect::<String>()
        };
        if uses && (runs || !force) {
            let (how, state) = if runs {
                ("cannot be forced", "running ")
            } else {
                ("must be forced", "stopped ")
            };
            return Err(Error::conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" ({how}) - container {} is using its referenced image {} ({state}container)",
                short(&container.id),
                short(&image.id)
            )));
        }
    }
    Ok(())
}

fn same_name(tag: &str, name: &str) -> bool {
    let full = if name
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'))
    {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    let short = |text: &str| {
        text.trim_start_matches("docker.io/")
            .trim_start_matches("library/")
            .to_owned()
    };
    short(tag) == short(&full) || tag.split('@').next() == Some(name)
}

/// `POST /images/prune`.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let all = filters
        .get("dangling")
        .iter()
        .any(|w| matches!(w.as_str(), "0" | "false"));
    let used: Vec<String> = engine
        .containers
        .all()
        .iter()
        .map(|c| c.read(|r| r.image_id.clone()))
        .collect();
    let (deleted, space_reclaimed) = engine.images.prune(all, &used).await?;
    let images_deleted: Option<Vec<ImageDeleted>> = Some(deleted);
    respond::json(&PruneReport {
        images_deleted,
        space_reclaimed,
        ..PruneReport::default()
    })
}

/// `POST /auth`: whether the registry takes the credentials.
pub async fn auth(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let auth: StringMap = req.json().await?;
    let field = |key: &str| auth.get(key).cloned().unwrap_or_default();
    let auth = RegistryAuth {
        serveraddress: field("serveraddress"),
        ..RegistryAuth::basic(&field("username"), &field("password"))
    };
    match engine.images.login(&auth).await {
        Ok(status) => respond::json(&json!({ "Status": status, "IdentityToken": "" })),
        Err(error) if error.kind == Kind::Internal => Err(error),
        Err(error) => Ok(respond::message(StatusCode::UNAUTHORIZED, &error.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (tag, pattern, wanted) in [
            ("busybox:latest", "busybox", true),
            ("busybox:latest", "busy*", true),
            ("a/b:1", "a*", false),
            ("a/b:1", "a/b:1", true),
            ("a/b:1", "b", false),
        ] {
            assert_eq!(reference_matches(tag, pattern), wanted, "{tag} {pattern}");
        }
        assert!(
            same_name("busybox:latest", "busybox")
                && same_name("h:5000/x:1", "h:5000/x:1")
                && !same_name("a:1", "a:2")
        );
        assert!(same_name("busybox:latest", "docker.io/library/busybox"));
    }
}
