//! Pulling: manifest, config, then all missing layers side by side, each unpacked while it arrives.
//!
//! A layer's bytes go from the network through a bounded channel to a thread that hashes, decompresses, hashes again and
//! unpacks. Both digests are checked before the layer gets its name.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use windlass_engine_api::{
    RegistryAuth,
    types::{Progress, ProgressDetail},
};

use super::{
    Descriptor, Error, ImageConfig, ImageMeta, ImageStore, Manifest, Platform, Reference, Result,
    original::Recording,
    push::KnownBlob,
    registry::{RawManifest, Registry, backoff, describe},
    unpack::unpack,
};

/// Layers that arrive at once; more does not help two cores, fewer leaves the network idle.
const LAYERS_AT_ONCE: usize = 4;
/// Chunks between network and unpacker.
const CHANNEL: usize = 64;
const MAX_CONFIG: usize = 8 << 20;
/// Content of one layer; what is larger is a decompression bomb.
pub(super) const MAX_LAYER: u64 = 64 << 30;
const RESUMES: u32 = 5;

/// Where progress lines go.
pub type ProgressSink = mpsc::Sender<Progress>;

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
        let raw = registry.manifest(reference.target()).await?;
        let top_digest = verified(&raw, reference.digest.as_deref(), &reference.to_string())?;
        let manifest = image_manifest(&registry, raw, reference, platform).await?;
        let config_descriptor = manifest.config.as_ref().ok_or_else(|| {
            Error::Unsupported(format!("{reference}: the manifest has no config"))
        })?;
        let config = fetch_small(&registry, config_descriptor).await?;
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| Error::Unsupported(format!("{reference}: image config: {error}")))?;
        if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Unsupported(format!(
                "{reference}: the config names {} layers, the manifest {}",
                parsed.rootfs.diff_ids.len(),
                manifest.layers.len()
            )));
        }
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
        let _pins = self.pin(&parsed.rootfs.diff_ids);
        let layers = manifest.layers.into_iter().zip(parsed.rootfs.diff_ids);
        stream::iter(layers)
            .map(|(layer, diff_id)| {
                let (store, registry, progress) =
                    (Arc::clone(self), Arc::clone(&registry), progress.clone());
                async move {
                    store
                        .fetch_layer(&registry, &layer, &diff_id, &progress)
                        .await
                }
            })
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let id = self.add(&config, &ImageMeta::default())?;
        if reference.tag.is_some() {
            self.tag(&id, reference)?;
        }
        self.remember_digest(&id, reference, &top_digest)?;
        say(progress, "", &format!("Digest: {top_digest}"), None).await;
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

    async fn fetch_layer(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        layer: &Descriptor,
        diff_id: &str,
        progress: &ProgressSink,
    ) -> Result<()> {
        let _alone = self.arriving.alone(diff_id).await;
        let short = short_digest(&layer.digest).to_owned();
        if self.layers().has(diff_id) {
            say(progress, &short, "Already exists", None).await;
            return self.remember_layer(registry, layer, diff_id);
        }
        say(progress, &short, "Pulling fs layer", None).await;
        let pending = self.layers().begin()?;
        let (chunks, receiver) = mpsc::channel(CHANNEL);
        let (done, unpacked) = oneshot::channel();
        let expected = Expected {
            digest: layer.digest.clone(),
            diff_id: diff_id.to_owned(),
        };
        let (root, record) = (pending.diff(), pending.record());
        std::thread::Builder::new()
            .name(format!("unpack-{short}"))
            .spawn(move || {
                let _ = done.send(unpack_checked(receiver, &expected, &root, &record));
            })?;
        let downloaded = download(registry, layer, &short, chunks, progress).await;
        let unpacked = unpacked
            .await
            .map_err(|_| Error::Unsupported(format!("layer {short}: the unpacker stopped")))?;
        // The unpacker's word comes first: it stops reading when the disk is full or the archive is bad.
        let size = match (unpacked, downloaded) {
            (Ok(size), Ok(())) => size,
            (_, Err(DownloadError::Failed(error))) | (Err(error), _) => return Err(error),
            (Ok(_), Err(DownloadError::NoReader)) => {
                return Err(Error::Unsupported(format!(
                    "layer {short}: data after its end"
                )));
            }
        };
        pending.commit(diff_id, size)?;
        self.remember_layer(registry, layer, diff_id)?;
        say(progress, &short, "Pull complete", None).await;
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
            "no matching manifest for {}/{} in the manifest list entries",
            platform.os, platform.architecture
        ))
    })?;
    let raw = registry.manifest(&entry.digest).await?;
    verified(&raw, Some(&entry.digest), &reference.to_string())?;
    parse(&raw.bytes)
}

