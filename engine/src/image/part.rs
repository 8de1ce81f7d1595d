//! The images as the containers see them: [`Images`] over the store and the overlays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::io::SyncIoBridge;
use windlass_engine_api::RegistryAuth;
use windlass_engine_api::types::{
    Change, ContainerConfig, GraphDriver, HistoryItem, ImageDeleted, ImageInspect, ImageMetadata,
    ImageSummary, Progress, RootFs,
};

use super::registry::Registry;
use super::{
    Error, HistoryEntry, Image, ImageConfig, ImageStore, Overlays, Platform, Reference,
    RegistryConfig, Removed, RunConfig,
};
use crate::container::clock::NEVER;
use crate::container::error::{Error as PartError, Kind, Result as PartResult};
use crate::container::parts::{self, Images, ProgressSink, Reader};

/// Images and root file systems under one folder.
#[derive(Clone, Debug)]
pub struct LocalImages {
    /// Names, configs, layers.
    pub store: Arc<ImageStore>,
    /// Writable layers.
    pub overlays: Overlays,
}

impl LocalImages {
    /// Opens or makes everything under `root`.
    pub fn open(root: &Path, registries: RegistryConfig) -> super::Result<Self> {
        Ok(Self {
            store: Arc::new(ImageStore::open(root, registries)?),
            overlays: Overlays::open(root)?,
        })
    }

    fn inspected(&self, image: &Image) -> PartResult<ImageInspect> {
        let config = &image.config;
        Ok(ImageInspect {
            id: image.id.clone(),
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            parent: image.meta.parent.clone().unwrap_or_default(),
            created: config.created.clone().unwrap_or_default(),
            author: config.author.clone().unwrap_or_default(),
            config: container_config(&config.config)?,
            architecture: config.architecture.clone(),
            variant: config.variant.clone().unwrap_or_default(),
            os: config.os.clone(),
            size: signed(image.size),
            graph_driver: GraphDriver {
                name: "overlay2".into(),
                ..GraphDriver::default()
            },
            root_fs: RootFs {
                kind: "layers".into(),
                layers: config.rootfs.diff_ids.clone(),
            },
            metadata: ImageMetadata {
                last_tag_time: image
                    .meta
                    .last_tagged
                    .clone()
                    .unwrap_or_else(|| NEVER.into()),
            },
            ..ImageInspect::default()
        })
    }

    fn container_image(&self, container: &str) -> PartResult<Image> {
        let id = fs_err::read_to_string(self.overlays.upper(container).with_file_name("image"))?;
        Ok(self.store.resolve(&id)?)
    }
}

/// The defaults of an image in the API's type: both are Docker's JSON.
fn container_config(config: &RunConfig) -> PartResult<ContainerConfig> {
    serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .map_err(PartError::internal)
}

impl From<Error> for PartError {
    fn from(error: Error) -> Self {
        let kind = match error.status() {
            400 => Kind::Invalid,
            404 => Kind::NotFound,
            409 => Kind::Conflict,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> super::Result<T> + Send + 'static,
) -> PartResult<T> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(PartError::internal)??)
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// RFC 3339 to Unix seconds; what cannot be read is 0, as in Docker.
fn seconds(created: Option<&str>) -> i64 {
    let parse = |text| {
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
    };
    created
        .and_then(parse)
        .map_or(0, time::OffsetDateTime::unix_timestamp)
}

fn platform(text: Option<&str>) -> PartResult<Platform> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Platform::host());
    };
    let mut words = text.split('/').map(str::to_owned);
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(os), Some(architecture), variant, None) => Ok(Platform {
            os,
            architecture,
            variant,
        }),
        _ => Err(PartError::invalid(format!(
            "invalid platform {text:?}: use OS/ARCH, like linux/amd64"
        ))),
    }
}

