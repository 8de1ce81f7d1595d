//! `/volumes`.

use http::StatusCode;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{CreateVolume, PruneReport, Volume, VolumeList};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::volume;

/// `GET /volumes`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = filters(req, &["dangling", "name", "driver", "label"])?;
    let dangling = boolean(&filters, "dangling")?;
    let mut volumes = engine.volumes.list()?;
    volumes.retain(|v| passes(engine, v, &filters, dangling));
    respond::json(&VolumeList {
        volumes,
        warnings: None,
    })
}

/// The filters, if they are such as this call has.
fn filters(req: &Req, known: &[&str]) -> Result<Filters> {
    let filters = req.filters()?;
    if let Some(key) = filters.keys().find(|key| !known.contains(key)) {
        return Err(Error::invalid(format!("invalid filter '{key}'")));
    }
    Ok(filters)
}

fn boolean(filters: &Filters, key: &str) -> Result<Option<bool>> {
    let values = filters.get(key);
    match values {
        [] => Ok(None),
        [one] if matches!(one.as_str(), "1" | "true" | "True") => Ok(Some(true)),
        [one] if matches!(one.as_str(), "0" | "false" | "False") => Ok(Some(false)),
        _ => Err(Error::invalid(format!(
            "invalid filter '{key}=[{}]'",
            values.join(" ")
        ))),
    }
}

fn passes(engine: &Engine, volume: &Volume, filters: &Filters, dangling: Option<bool>) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    any("name", &|w| volume.name.contains(w))
        && any("driver", &|w| volume.driver == w)
        && dangling.is_none_or(|wanted| engine.volume_users(&volume.name).is_empty() == wanted)
        && filters.match_labels(&volume.labels)
}

/// `GET /volumes/{name}`.
pub fn inspect(engine: &Engine, name: &str) -> Result<Reply> {
    respond::json(&engine.volumes.find(name)?)
}

/// `POST /volumes/create`.
pub async fn create(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let wanted: CreateVolume = req.required_json().await?;
    volume::check_driver(&wanted.name, &wanted.driver)?;
    let new = wanted.name.is_empty() || engine.volumes.find(&wanted.name).is_err();
    let volume = engine
        .volumes
        .create(&wanted.name, wanted.labels, wanted.driver_opts)?;
    if new {
        engine.tell_volume("create", &volume.name, &[]);
    }
    respond::json_status(StatusCode::CREATED, &volume)
}

/// `DELETE /volumes/{name}`.
pub fn remove(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    if let Err(error) = engine.volumes.find(name) {
        return if req.flag("force") {
            respond::no_content()
        } else {
            Err(error)
        };
    }
    let users = engine.volume_users(name);
    if !users.is_empty() {
        return Err(Error::conflict(format!(
            "remove {name}: volume is in use - [{}]",
            users.join(", ")
        )));
    }
    engine.volumes.remove(name)?;
    engine.tell_volume("destroy", name, &[]);
    respond::no_content()
}

/// `POST /volumes/prune`: anonymous ones, with `all` the named too.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = filters(req, &["all", "label", "label!"])?;
    let all = boolean(&filters, "all")?.unwrap_or(req.version < (1, 42));
    let mut deleted = Vec::new();
    let mut reclaimed = 0i64;
    for volume in engine.volumes.list()? {
        let wanted = (all || volume.labels.contains_key(volume::ANONYMOUS))
            && filters.match_labels(&volume.labels)
            && engine.volume_users(&volume.name).is_empty();
        if !wanted {
            continue;
        }
        let size = size_of(&volume).await?;
        if engine.volumes.remove(&volume.name).is_ok() {
            engine.tell_volume("destroy", &volume.name, &[]);
            deleted.push(volume.name);
            reclaimed = reclaimed.saturating_add(size);
        }
    }
    let attributes = [("reclaimed".to_owned(), reclaimed.to_string())];
    engine
        .events
        .publish("volume", "prune", "", attributes.into());
    respond::json(&PruneReport {
        volumes_deleted: Some(deleted),
        space_reclaimed: reclaimed,
        ..PruneReport::default()
    })
}

/// What a volume's files take, in bytes.
pub(super) async fn size_of(volume: &Volume) -> Result<i64> {
    let folder = volume.mountpoint.clone();
    let measured =
        tokio::task::spawn_blocking(move || volume::size_of(std::path::Path::new(&folder)));
    measured.await.map_err(Error::internal)
}