/// The manifest's digest, checked against the wanted one; the registry's own header is not trusted.
fn verified(raw: &RawManifest, wanted: Option<&str>, what: &str) -> Result<String> {
    let got = format!("sha256:{}", hex::encode(Sha256::digest(&raw.bytes)));
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
    let mut response = registry.blob(&descriptor.digest, 0).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response
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
    let got = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
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

/// Sends a layer's bytes to the unpacker; a connection that breaks is resumed where it broke.
async fn download(
    registry: &Registry,
    layer: &Descriptor,
    short: &str,
    chunks: mpsc::Sender<Bytes>,
    progress: &ProgressSink,
) -> Result<(), DownloadError> {
    let (mut offset, mut shown, mut breaks) = (0_u64, 0_u64, 0);
    loop {
        let mut response = registry
            .blob(&layer.digest, offset)
            .await
            .map_err(DownloadError::Failed)?;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    offset += chunk.len() as u64;
                    chunks
                        .send(chunk)
                        .await
                        .map_err(|_| DownloadError::NoReader)?;
                    if offset - shown > 1 << 20 {
                        shown = offset;
                        downloading(progress, short, offset, layer.size);
                    }
                }
                Ok(None) => return Ok(()),
                Err(_) if breaks < RESUMES => break,
                Err(error) => return Err(DownloadError::Failed(broken_off(&layer.digest, &error))),
            }
        }
        breaks += 1;
        tracing::debug!(
            layer = short,
            offset,
            breaks,
            "the connection broke; resuming"
        );
        tokio::time::sleep(backoff(breaks)).await;
    }
}

struct Expected {
    digest: String,
    diff_id: String,
}

/// Unpacks what comes through the channel; the size if both digests are right.
fn unpack_checked(
    chunks: mpsc::Receiver<Bytes>,
    expected: &Expected,
    root: &std::path::Path,
    record: &std::path::Path,
) -> Result<u64> {
    let mut compressed = Hashing::new(Chunks {
        chunks,
        current: Bytes::new(),
    });
    let mut magic = [0_u8; 4];
    let got = read_up_to(&mut compressed, &mut magic)?;
    let start = io::Cursor::new(magic[..got].to_vec());
    let (size, diff_id) = if magic[..2] == [0x1f, 0x8b] {
        let decoder = flate2::read::MultiGzDecoder::new(start.chain(&mut compressed));
        unpack_whole(decoder, root, record)?
    } else if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        let decoder = ruzstd::decoding::StreamingDecoder::new(start.chain(&mut compressed))
            .map_err(|error| Error::Archive(format!("zstd: {error}")))?;
        unpack_whole(decoder, root, record)?
    } else {
        unpack_whole(start.chain(&mut compressed), root, record)?
    };
    io::copy(&mut compressed, &mut io::sink())?;
    let digest = compressed.digest();
    for (what, expected, got) in [
        ("layer", &expected.digest, digest),
        ("unpacked layer", &expected.diff_id, diff_id),
    ] {
        if *expected != got {
            return Err(Error::Digest {
                what: what.into(),
                expected: expected.clone(),
                got,
            });
        }
    }
    Ok(size)
}

/// Unpacks, and reads what follows the archive's end, since the digest is of every byte. Size and digest.
fn unpack_whole(
    archive: impl Read,
    root: &std::path::Path,
    record: &std::path::Path,
) -> Result<(u64, String)> {
    let mut archive = Recording::new(Hashing::new(archive), record)?;
    let unpacked = unpack(&mut archive, root, MAX_LAYER)?;
    io::copy(&mut archive, &mut io::sink())
        .map_err(|error| Error::Archive(format!("broken archive: {error}")))?;
    Ok((unpacked.size, archive.finish()?.digest()))
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// A reader that hashes what passes through it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    pub(super) fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// The unpacker's end of the channel.
struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
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
