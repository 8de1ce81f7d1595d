//! Pulling: manifest, config, then all missing layers side by side, each unpacked while it arrives.
//!
//! A layer's bytes go from the network through a bounded channel to threads that hash, decompress and unpack them. Both
//! digests are checked before the layer gets its name. A pull that fails or is given up leaves nothing behind.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use windlass_engine_api::{
    RegistryAuth,
    types::{Progress, ProgressDetail},
};

use super::{
    Descriptor, Error, ImageConfig, ImageMeta, ImageStore, Manifest, Platform, Reference, Result,
    arrival::Brought,
    outage::describe,
    pipeline::{Inlet, NoReader, channel, unpack_checked},
    push::KnownBlob,
    reference::is_digest,
    registry::{RawManifest, Registry, backoff},
};

const MAX_CONFIG: usize = 8 << 20;
/// Breaks in a row without a megabyte between them.
const RESUMES: u32 = 5;
const SOME_PROGRESS: u64 = 1 << 20;

/// Where progress lines go.
pub type ProgressSink = mpsc::Sender<Progress>;

/// What an image is made of, as its registry says.
struct Wanted {
    /// Digest of the manifest, or of the index that names it.
    digest: String,
    config: Vec<u8>,
    /// With the digests of what they are uncompressed.
    layers: Vec<(Descriptor, String)>,
}

