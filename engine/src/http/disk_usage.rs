//! `docker system df`. What volumes hold is counted by a walk through their files, and only where they are asked for.

use serde_json::{Value, json};
use windlass_engine_api::Filters;
use windlass_engine_api::types::VolumeUsage;

use super::images;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::parts::ImageQuery;
use crate::container::{Engine, Query};

/// The kinds of objects, as `type=` names them.
const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];

/// `GET /system/df`.
pub async fn disk_usage(engine: &Engine, req: &Req) -> Result<Reply> {
    let wanted: Vec<&str> = if req.version < (1, 42) {
        Vec::new()
    } else {
        req.query_all("type").collect()
    };
    if let Some(unknown) = wanted.iter().find(|kind| !KINDS.contains(kind)) {
        return Err(Error::invalid(format!("unknown object type: {unknown}")));
    }
    let is_wanted = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    let mut answer = json!({
        "LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null,
    });
    if is_wanted("image") {
        answer["LayersSize"] = json!(engine.images.layers_size()?);
        answer["Images"] = image_usage(engine, req.version)?;
    }
    if is_wanted("container") {
        let containers = engine.list(&Query {
            all: true,
            ..Query::default()
        })?;
        answer["Containers"] = serde_json::to_value(containers).map_err(Error::internal)?;
    }
    if is_wanted("volume") {
        answer["Volumes"] = volume_usage(engine).await?;
    }
    if is_wanted("build-cache") {
        answer["BuildCache"] = json!(engine.builder.cache().await?);
    }
    if req.version < (1, 44) && is_wanted("build-cache") {
        answer["BuilderSize"] = json!(0);
    }
    respond::json(&answer)
}

fn image_usage(engine: &Engine, version: (u32, u32)) -> Result<Value> {
    let mut list = engine.images.list(&ImageQuery {
        all: false,
        shared_size: true,
        filters: Filters::new(),
    })?;
    let containers = engine.containers.all();
    for image in &mut list {
        let users = containers
            .iter()
            .filter(|c| c.read(|r| r.image_id == image.id));
        image.containers = i64::try_from(users.count()).unwrap_or(i64::MAX);
    }
    let mut answer = serde_json::to_value(list).map_err(Error::internal)?;
    for image in answer.as_array_mut().into_iter().flatten() {
        images::for_version(image, version);
    }
    Ok(answer)
}

async fn volume_usage(engine: &Engine) -> Result<Value> {
    let mut volumes = engine.volumes.list()?;
    for volume in &mut volumes {
        let size = super::volumes::size_of(volume).await?;
        let ref_count = engine.volume_users(&volume.name).len();
        volume.usage_data = Some(VolumeUsage {
            size,
            ref_count: i64::try_from(ref_count).unwrap_or(i64::MAX),
        });
    }
    serde_json::to_value(volumes).map_err(Error::internal)
}
