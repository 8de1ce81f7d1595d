//! `POST /build`, `/build/prune`, `/build/cancel`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use windlass_engine_api::RegistryAuth;

use super::archive::reader;
use super::images::with_progress;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::parts::{BuildRequest, PruneBuild};

/// Builds from the context in the body, or from the address given.
pub async fn build(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    if req.query("version") == Some("2") {
        return Err(Error::not_implemented(
            "windlassd builds by the classic protocol, not by BuildKit's: set DOCKER_BUILDKIT=0",
        ));
    }
    let auth = req
        .header("x-registry-config")
        .and_then(registry_config)
        .unwrap_or_default();
    let mut parameters = req.parameters().to_vec();
    for (name, value) in &mut parameters {
        // By its id, which is all that the builder knows of a container.
        if name == "networkmode"
            && let Some(other) = value.strip_prefix("container:")
        {
            *value = format!("container:{}", engine.containers.find(other)?.id);
        }
    }
    let request = BuildRequest { parameters, auth };
    let context = reader(req);
    let engine = engine.clone();
    with_progress(move |progress| async move {
        let built = engine.builder.build(request, context, progress).await?;
        if let Some(built) = built {
            for name in built.names {
                engine.tell_image("tag", &built.id, &name);
            }
        }
        Ok(())
    })
    .await
}

/// `POST /build/prune`.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let kept = ["keep-storage", "reserved-space", "max-used-space"];
    let mut keep_bytes = 0;
    for name in kept {
        keep_bytes = keep_bytes.max(req.number(name)?.unwrap_or(0));
    }
    let wanted = PruneBuild {
        all: req.flag("all"),
        keep_bytes: u64::try_from(keep_bytes).unwrap_or(0),
        filters: req.filters()?,
    };
    let (deleted, bytes) = engine.builder.prune(wanted).await?;
    respond::json(&serde_json::json!({ "CachesDeleted": deleted, "SpaceReclaimed": bytes }))
}

/// `POST /build/cancel`: a classic build ends with its connection.
pub fn cancel(req: &Req) -> Result<Reply> {
    match req.query("id") {
        None => Err(Error::invalid("build ID not provided")),
        Some(_) => Ok(respond::empty(http::StatusCode::NO_CONTENT)),
    }
}

/// Credentials by registry, in base64 JSON.
fn registry_config(header: &str) -> Option<BTreeMap<String, RegistryAuth>> {
    let header = header.trim().replace('-', "+").replace('_', "/");
    let header = header.trim_end_matches('=');
    let json = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(header)
        .ok()?;
    windlass_engine_api::from_slice(&json).ok()
}
