//! `POST /build`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use windlass_engine_api::RegistryAuth;

use super::archive::reader;
use super::images::with_progress;
use super::request::Req;
use super::respond::Reply;
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::parts::BuildRequest;

/// Builds from the context in the body.
pub async fn build(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    if req.query("version") == Some("2") {
        return Err(Error::not_implemented(
            "windlassd has no BuildKit: build with DOCKER_BUILDKIT=0",
        ));
    }
    if req.query("remote").is_some() {
        return Err(Error::not_implemented(
            "windlassd builds from a context sent by the client only, not from a remote one",
        ));
    }
    let auth = req
        .header("x-registry-config")
        .and_then(registry_config)
        .unwrap_or_default();
    let request = BuildRequest {
        parameters: req.parameters().to_vec(),
        auth,
    };
    let context = reader(req);
    let engine = engine.clone();
    with_progress(
        move |progress| async move { engine.builder.build(request, context, progress).await },
    )
    .await
}

/// Credentials by registry, in base64 JSON.
fn registry_config(header: &str) -> Option<BTreeMap<String, RegistryAuth>> {
    let header = header.trim().replace('-', "+").replace('_', "/");
    let json = base64::engine::general_purpose::STANDARD
        .decode(&header)
        .ok()?;
    windlass_engine_api::from_slice(&json).ok()
}
