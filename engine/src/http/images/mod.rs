//! `/images`, `/commit`, `/auth`, `/distribution`: what is asked of images, and told to whom.

mod progress;
mod registry;
mod removal;
mod transfer;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use windlass_engine_api::types::ContainerConfig;

pub use progress::with_progress;
pub use registry::{auth, distribution, search};
pub use removal::{prune, remove};
pub use transfer::{create, load, push, save};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::commit::CommitRequest;
use crate::container::error::{Error, Result};
use crate::container::parts::ImageQuery;

/// `GET /images/json`.
pub async fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let mut filters = req.filters()?;
    if let Some(name) = req.query("filter").filter(|_| req.version < (1, 41)) {
        filters = filters.with("reference", name);
    }
    let images = engine.images.list(&ImageQuery {
        all: req.flag("all"),
        shared_size: req.flag("shared-size"),
        filters,
    })?;
    let mut answer = serde_json::to_value(&images).map_err(Error::internal)?;
    for image in answer.as_array_mut().into_iter().flatten() {
        for_version(image, req.version);
    }
    respond::json(&answer)
}

/// What clients of older versions are told in other words.
pub fn for_version(image: &mut Value, version: (u32, u32)) {
    let empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    if version < (1, 43) {
        let nameless = empty(&image["RepoTags"]) && empty(&image["RepoDigests"]);
        for (key, none) in [
            ("RepoTags", "<none>:<none>"),
            ("RepoDigests", "<none>@<none>"),
        ] {
            if nameless {
                image[key] = json!([none]);
            } else if empty(&image[key]) {
                image[key] = Value::Null;
            }
        }
    }
    if version < (1, 44) {
        image["VirtualSize"] = image["Size"].clone();
    }
}

/// `GET /images/{name}/json`.
pub async fn inspect(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    // A store of one platform has none to show, as Docker's own has none; docker compose always asks.
    if req.flag("manifests") && req.query("platform").is_some() {
        return Err(Error::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let mut image = engine.images.inspect(name)?;
    check_platform(&image, req, name)?;
    inspected_for(&mut image, req.version)?;
    respond::json(&image)
}

/// Clients may ask for one platform of an image; ours have one only.
fn check_platform(image: &Value, req: &Req, name: &str) -> Result<()> {
    let wanted = match req.query("platform") {
        Some(text) if text.starts_with('{') => serde_json::from_str::<Value>(text)
            .map_err(|e| Error::invalid(format!("invalid platform: {e}")))?,
        _ => return Ok(()),
    };
    let differs = [("os", "Os"), ("architecture", "Architecture")]
        .iter()
        .any(|(key, field)| !wanted[key].is_null() && wanted[key] != image[field]);
    if differs {
        let text = |key: &str| wanted[key].as_str().unwrap_or_default().to_owned();
        return Err(Error::not_found(format!(
            "image with reference {name} was found but does not provide the specified platform ({}/{})",
            text("os"),
            text("architecture")
        )));
    }
    Ok(())
}

/// [`check_platform`] of an image that is to be looked up.
pub(super) fn check_platform_of(engine: &Engine, req: &Req, name: &str) -> Result<()> {
    if req.has_query("platform") {
        check_platform(&engine.images.inspect(name)?, req, name)?;
    }
    Ok(())
}

fn inspected_for(image: &mut Value, version: (u32, u32)) -> Result<()> {
    if version < (1, 44) {
        image["VirtualSize"] = image["Size"].clone();
        if image["Created"].is_null() {
            image["Created"] = json!(crate::container::clock::NEVER);
        }
    }
    if version < (1, 50) {
        for key in ["Hostname", "Domainname", "Image"] {
            or_insert(&mut image["Config"], key, json!(""));
        }
        for key in [
            "AttachStdin",
            "AttachStdout",
            "AttachStderr",
            "Tty",
            "OpenStdin",
            "StdinOnce",
        ] {
            or_insert(&mut image["Config"], key, json!(false));
        }
    }
    let fields = image.as_object_mut();
    let Some(fields) = fields else { return Ok(()) };
    // Of a commit they are known, and clients of every version look for them.
    let made_here = fields.get("Container").is_some_and(|id| id != "");
    if version >= (1, 45) && !made_here {
        fields.remove("Container");
    }
    // Docker leaves it out from 1.45 on, and docker-compose 1, which asks by the newest version, recreates nothing without it.
    if fields["ContainerConfig"].is_null() {
        let none = serde_json::to_value(ContainerConfig::default());
        fields["ContainerConfig"] = none.map_err(Error::internal)?;
    }
    Ok(())
}

fn or_insert(object: &mut Value, key: &str, value: Value) {
    if object[key].is_null() {
        object[key] = value;
    }
}

/// `GET /images/{name}/history`.
pub async fn history(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    check_platform_of(engine, req, name)?;
    respond::json(&engine.images.history(name)?)
}

/// The command line puts the tag into the name, other clients beside it; there it counts more.
pub(super) fn named(repository: &str, tag: Option<&str>) -> String {
    let Some(tag) = tag.filter(|t| !t.is_empty()) else {
        return repository.to_owned();
    };
    let bare = repository.split('@').next().unwrap_or(repository);
    let bare = match bare.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => bare,
    };
    let sign = if tag.contains(':') { '@' } else { ':' };
    format!("{bare}{sign}{tag}")
}

/// A name with its tag, as people write it.
pub(super) fn familiar(name: &str) -> String {
    crate::image::Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.to_string())
}

