//! `docker rmi` and `docker image prune`.

use serde_json::json;

use super::super::request::Req;
use super::super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::parts::{ImageUser, ImagesRemoved, RemovalOptions};

/// `DELETE /images/{name}`.
pub async fn remove(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    if name.trim().is_empty() {
        return Err(Error::invalid("image name cannot be blank"));
    }
    let options = RemovalOptions {
        force: req.flag("force"),
        keep_parents: req.flag("noprune"),
    };
    let removed = engine.images.remove(name, options, users(engine)).await?;
    tell(engine, &removed);
    respond::json(&removed.deleted)
}

/// `POST /images/prune`.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let removed = engine.images.prune(req.filters()?, users(engine)).await?;
    tell(engine, &removed);
    engine.events.publish(
        "image",
        "prune",
        "",
        [("reclaimed".to_owned(), removed.won.to_string())].into(),
    );
    let deleted = (!removed.deleted.is_empty()).then_some(removed.deleted);
    respond::json(&json!({ "ImagesDeleted": deleted, "SpaceReclaimed": removed.won }))
}

fn tell(engine: &Engine, removed: &ImagesRemoved) {
    for event in &removed.events {
        let attributes = event.attributes.clone();
        engine
            .events
            .publish("image", event.action, &event.id, attributes);
    }
}

/// Which containers were made from which images.
fn users(engine: &Engine) -> Vec<ImageUser> {
    let user = |c: &std::sync::Arc<crate::container::Container>| {
        c.read(|r| ImageUser {
            container: r.id.clone(),
            image: r.image_id.clone(),
            running: r.state.status.has_process(),
        })
    };
    engine.containers.all().iter().map(user).collect()
}