fn deleted(removed: Vec<Removed>) -> Vec<ImageDeleted> {
    let entry = |item| match item {
        Removed::Untagged(untagged) => ImageDeleted {
            untagged,
            ..ImageDeleted::default()
        },
        Removed::Deleted(deleted) => ImageDeleted {
            deleted,
            ..ImageDeleted::default()
        },
    };
    removed.into_iter().map(entry).collect()
}

fn history_of(image: &Image, sizes: &[u64]) -> Vec<HistoryItem> {
    let mut sizes = sizes.iter();
    let item = |entry: &HistoryEntry| HistoryItem {
        id: "<missing>".into(),
        created: seconds(entry.created.as_deref()),
        created_by: entry.created_by.clone().unwrap_or_default(),
        comment: entry.comment.clone().unwrap_or_default(),
        size: if entry.empty_layer == Some(true) {
            0
        } else {
            signed(sizes.next().copied().unwrap_or(0))
        },
        tags: None,
    };
    let mut items: Vec<HistoryItem> = image.config.history.iter().map(item).collect();
    items.reverse();
    if let Some(first) = items.first_mut() {
        first.id = image.id.clone();
        first.tags = (!image.repo_tags.is_empty()).then(|| image.repo_tags.clone());
    }
    items
}

#[async_trait]
impl Images for LocalImages {
    fn find(&self, reference: &str) -> PartResult<parts::Image> {
        let image = self.store.resolve(reference)?;
        Ok(parts::Image {
            config: container_config(&image.config.config)?,
            id: image.id,
        })
    }

    fn list(&self) -> PartResult<Vec<ImageSummary>> {
        let images = self.store.list()?;
        let parents: Vec<&String> = images
            .iter()
            .filter_map(|image| image.meta.parent.as_ref())
            .collect();
        // Steps in between of a build are kept for its cache, and not shown.
        let shown = images
            .iter()
            .filter(|image| !image.repo_tags.is_empty() || !parents.contains(&&image.id));
        let summary = |image: &Image| ImageSummary {
            id: image.id.clone(),
            parent_id: image.meta.parent.clone().unwrap_or_default(),
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            created: seconds(image.config.created.as_deref()),
            size: signed(image.size),
            shared_size: -1,
            labels: image.config.config.labels.clone(),
            containers: -1,
        };
        let mut summaries: Vec<ImageSummary> = shown.map(summary).collect();
        summaries.sort_by_key(|summary| std::cmp::Reverse(summary.created));
        Ok(summaries)
    }

    fn inspect(&self, reference: &str) -> PartResult<ImageInspect> {
        self.inspected(&self.store.resolve(reference)?)
    }

    fn history(&self, reference: &str) -> PartResult<Vec<HistoryItem>> {
        let image = self.store.resolve(reference)?;
        let size = |id: &String| self.store.layers().info(id).map_or(0, |info| info.size);
        let sizes: Vec<u64> = image.config.rootfs.diff_ids.iter().map(size).collect();
        Ok(history_of(&image, &sizes))
    }

    async fn pull(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        wanted: Option<&str>,
        progress: ProgressSink,
    ) -> PartResult<()> {
        let platform = platform(wanted)?;
        self.store
            .pull(&Reference::parse(reference)?, auth, &platform, &progress)
            .await?;
        Ok(())
    }

    async fn load(&self, archive: Reader, progress: ProgressSink) -> PartResult<()> {
        let store = Arc::clone(&self.store);
        let archive = SyncIoBridge::new(archive);
        let loaded = blocking(move || store.load(archive)).await?;
        for image in loaded {
            let mut lines: Vec<String> = image
                .names
                .iter()
                .map(|name| format!("Loaded image: {name}\n"))
                .collect();
            if lines.is_empty() {
                lines.push(format!("Loaded image ID: {}\n", image.id));
            }
            for stream in lines {
                progress
                    .send(Progress {
                        stream,
                        ..Progress::default()
                    })
                    .await
                    .ok();
            }
        }
        Ok(())
    }