/// `POST /images/{name}/tag`.
pub async fn tag(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    let repository = req
        .query("repo")
        .ok_or_else(|| Error::invalid("invalid reference format"))?;
    let new = named(repository, req.query("tag"));
    let id = engine.images.tag(name, &new)?;
    engine.tell_image("tag", &id, &familiar(&new));
    Ok(respond::empty(StatusCode::CREATED))
}

/// `POST /commit`.
pub async fn commit(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let bytes = req.bytes().await?;
    let config = match bytes.trim_ascii() {
        b"" | b"null" => None,
        text => Some(
            windlass_engine_api::from_slice::<ContainerConfig>(text)
                .map_err(|e| Error::invalid(format!("invalid JSON: {e}")))?,
        ),
    };
    let text = |key: &str| req.query(key).unwrap_or_default().to_owned();
    let id = engine
        .commit(CommitRequest {
            container: text("container"),
            name: req.query("repo").map(|repo| named(repo, req.query("tag"))),
            comment: text("comment"),
            author: text("author"),
            changes: req.query_all("changes").map(str::to_owned).collect(),
            pause: req.flag("pause") || !req.has_query("pause"),
            config,
        })
        .await?;
    respond::json_status(StatusCode::CREATED, &json!({ "Id": id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_are_told_otherwise() {
        let image = || json!({ "RepoTags": [], "RepoDigests": [], "Size": 7 });
        let shown = |version| {
            let mut image = image();
            for_version(&mut image, version);
            image
        };
        assert_eq!(shown((1, 50)), image());
        assert_eq!(
            shown((1, 41)),
            json!({ "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "Size": 7, "VirtualSize": 7 })
        );
        let mut tagged = json!({ "RepoTags": ["a:1"], "RepoDigests": [], "Size": 7 });
        for_version(&mut tagged, (1, 42));
        assert_eq!(tagged["RepoDigests"], Value::Null);
    }

    #[test]
    fn inspect_by_version() {
        let whole = || json!({ "Size": 1, "Config": { "Env": null }, "Container": "", "ContainerConfig": null });
        let mut new = whole();
        inspected_for(&mut new, (1, 50)).unwrap();
        assert_eq!(new.get("Container"), None);
        assert_eq!(new["ContainerConfig"]["Tty"], json!(false));
        let mut old = whole();
        inspected_for(&mut old, (1, 41)).unwrap();
        assert_eq!(
            (&old["VirtualSize"], &old["Config"]["Hostname"]),
            (&json!(1), &json!(""))
        );
        assert_eq!(old["ContainerConfig"]["Tty"], json!(false));
    }

    #[test]
    fn names_come_together() {
        assert_eq!(named("a", Some("1")), "a:1");
        assert_eq!(named("a", Some("sha256:x")), "a@sha256:x");
        assert_eq!(named("a:1", None), "a:1");
        assert_eq!(named("h:5/a:1", Some("2")), "h:5/a:2");
        assert_eq!(named("h:5/a", Some("2")), "h:5/a:2");
        assert_eq!(familiar("a"), "a:latest");
    }
}
