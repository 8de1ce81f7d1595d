//! The images as the containers see them: [`Images`] over the store and the overlays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::io::SyncIoBridge;
use windlass_engine_api::types::{
    Change, ContainerConfig, HistoryItem, ImageDeleted, ImageSummary, Progress,
};
use windlass_engine_api::{Filters, RegistryAuth};

use super::listing::Pruned;
use super::registry::Registry;
use super::{
    Error, HistoryEntry, Image, ImageConfig, ImageStore, ImageUser, Overlays, Platform, Reference,
    RegistryConfig, Removal, RemovalOptions, Removed, RunConfig, Told,
};
use crate::container::error::{Error as PartError, Kind, Result as PartResult};
use crate::container::parts::{
    self, Commit, ImageEvent, ImageQuery, Images, ImagesRemoved, Import, ProgressSink, Pull, Reader,
};
use crate::userns::Remap;

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
        let this = Self {
            store: Arc::new(ImageStore::open(root, registries)?),
            overlays: Overlays::open(root)?,
        };
        this.release()?;
        Ok(this)
    }

    /// Removed images go when the last container that was made from them goes.
    fn release(&self) -> super::Result<()> {
        let used = self.overlays.images_in_use()?;
        self.store
            .release(|id| used.values().any(|image| image == id))
    }

    /// Users of images that are no containers of clients: the steps of builds that run right now.
    fn with_builds(&self, mut users: Vec<ImageUser>) -> PartResult<Vec<ImageUser>> {
        for (container, image) in self.overlays.images_in_use()? {
            if !users.iter().any(|user| user.container == container) {
                users.push(ImageUser {
                    container,
                    image,
                    running: false,
                });
            }
        }
        Ok(users)
    }

    pub(super) fn container_image(&self, container: &str) -> PartResult<Image> {
        let id = fs_err::read_to_string(self.overlays.upper(container).with_file_name("image"))?;
        Ok(self.store.image_of_container(&id)?)
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
            403 => Kind::Forbidden,
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

/// A name to give: it may have a tag, but no digest.
pub(super) fn tag_of(name: &str) -> PartResult<Reference> {
    let name = Reference::parse(name)?;
    if name.digest.is_some() {
        return Err(PartError::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    if name.full_name() == "docker.io/library/sha256" {
        return Err(PartError::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    Ok(name)
}

fn platform(text: Option<&str>) -> PartResult<Platform> {
    let text = text.filter(|text| !text.is_empty());
    Ok(text.map_or_else(|| Ok(Platform::host()), Platform::parse)?)
}

/// Whether the reference has a tag or a digest.
fn names_one(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.contains([':', '@'])
}

fn answered(removal: Removal) -> ImagesRemoved {
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
    let event = |told: Told| {
        let mut attributes = told.image.config.config.labels;
        attributes.insert("name".to_owned(), told.image.id.clone());
        ImageEvent {
            action: told.action,
            id: told.image.id,
            attributes,
        }
    };
    ImagesRemoved {
        deleted: removal.removed.into_iter().map(entry).collect(),
        events: removal.told.into_iter().map(event).collect(),
        won: signed(removal.won),
    }
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

    fn list(&self, query: &ImageQuery) -> PartResult<Vec<ImageSummary>> {
        Ok(self.store.summaries(query)?)
    }

    fn layers_size(&self) -> PartResult<i64> {
        Ok(signed(self.store.layers_size()?))
    }

    fn inspect(&self, reference: &str) -> PartResult<serde_json::Value> {
        Ok(self.store.inspected(&self.store.resolve(reference)?)?)
    }

    fn history(&self, reference: &str) -> PartResult<Vec<HistoryItem>> {
        Ok(self.store.steps(&self.store.resolve(reference)?))
    }

    async fn pull(&self, wanted: Pull, progress: ProgressSink) -> PartResult<()> {
        let platform = platform(wanted.platform.as_deref())?;
        let reference = Reference::parse(&wanted.reference)?;
        let tags = if names_one(&wanted.reference) {
            vec![reference]
        } else {
            let registry = Registry::new(self.store.registries(), &reference, wanted.auth.clone())?;
            let tagged = |tag| Reference {
                tag: Some(tag),
                ..reference.clone()
            };
            registry.tags().await?.into_iter().map(tagged).collect()
        };
        for reference in tags {
            let pulled = self
                .store
                .pull(&reference, wanted.auth.clone(), &platform, &progress);
            pulled.await.map_err(|error| match error {
                // The registry's refusal is not the engine's own.
                Error::Refused(words) => PartError::message(words),
                error => error.into(),
            })?;
        }
        Ok(())
    }

    async fn push(
        &self,
        repository: &str,
        tag: Option<&str>,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> PartResult<()> {
        Ok(self.store.push(repository, tag, auth, &progress).await?)
    }

    async fn load(&self, archive: Reader, progress: ProgressSink) -> PartResult<Vec<String>> {
        let store = Arc::clone(&self.store);
        let archive = SyncIoBridge::new(archive);
        let loaded = blocking(move || store.load(archive)).await?;
        for image in &loaded {
            let moved = image.moved.iter().map(|(name, former)| {
                format!(
                    "The image {name} already exists, renaming the old one with ID {former} to empty string\n"
                )
            });
            let named = image.names.iter();
            let mut lines: Vec<String> = moved
                .chain(named.map(|name| format!("Loaded image: {name}\n")))
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
        Ok(loaded.into_iter().map(|image| image.id).collect())
    }

    async fn import(&self, archive: Reader, wanted: Import) -> PartResult<String> {
        let name = wanted.name.as_deref().map(tag_of).transpose()?;
        let platform = platform(wanted.platform.as_deref())?;
        let now = Some(crate::container::clock::now());
        let mut config = ImageConfig {
            created: now.clone(),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            history: vec![HistoryEntry {
                created: now,
                comment: Some(wanted.message),
                ..HistoryEntry::default()
            }],
            ..ImageConfig::default()
        };
        super::commit::change(&mut config, &wanted.changes)?;
        let store = Arc::clone(&self.store);
        let archive = SyncIoBridge::new(archive);
        let id = blocking(move || store.import(archive, config)).await?;
        if let Some(name) = name {
            self.store.tag(&id, &name)?;
        }
        Ok(id)
    }

    async fn commit(&self, wanted: Commit) -> PartResult<String> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.make_image(wanted))
            .await
            .map_err(PartError::internal)?
    }

    async fn save(&self, references: Vec<String>) -> PartResult<(Reader, Vec<String>)> {
        let ids = self.store.saved_ids(&references)?;
        let (reader, writer) = tokio::io::duplex(256 * 1024);
        let store = Arc::clone(&self.store);
        let mut writer = SyncIoBridge::new(writer);
        tokio::task::spawn_blocking(move || {
            // Once bytes are on their way there is no status left to say it with: the archive ends early, and the client says so.
            if let Err(error) = store.save(&references, &mut writer) {
                tracing::warn!(%error, "an archive was not written to its end");
            }
        });
        Ok((Box::pin(reader), ids))
    }

    fn tag(&self, reference: &str, name: &str) -> PartResult<String> {
        let name = tag_of(name)?;
        let image = self.store.resolve(reference)?;
        self.store.tag(&image.id, &name)?;
        Ok(image.id)
    }

    async fn remove(
        &self,
        reference: &str,
        options: RemovalOptions,
        users: Vec<ImageUser>,
    ) -> PartResult<ImagesRemoved> {
        let (store, users) = (Arc::clone(&self.store), self.with_builds(users)?);
        let reference = reference.to_owned();
        let overlays = self.overlays.clone();
        let removal = blocking(move || {
            if options.force {
                let id = store.resolve(&reference)?.id;
                for user in users.iter().filter(|user| user.image == id) {
                    overlays.claim(&user.container, &id)?;
                }
            }
            store.remove(&reference, options, &users)
        });
        Ok(answered(removal.await?))
    }

    async fn prune(&self, filters: Filters, users: Vec<ImageUser>) -> PartResult<ImagesRemoved> {
        let (store, users) = (Arc::clone(&self.store), self.with_builds(users)?);
        let wanted = Pruned::new(&filters)?;
        let removal =
            blocking(move || store.prune(wanted.tagged_too, &users, |image| wanted.passes(image)));
        Ok(answered(removal.await?))
    }

    async fn login(&self, auth: &RegistryAuth) -> PartResult<String> {
        Registry::log_in_at(self.store.registries(), auth).await?;
        Ok("Login Succeeded".to_owned())
    }

    async fn distribution(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> PartResult<serde_json::Value> {
        let reference = Reference::parse(reference)?;
        Ok(self.store.distribution(&reference, auth).await?)
    }

    async fn search(
        &self,
        term: &str,
        limit: i64,
        auth: Option<RegistryAuth>,
    ) -> PartResult<Vec<serde_json::Value>> {
        Ok(super::search::search(self.store.registries(), term, limit, auth).await?)
    }

    async fn mount(
        &self,
        container: &str,
        image_id: &str,
        remap: Option<Arc<Remap>>,
    ) -> PartResult<PathBuf> {
        let (this, container, image_id) = (self.clone(), container.to_owned(), image_id.to_owned());
        blocking(move || {
            this.overlays.mount(
                &container,
                &this.store,
                &this.store.image_of_container(&image_id)?,
                remap.as_deref(),
            )
        })
        .await
    }

    async fn unmount(&self, container: &str) -> PartResult<()> {
        let (overlays, container) = (self.overlays.clone(), container.to_owned());
        blocking(move || overlays.unmount(&container)).await
    }

    async fn discard(&self, container: &str) -> PartResult<()> {
        let (this, container) = (self.clone(), container.to_owned());
        blocking(move || {
            this.overlays.discard(&container)?;
            this.release()
        })
        .await
    }

    fn root_file_systems(&self) -> PartResult<Vec<String>> {
        Ok(self.overlays.list()?)
    }

    fn written(&self, container: &str) -> PartResult<i64> {
        Ok(signed(self.overlays.written(container)?))
    }

    fn folders(&self, container: &str, image_id: &str) -> windlass_engine_api::types::StringMap {
        let image = self.store.resolve(image_id).ok();
        self.overlays
            .folders(container, &self.store, image.as_ref())
    }

    async fn changes(&self, container: &str) -> PartResult<Vec<Change>> {
        let image = self.container_image(container)?;
        let (this, container) = (self.clone(), container.to_owned());
        blocking(move || this.overlays.changes(&container, &this.store, &image)).await
    }
}
