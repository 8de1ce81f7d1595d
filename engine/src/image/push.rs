//! Pushing: the layers that the registry lacks, the config, then the manifest under its tag.
//!
//! A layer whose blob is known from a pull or an earlier push keeps its digest where the registry has that blob, or can take
//! it over from another repository. Else it is compressed anew, always in the same way, so that the same layer is the same blob.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use flate2::{Compression, GzBuilder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use windlass_engine_api::RegistryAuth;
use windlass_engine_api::types::{Progress, ProgressDetail};

use super::pull::ProgressSink;
use super::registry::Registry;
use super::store::short;
use super::upload::Mount;
use super::{Error, HashingWriter, Image, ImageStore, LayerStore, PendingLayer, Reference, Result};

const LAYERS_AT_ONCE: usize = 4;
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Sources of one blob that are remembered.
const MAX_KNOWN: usize = 20;

/// A layer as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownBlob {
    /// Of the compressed bytes.
    pub(super) digest: String,
    pub(super) size: u64,
    /// `registry/repository`.
    pub(super) at: String,
}

impl LayerStore {
    /// Where the layer is known to lie, the latest first.
    fn blobs(&self, diff_id: &str) -> Vec<KnownBlob> {
        let text = std::fs::read(self.blobs_file(diff_id)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Remembers where a layer lies, compressed by gzip.
    pub(super) fn remember_blob(&self, diff_id: &str, blob: KnownBlob) -> Result<()> {
        let mut known = self.blobs(diff_id);
        if known.first() == Some(&blob) {
            return Ok(());
        }
        known.retain(|other| *other != blob);
        known.insert(0, blob);
        known.truncate(MAX_KNOWN);
        let text = serde_json::to_vec(&known).map_err(std::io::Error::from)?;
        // Not durable: it is a hint, and a pull would wait for the disk once a layer.
        let path = self.blobs_file(diff_id);
        let temporary =
            path.with_extension(format!("{}.new", hex::encode(rand::random::<[u8; 4]>())));
        fs_err::write(&temporary, text)?;
        Ok(fs_err::rename(&temporary, &path)?)
    }
}

/// One layer on its way.
struct Outgoing {
    store: Arc<ImageStore>,
    registry: Arc<Registry>,
    to: Reference,
    diff_id: String,
    progress: ProgressSink,
}

impl ImageStore {
    /// Pushes one tag of a repository, or all that are here.
    pub(super) async fn push(
        self: &Arc<Self>,
        repository: &str,
        tag: Option<&str>,
        auth: Option<RegistryAuth>,
        progress: &ProgressSink,
    ) -> Result<()> {
        let name = match tag {
            Some(tag) => Reference::parse(&format!("{repository}:{tag}"))?,
            None => Reference::parse(repository)?,
        };
        say(
            progress,
            "",
            &format!("The push refers to repository [{}]", name.full_name()),
        )
        .await;
        let missing = |name: &str| {
            Error::NoSuchImageToPush(format!(
                "An image does not exist locally with the tag: {name}"
            ))
        };
        let keys = match tag {
            Some(_) => self.names().key(&name).into_iter().collect(),
            None => self.names().tags_in(&name),
        };
        if keys.is_empty() {
            return Err(missing(&name.familiar_name()));
        }
        let registry = Arc::new(Registry::new(self.registries(), &name, auth)?);
        for key in keys {
            let reference = Reference::parse(&key)?;
            let image = self.resolve(&key)?;
            self.push_tag(&registry, &reference, &image, progress)
                .await?;
        }
        Ok(())
    }

    async fn push_tag(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        reference: &Reference,
        image: &Image,
        progress: &ProgressSink,
    ) -> Result<()> {
        let diff_ids = &image.config.rootfs.diff_ids;
        for diff_id in diff_ids.iter().rev() {
            say(progress, short(diff_id), "Preparing").await;
        }
        let outgoing = |diff_id: &String| Outgoing {
            store: Arc::clone(self),
            registry: Arc::clone(registry),
            to: reference.clone(),
            diff_id: diff_id.clone(),
            progress: progress.clone(),
        };
        let layers: Vec<Outgoing> = diff_ids.iter().map(outgoing).collect();
        let blobs: Vec<KnownBlob> = stream::iter(layers)
            .map(|layer| async move { layer.send().await })
            .buffered(LAYERS_AT_ONCE)
            .try_collect()
            .await?;
        let config = self.config_bytes(&image.id)?;
        if !registry.has_blob(&image.id).await? {
            registry.upload_bytes(&image.id, &config).await?;
        }
        let manifest = manifest_of(&image.id, config.len(), &blobs);
        let tag = reference.tag.as_deref().unwrap_or("latest");
        registry
            .put_manifest(tag, MANIFEST, manifest.as_bytes())
            .await?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&manifest)));
        self.remember_digest(&image.id, reference, &digest)?;
        let size = manifest.len();
        say(
            progress,
            "",
            &format!("{tag}: digest: {digest} size: {size}"),
        )
        .await;
        let aux = Some(json!({ "Tag": tag, "Digest": digest, "Size": size }));
        let line = Progress {
            progress_detail: Some(ProgressDetail::default()),
            aux,
            ..Progress::default()
        };
        progress.send(line).await.ok();
        Ok(())
    }
}