    async fn import(
        &self,
        archive: Reader,
        name: Option<String>,
        changes: Vec<String>,
    ) -> PartResult<String> {
        let name = name.as_deref().map(Reference::parse).transpose()?;
        let host = Platform::host();
        let now = Some(crate::container::clock::now());
        let mut config = ImageConfig {
            created: now.clone(),
            architecture: host.architecture,
            os: host.os,
            history: vec![HistoryEntry {
                created: now,
                comment: Some("Imported from -".into()),
                ..HistoryEntry::default()
            }],
            ..ImageConfig::default()
        };
        crate::build::apply_changes(&mut config, &changes)?;
        let store = Arc::clone(&self.store);
        let archive = SyncIoBridge::new(archive);
        let id = blocking(move || store.import(archive, config)).await?;
        if let Some(name) = name {
            self.store.tag(&id, &name)?;
        }
        Ok(id)
    }

    async fn save(&self, references: Vec<String>) -> PartResult<Reader> {
        for name in &references {
            self.store.resolve(name)?;
        }
        let (reader, writer) = tokio::io::duplex(256 * 1024);
        let store = Arc::clone(&self.store);
        let mut writer = SyncIoBridge::new(writer);
        tokio::task::spawn_blocking(move || {
            // Once bytes are on their way there is no status left to say it with: the archive ends early, and the client says so.
            if let Err(error) = store.save(&references, &mut writer) {
                tracing::warn!(%error, "an archive was not written to its end");
            }
        });
        Ok(Box::pin(reader))
    }

    fn tag(&self, reference: &str, name: &str) -> PartResult<()> {
        let name = Reference::parse(name)?;
        if name.digest.is_some() {
            return Err(PartError::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        let image = self.store.resolve(reference)?;
        Ok(self.store.tag(&image.id, &name)?)
    }

    async fn remove(&self, reference: &str, force: bool) -> PartResult<Vec<ImageDeleted>> {
        let (store, overlays) = (Arc::clone(&self.store), self.overlays.clone());
        let reference = reference.to_owned();
        let removed = blocking(move || {
            let used = overlays.images_in_use()?;
            store.remove(&reference, force, |id| {
                if used.contains(id) {
                    vec!["of this host".into()]
                } else {
                    Vec::new()
                }
            })
        });
        Ok(deleted(removed.await?))
    }

    async fn prune(&self, all: bool, used: &[String]) -> PartResult<(Vec<ImageDeleted>, i64)> {
        let (store, used) = (Arc::clone(&self.store), used.to_vec());
        let (removed, won) = blocking(move || store.prune(all, &used)).await?;
        Ok((deleted(removed), signed(won)))
    }

    async fn login(&self, auth: &RegistryAuth) -> PartResult<String> {
        Registry::log_in_at(self.store.registries(), auth).await?;
        Ok("Login Succeeded".to_owned())
    }

    async fn mount(&self, container: &str, image_id: &str) -> PartResult<PathBuf> {
        let (this, container, image_id) = (self.clone(), container.to_owned(), image_id.to_owned());
        blocking(move || {
            this.overlays
                .mount(&container, &this.store, &this.store.resolve(&image_id)?)
        })
        .await
    }

    async fn unmount(&self, container: &str) -> PartResult<()> {
        let (overlays, container) = (self.overlays.clone(), container.to_owned());
        blocking(move || overlays.unmount(&container)).await
    }

    async fn discard(&self, container: &str) -> PartResult<()> {
        let (overlays, container) = (self.overlays.clone(), container.to_owned());
        blocking(move || overlays.discard(&container)).await
    }

    async fn changes(&self, container: &str) -> PartResult<Vec<Change>> {
        let image = self.container_image(container)?;
        let (this, container) = (self.clone(), container.to_owned());
        blocking(move || this.overlays.changes(&container, &this.store, &image)).await
    }
}