impl ImageStore {
    /// Pulls an image and names it; returns its id. Nothing is named until every layer is here and checked.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        platform: &Platform,
        progress: &ProgressSink,
    ) -> Result<String> {
        let registry = Arc::new(Registry::new(self.registries(), reference, auth)?);
        let wanted = self.asked_for(&registry, reference, platform).await?;
        say(
            progress,
            "",
            &format!("Pulling from {}", reference.repository),
            Some(reference.target()),
        )
        .await;
        let before = self
            .resolve(&reference.to_string())
            .ok()
            .map(|image| image.id);
        // Nobody removes a layer that is here already while the others arrive.
        let diff_ids: Vec<String> = wanted.layers.iter().map(|(_, id)| id.clone()).collect();
        let brought = Arc::new(Brought::nothing_yet(self, &diff_ids));
        self.fetch_layers(&registry, wanted.layers, &brought, progress)
            .await?;
        let (store, reference_, digest) =
            (Arc::clone(self), reference.clone(), wanted.digest.clone());
        let id = tokio::task::spawn_blocking(move || -> Result<String> {
            let id = store.add(&wanted.config, &ImageMeta::default())?;
            brought.keep();
            if reference_.tag.is_some() {
                store.point(&id, &reference_)?;
            }
            store.remember_digest(&id, &reference_, &digest)?;
            Ok(id)
        })
        .await
        .map_err(|error| Error::Unsupported(error.to_string()))??;
        say(progress, "", &format!("Digest: {}", wanted.digest), None).await;
        let outcome = if before.as_ref() == Some(&id) {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        say(
            progress,
            "",
            &format!("Status: {outcome} {}", reference.familiar()),
            None,
        )
        .await;
        Ok(id)
    }

    async fn asked_for(
        &self,
        registry: &Registry,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Wanted> {
        let raw = registry.manifest(reference.target()).await?;
        let digest = verified(&raw, reference.digest.as_deref(), &reference.to_string())?;
        let manifest = image_manifest(registry, raw, reference, platform).await?;
        let descriptor = manifest.config.as_ref().ok_or_else(|| {
            Error::Unsupported(format!("{reference}: the manifest has no config"))
        })?;
        for blob in manifest.layers.iter().chain([descriptor]) {
            if !is_digest(&blob.digest) {
                return Err(Error::Unsupported(format!(
                    "{reference}: {:?} is no sha256 digest",
                    blob.digest
                )));
            }
        }
        // An image that is here under another name is not asked for again.
        let config = match self.config_bytes(&descriptor.digest) {
            Ok(config) if digest_of(&config) == descriptor.digest => config,
            _ => fetch_small(registry, descriptor).await?,
        };
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| Error::Unsupported(format!("{reference}: image config: {error}")))?;
        if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Unsupported(format!(
                "{reference}: the config names {} layers, the manifest {}",
                parsed.rootfs.diff_ids.len(),
                manifest.layers.len()
            )));
        }
        let layers = manifest.layers.into_iter().zip(parsed.rootfs.diff_ids);
        Ok(Wanted {
            digest,
            config,
            layers: layers.collect(),
        })
    }

    async fn fetch_layers(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        layers: Vec<(Descriptor, String)>,
        brought: &Arc<Brought>,
        progress: &ProgressSink,
    ) -> Result<()> {
        let mut missing = Vec::new();
        for (layer, diff_id) in layers {
            let short = short_digest(&layer.digest);
            if self.layers().has(&diff_id) {
                say(progress, short, "Already exists", None).await;
                self.remember_layer(registry, &layer, &diff_id)?;
            } else {
                say(progress, short, "Pulling fs layer", None).await;
                missing.push((layer, diff_id));
            }
        }
        // The largest first: one that is begun last is waited for by nothing else.
        missing.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
        let all = missing.len().max(1);
        stream::iter(missing)
            .map(|(layer, diff_id)| {
                let store = Arc::clone(self);
                let (registry, brought) = (Arc::clone(registry), Arc::clone(brought));
                let progress = progress.clone();
                async move {
                    store
                        .fetch_layer(&registry, &layer, &diff_id, brought, &progress)
                        .await
                }
            })
            .buffer_unordered(all)
            .try_collect::<()>()
            .await
    }

    async fn fetch_layer(
        self: &Arc<Self>,
        registry: &Registry,
        layer: &Descriptor,
        diff_id: &str,
        brought: Arc<Brought>,
        progress: &ProgressSink,
    ) -> Result<()> {
        let short = short_digest(&layer.digest);
        let alone = self.arriving.alone(diff_id).await;
        if self.layers().has(diff_id) {
            say(progress, short, "Already exists", None).await;
            return self.remember_layer(registry, layer, diff_id);
        }
        let _turn = match self.arriving.turn_now() {
            Some(turn) => Some(turn),
            None => {
                say(progress, short, "Waiting", None).await;
                self.arriving.turn().await
            }
        };
        let pending = self.layers().begin()?;
        let (inlet, chunks) = channel();
        let (done, unpacked) = oneshot::channel();
        let (digest, id) = (layer.digest.clone(), diff_id.to_owned());
        // The thread owns all: should the pull be given up, it ends by itself, and only then is the folder removed.
        std::thread::Builder::new()
            .name("unpack".into())
            .spawn(move || {
                let (root, record) = (pending.diff(), pending.record());
                let result = unpack_checked(chunks, &digest, &id, &root, &record);
                let result = match result {
                    Ok(size) => pending.commit(&id, size),
                    Err(error) => {
                        drop(pending);
                        Err(error)
                    }
                };
                if result.is_ok() {
                    brought.push(&id);
                }
                drop((brought, alone));
                // Nobody waits for it where the pull was given up.
                let _ = done.send(result);
            })?;
        let downloaded = download(registry, layer, short, inlet, progress).await;
        if downloaded.is_ok() {
            say(progress, short, "Verifying Checksum", None).await;
            say(progress, short, "Download complete", None).await;
        }
        let unpacked = unpacked
            .await
            .map_err(|_| Error::Unsupported(format!("layer {short}: the unpacker stopped")))?;
        match (unpacked, downloaded) {
            (Ok(()), Ok(())) => {}
            // What broke off cannot be unpacked either; why it did is what is wrong.
            (_, Err(DownloadError::Failed(error))) => return Err(error),
            (Err(error), _) => return Err(registering(error)),
            (Ok(()), Err(DownloadError::NoReader)) => {
                return Err(Error::Unsupported(format!(
                    "layer {short}: data after its end"
                )));
            }
        }
        self.remember_layer(registry, layer, diff_id)?;
        say(progress, short, "Pull complete", None).await;
        Ok(())
    }

    /// So that a push to the same registry need not send it again.
    fn remember_layer(&self, from: &Registry, layer: &Descriptor, diff_id: &str) -> Result<()> {
        if !layer.media_type.ends_with("gzip") {
            return Ok(());
        }
        let blob = KnownBlob {
            digest: layer.digest.clone(),
            size: layer.size,
            at: from.name(),
        };
        self.layers().remember_blob(diff_id, blob)
    }
}

/// In Docker's words.
fn registering(error: Error) -> Error {
    match error {
        Error::Io(error) => Error::Io(std::io::Error::new(
            error.kind(),
            format!("failed to register layer: {error}"),
        )),
        other => other,
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The image manifest behind `raw`: itself, or the index' entry for the platform.
async fn image_manifest(
    registry: &Registry,
    raw: RawManifest,
    reference: &Reference,
    platform: &Platform,
) -> Result<Manifest> {
    let parse = |bytes: &[u8]| -> Result<Manifest> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::Unsupported(format!("{reference}: manifest: {error}")))
    };
    let manifest = parse(&raw.bytes)?;
    if manifest.config.is_some() || manifest.manifests.is_empty() {
        return Ok(manifest);
    }
    let fits = |entry: &&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|offered| platform.accepts(offered))
    };
    let entry = manifest.manifests.iter().find(fits).ok_or_else(|| {
        Error::Unsupported(format!(
            "no matching manifest for {platform} in the manifest list entries"
        ))
    })?;
    let raw = registry.manifest(&entry.digest).await?;
    verified(&raw, Some(&entry.digest), &reference.to_string())?;
    parse(&raw.bytes)
}