impl Outgoing {
    /// Brings the layer into the repository; what it is there.
    async fn send(&self) -> Result<KnownBlob> {
        let here = self.to.full_name();
        let known = self.store.layers().blobs(&self.diff_id);
        let mut tried = Vec::new();
        for blob in &known {
            if tried.contains(&&blob.digest) {
                continue;
            }
            tried.push(&blob.digest);
            if self.registry.has_blob(&blob.digest).await? {
                self.say("Layer already exists").await;
                return self.there(blob);
            }
        }
        // The latest try to mount has begun an upload, if the registry would not.
        let mut session = None;
        for blob in known.iter().filter(|blob| blob.at != here) {
            let Some(from) = blob.at.strip_prefix(&format!("{}/", self.to.registry)) else {
                continue;
            };
            let begun = self.registry.begin_upload(Some((&blob.digest, from)));
            match begun.await? {
                Mount::Mounted => {
                    self.say(&format!("Mounted from {from}")).await;
                    return self.there(blob);
                }
                Mount::Session(url) => session = Some(url),
            }
        }
        let (scratch, blob) = self.compressed().await?;
        if !tried.contains(&&blob.digest) && self.registry.has_blob(&blob.digest).await? {
            self.say("Layer already exists").await;
            return self.there(&blob);
        }
        let begun = match session {
            Some(url) => Mount::Session(url),
            None => self.registry.begin_upload(None).await?,
        };
        if let Mount::Session(url) = begun {
            let file = scratch.diff().join(FILE);
            let sent = self.report(blob.size);
            self.registry.upload(url, &blob.digest, &file, sent).await?;
        }
        self.say("Pushed").await;
        self.there(&blob)
    }

    fn there(&self, blob: &KnownBlob) -> Result<KnownBlob> {
        let blob = KnownBlob {
            at: self.to.full_name(),
            ..blob.clone()
        };
        self.store
            .layers()
            .remember_blob(&self.diff_id, blob.clone())?;
        Ok(blob)
    }

    async fn compressed(&self) -> Result<(PendingLayer, KnownBlob)> {
        let (store, diff_id) = (Arc::clone(&self.store), self.diff_id.clone());
        let packing = tokio::task::spawn_blocking(move || {
            let scratch = store.layers().begin()?;
            let (digest, size) = compress(&store, &diff_id, &scratch)?;
            let at = String::new();
            Ok::<_, Error>((scratch, KnownBlob { digest, size, at }))
        });
        packing
            .await
            .map_err(|_| Error::Unsupported("the layer's writer stopped".into()))?
    }

    async fn say(&self, status: &str) {
        say(&self.progress, short(&self.diff_id), status).await;
    }

    /// Tells now and then how much is sent.
    fn report(&self, total: u64) -> impl Fn(u64) + Send + Sync + Clone + 'static {
        let (progress, id) = (self.progress.clone(), short(&self.diff_id).to_owned());
        let told = Arc::new(std::sync::atomic::AtomicU64::new(0));
        move |current| {
            use std::sync::atomic::Ordering::Relaxed;
            if current < total && current - told.load(Relaxed).min(current) < 512 * 1024 {
                return;
            }
            told.store(current, Relaxed);
            // A line too many for a slow reader is dropped.
            let _ = progress.try_send(Progress {
                id: id.clone(),
                status: "Pushing".into(),
                progress_detail: Some(ProgressDetail {
                    current: Some(current),
                    total: Some(total),
                }),
                ..Progress::default()
            });
        }
    }
}

