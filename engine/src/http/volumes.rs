//! `/volumes`.

use http::StatusCode;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{CreateVolume, PruneReport, Volume, VolumeList};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};

/// `GET /volumes`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let mut volumes = engine.volumes.list()?;
    volumes.retain(|v| passes(engine, v, &filters));
    respond::json(&VolumeList {
        volumes,
        warnings: None,
    })
}

fn passes(engine: &Engine, volume: &Volume, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let yes = |w: &str| matches!(w, "1" | "true");
    any("name", &|w| volume.name.contains(w))
        && any("driver", &|w| volume.driver == w)
        && any("dangling", &|w| {
            engine.volume_users(&volume.name).is_empty() == yes(w)
        })
        && filters.match_labels(&volume.labels)
}

/// `GET /volumes/{name}`.
pub fn inspect(engine: &Engine, name: &str) -> Result<Reply> {
    respond::json(&engine.volumes.find(name)?)
}

/// `POST /volumes/create`.
pub async fn create(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let wanted: CreateVolume = req.json().await?;
    if !matches!(wanted.driver.as_str(), "" | "local") {
        return Err(Error::not_found(format!(
            "error looking up volume plugin {0}: plugin \"{0}\" not found",
            wanted.driver
        )));
    }
    let new = wanted.name.is_empty() || engine.volumes.find(&wanted.name).is_err();
    let volume = engine
        .volumes
        .create(&wanted.name, wanted.labels, wanted.driver_opts)?;
    if new {
        tell(engine, "create", &volume.name);
    }
    respond::json_status(StatusCode::CREATED, &volume)
}

fn tell(engine: &Engine, action: &str, name: &str) {
    engine.events.publish(
        "volume",
        action,
        name,
        [("driver".to_owned(), "local".to_owned())].into(),
    );
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
    tell(engine, "destroy", name);
    respond::no_content()
}

/// `POST /volumes/prune`: anonymous ones, with `all` the named too.
pub fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let all = filters
        .get("all")
        .iter()
        .any(|w| matches!(w.as_str(), "1" | "true"))
        || req.version < (1, 42);
    let mut deleted = Vec::new();
    for volume in engine.volumes.list()? {
        let anonymous = volume.labels.contains_key("com.docker.volume.anonymous");
        let wanted = (all || anonymous)
            && filters.match_labels(&volume.labels)
            && engine.volume_users(&volume.name).is_empty();
        if wanted && engine.volumes.remove(&volume.name).is_ok() {
            tell(engine, "destroy", &volume.name);
            deleted.push(volume.name);
        }
    }
    respond::json(&PruneReport {
        volumes_deleted: Some(deleted),
        ..PruneReport::default()
    })
}
