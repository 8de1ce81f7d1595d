//! What is asked of registries without an image coming or going.

use serde_json::json;
use windlass_engine_api::RegistryAuth;
use windlass_engine_api::types::StringMap;

use http::StatusCode;

use super::super::request::Req;
use super::super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Kind, Result};

/// The credentials that come with a request.
pub(super) fn credentials(req: &Req) -> Option<RegistryAuth> {
    req.header("x-registry-auth")
        .and_then(RegistryAuth::from_header)
}

/// `POST /auth`: whether the registry takes the credentials.
pub async fn auth(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let auth: StringMap = req.json().await?;
    let field = |key: &str| auth.get(key).cloned().unwrap_or_default();
    let auth = RegistryAuth {
        serveraddress: field("serveraddress"),
        identitytoken: field("identitytoken"),
        registrytoken: field("registrytoken"),
        ..RegistryAuth::basic(&field("username"), &field("password"))
    };
    match engine.images.login(&auth).await {
        Ok(status) => respond::json(&json!({ "Status": status, "IdentityToken": "" })),
        Err(error) if error.kind == Kind::Forbidden => {
            Ok(respond::message(StatusCode::UNAUTHORIZED, &error.message))
        }
        Err(error) => Err(error),
    }
}

/// `GET /distribution/{name}/json`.
pub async fn distribution(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    let found = engine.images.distribution(name, credentials(req)).await;
    match found {
        Ok(answer) => respond::json(&answer),
        Err(error) if error.kind == Kind::Forbidden => {
            Ok(respond::message(StatusCode::UNAUTHORIZED, &error.message))
        }
        Err(error) => Err(error),
    }
}

/// `GET /images/search`.
pub async fn search(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let known = ["is-automated", "is-official", "stars"];
    if let Some(key) = filters.keys().find(|key| !known.contains(key)) {
        return Err(Error::invalid(format!("invalid filter '{key}'")));
    }
    let truth = |key: &str| match filters.get(key) {
        [] => Ok(None),
        [word] if word == "true" || word == "1" => Ok(Some(true)),
        [word] if word == "false" || word == "0" => Ok(Some(false)),
        words => Err(Error::invalid(format!(
            "invalid filter '{key}=[{}]'",
            words.join(" ")
        ))),
    };
    let (official, automated) = (truth("is-official")?, truth("is-automated")?);
    let mut stars = 0;
    for word in filters.get("stars") {
        let wanted: i64 = word
            .parse()
            .map_err(|_| Error::invalid(format!("invalid filter 'stars=[{word}]'")))?;
        stars = stars.max(wanted);
    }
    let limit = req.number("limit")?.unwrap_or(0);
    let term = req.query("term").unwrap_or_default();
    let mut found = engine.images.search(term, limit, credentials(req)).await?;
    found.retain(|image| {
        let is = |key: &str| image[key].as_bool().unwrap_or(false);
        official.is_none_or(|wanted| is("is_official") == wanted)
            && automated.is_none_or(|wanted| is("is_automated") == wanted)
            && image["star_count"].as_i64().unwrap_or(0) >= stars
    });
    respond::json(&found)
}