/// Of the compressed layer in its scratch folder.
const FILE: &str = "layer.tar.gz";

/// Writes the layer's archive, then compresses it: always to the same bytes. Digest and size.
fn compress(store: &ImageStore, diff_id: &str, scratch: &PendingLayer) -> Result<(String, u64)> {
    let plain = scratch.diff().join("layer.tar");
    let mut file = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&plain)?;
    let digest = store.layers().write_archive(diff_id, &mut file)?;
    if digest != diff_id {
        return Err(Error::Unsupported(format!(
            "the layer {diff_id} is not what it was: its files were changed in the engine's folder"
        )));
    }
    drop(file);
    let packed = scratch.diff().join(FILE);
    let size = gzip(&plain, &packed)?;
    fs_err::remove_file(&plain)?;
    Ok(size)
}

fn gzip(from: &Path, to: &Path) -> Result<(String, u64)> {
    let out = std::io::BufWriter::with_capacity(1 << 18, fs_err::File::create_new(to)?);
    let hashed = HashingWriter::new(out);
    let mut packer = GzBuilder::new().mtime(0).write(hashed, Compression::new(6));
    std::io::copy(&mut fs_err::File::open(from)?, &mut packer)?;
    let mut hashed = packer.finish()?;
    hashed.flush()?;
    Ok((hashed.digest(), fs_err::metadata(to)?.len()))
}

/// The manifest as Docker writes it, so that the same image has the same digest wherever it is pushed from.
fn manifest_of(config: &str, config_size: usize, layers: &[KnownBlob]) -> String {
    let entry = |kind: &str, size: u64, digest: &str, indent: &str| {
        format!(
            "{{\n{indent}   \"mediaType\": \"{kind}\",\n{indent}   \"size\": {size},\n{indent}   \"digest\": \"{digest}\"\n{indent}}}"
        )
    };
    let config = entry(CONFIG, config_size as u64, config, "   ");
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| "      ".to_owned() + &entry(LAYER, layer.size, &layer.digest, "      "))
        .collect();
    let layers = if layers.is_empty() {
        "[]".to_owned()
    } else {
        format!("[\n{}\n   ]", layers.join(",\n"))
    };
    format!(
        "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{MANIFEST}\",\n   \"config\": {config},\n   \"layers\": {layers}\n}}"
    )
}

async fn say(progress: &ProgressSink, id: &str, status: &str) {
    let detail = (!id.is_empty()).then(ProgressDetail::default);
    // Nobody listening is no reason to stop.
    let _ = progress
        .send(Progress {
            id: id.to_owned(),
            status: status.to_owned(),
            progress_detail: detail,
            ..Progress::default()
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::store_with_image;
    use super::*;

    #[test]
    fn manifests_are_as_docker_indents_them() {
        let layer = KnownBlob {
            digest: "sha256:l".into(),
            size: 7,
            at: String::new(),
        };
        let text = manifest_of("sha256:c", 5, std::slice::from_ref(&layer));
        assert!(text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\""));
        assert!(
            text.contains("   \"layers\": [\n      {\n         \"mediaType\""),
            "{text}"
        );
        let read: super::super::Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!((read.layers[0].size, read.config.unwrap().size), (7, 5));
        let none: serde_json::Value = serde_json::from_str(&manifest_of("c", 1, &[])).unwrap();
        assert_eq!(none["layers"], json!([]));
    }

    #[test]
    fn a_layer_is_the_same_blob_every_time() {
        let (_root, store, _) = store_with_image();
        let archive = super::super::tar_of(&[("a".to_owned(), (0o644, vec![1; 5000]))].into());
        let id = store
            .import(&archive.unwrap()[..], Default::default())
            .unwrap();
        let layer = store.resolve(&id).unwrap().config.rootfs.diff_ids[0].clone();
        let blob = || {
            let scratch = store.layers().begin().unwrap();
            compress(&store, &layer, &scratch).unwrap()
        };
        assert_eq!(blob(), blob());
        let blob = |at: &str| KnownBlob {
            digest: "sha256:x".into(),
            size: 1,
            at: at.into(),
        };
        for at in ["r/a", "r/b", "r/a"] {
            store.layers().remember_blob(&layer, blob(at)).unwrap();
        }
        assert_eq!(store.layers().blobs(&layer), [blob("r/a"), blob("r/b")]);
    }
}