/// The manifest's digest, checked against the wanted one; the registry's own header is not trusted.
fn verified(raw: &RawManifest, wanted: Option<&str>, what: &str) -> Result<String> {
    let got = digest_of(&raw.bytes);
    match wanted.or(raw
        .digest
        .as_deref()
        .filter(|digest| digest.starts_with("sha256:")))
    {
        Some(expected) if expected != got => Err(Error::Digest {
            what: format!("manifest of {what}"),
            expected: expected.to_owned(),
            got,
        }),
        _ => Ok(got),
    }
}

async fn fetch_small(registry: &Registry, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut blob = registry.blob(&descriptor.digest, 0).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = blob
        .chunk()
        .await
        .map_err(|error| broken_off(&descriptor.digest, &error))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_CONFIG {
            return Err(Error::Unsupported(format!(
                "image config {} is over {MAX_CONFIG} bytes",
                descriptor.digest
            )));
        }
    }
    let got = digest_of(&bytes);
    if got != descriptor.digest {
        return Err(Error::Digest {
            what: "image config".into(),
            expected: descriptor.digest.clone(),
            got,
        });
    }
    Ok(bytes)
}

enum DownloadError {
    /// The unpacker went away; it knows why.
    NoReader,
    Failed(Error),
}

impl From<NoReader> for DownloadError {
    fn from(_: NoReader) -> Self {
        Self::NoReader
    }
}

/// Sends a layer's bytes to the unpacker; a connection that breaks or stalls is resumed where it did.
async fn download(
    registry: &Registry,
    layer: &Descriptor,
    short: &str,
    chunks: Inlet,
    progress: &ProgressSink,
) -> Result<(), DownloadError> {
    let (mut offset, mut shown, mut breaks, mut broke_at) = (0_u64, 0_u64, 0, 0_u64);
    loop {
        let mut blob = registry
            .blob(&layer.digest, offset)
            .await
            .map_err(DownloadError::Failed)?;
        let reason = loop {
            match blob.chunk().await {
                Ok(Some(chunk)) => {
                    offset += chunk.len() as u64;
                    if layer.size > 0 && offset > layer.size {
                        return Err(DownloadError::Failed(wrong_size(layer, "more")));
                    }
                    chunks.send(chunk).await?;
                    if offset - shown > 1 << 20 {
                        shown = offset;
                        downloading(progress, short, offset, layer.size);
                    }
                }
                Ok(None) if offset >= layer.size => return Ok(()),
                // An answer without a length that ends early looks like a whole one.
                Ok(None) => break wrong_size(layer, "fewer"),
                Err(error) => break broken_off(&layer.digest, &error),
            }
        };
        if offset - broke_at >= SOME_PROGRESS {
            breaks = 0;
        }
        (breaks, broke_at) = (breaks + 1, offset);
        if breaks > RESUMES {
            return Err(DownloadError::Failed(reason));
        }
        tracing::debug!(
            layer = short,
            offset,
            breaks,
            %reason,
            "the connection broke; resuming"
        );
        tokio::time::sleep(backoff(breaks)).await;
    }
}

fn wrong_size(layer: &Descriptor, than: &str) -> Error {
    Error::Unsupported(format!(
        "layer {}: the registry sends {than} bytes than the {} of its manifest",
        short_digest(&layer.digest),
        layer.size
    ))
}

async fn say(progress: &ProgressSink, id: &str, status: &str, prefix: Option<&str>) {
    let id = prefix.unwrap_or(id).to_owned();
    // Nobody listening is no reason to stop a pull.
    let _ = progress
        .send(Progress {
            id,
            status: status.to_owned(),
            ..Progress::default()
        })
        .await;
}

fn downloading(progress: &ProgressSink, short: &str, current: u64, total: u64) {
    let detail = ProgressDetail {
        current: Some(current),
        total: Some(total),
    };
    // A line too many for a slow reader is dropped.
    let _ = progress.try_send(Progress {
        id: short.to_owned(),
        status: "Downloading".to_owned(),
        progress_detail: Some(detail),
        ..Progress::default()
    });
}

fn short_digest(digest: &str) -> &str {
    let hex = digest.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

fn broken_off(digest: &str, error: &reqwest::Error) -> Error {
    Error::Registry {
        url: digest.to_owned(),
        reason: describe(error),
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
