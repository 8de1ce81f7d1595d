//! What a registry says without a pull: `/distribution` and `/images/search`.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use windlass_engine_api::RegistryAuth;

use super::outage::describe;
use super::registry::{Registry, failed, http_client, small};
use super::{Error, ImageConfig, ImageStore, Manifest, Reference, RegistryConfig, Result};

/// Docker's limit where the client names none.
const DEFAULT_LIMIT: i64 = 25;

impl ImageStore {
    /// Digest and platforms of an image at its registry.
    pub(super) async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
    ) -> Result<Value> {
        let registry = Registry::new(self.registries(), reference, auth)?;
        let (raw, kind) = registry.described(reference.target()).await?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&raw.bytes)));
        if reference
            .digest
            .as_ref()
            .is_some_and(|wanted| *wanted != digest)
        {
            return Err(Error::Digest {
                what: format!("manifest of {reference}"),
                expected: reference.digest.clone().unwrap_or_default(),
                got: digest,
            });
        }
        let manifest: Manifest = serde_json::from_slice(&raw.bytes)
            .map_err(|error| Error::Unsupported(format!("{reference}: manifest: {error}")))?;
        let platforms: Vec<Value> = match &manifest.config {
            Some(config) => {
                let response = registry.blob(&config.digest, 0).await?;
                let bytes = small(&config.digest, response.into_response()).await?;
                let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
                vec![platform(
                    &config.os,
                    &config.architecture,
                    config.variant.as_deref(),
                )]
            }
            None => manifest
                .manifests
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(|p| platform(&p.os, &p.architecture, p.variant.as_deref()))
                .collect(),
        };
        Ok(json!({
            "Descriptor": { "mediaType": kind, "digest": digest, "size": raw.bytes.len() },
            "Platforms": platforms,
        }))
    }
}

fn platform(os: &str, architecture: &str, variant: Option<&str>) -> Value {
    let mut platform = json!({ "os": os, "architecture": architecture });
    if let Some(variant) = variant {
        platform["variant"] = json!(variant);
    }
    platform
}

/// Asks an index, Docker Hub's or the one that the term names (`host/term`), by the old protocol that has a search.
pub(super) async fn search(
    config: &RegistryConfig,
    term: &str,
    limit: i64,
    auth: Option<RegistryAuth>,
) -> Result<Vec<Value>> {
    if !(0..=100).contains(&limit) {
        return Err(Error::Invalid(format!(
            "limit {limit} is outside the range of [1, 100]"
        )));
    }
    let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
    let named = term
        .split_once('/')
        .filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (index, term) = match named {
        Some((host, rest)) => (config.endpoints(host).pop().unwrap_or_default(), rest),
        None => ("https://index.docker.io".to_owned(), term),
    };
    let mut url = reqwest::Url::parse(&format!("{index}/v1/search"))
        .map_err(|_| Error::Invalid(format!("invalid index name: {index}")))?;
    url.query_pairs_mut()
        .append_pair("q", term)
        .append_pair("n", &limit.to_string());
    let mut request = http_client()?.get(url.clone());
    if let Some(auth) = auth.filter(|auth| !auth.username.is_empty()) {
        request = request.basic_auth(auth.username, Some(auth.password));
    }
    let response = request
        .send()
        .await
        .map_err(|error| failed(url.as_str(), &describe(&error)))?;
    let status = response.status();
    if !status.is_success() {
        return Err(Error::Unsupported(format!(
            "Unexpected status code {}: {index} has no search",
            status.as_u16()
        )));
    }
    let answer = small(url.as_str(), response).await?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| failed(url.as_str(), &format!("the answer is no search: {error}")))?;
    Ok(answer["results"].as_array().cloned().unwrap_or_default())
}
