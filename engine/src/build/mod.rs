//! Building images from a Dockerfile, one instruction after the other, each an image of its own that the next build finds again; stages
//! that do not need each other side by side.
//!
//! Deliberately absent: BuildKit's protocol (so no secrets and no agent of the client), clones of repositories.

mod arrival;
mod cache;
mod command;
mod commit;
mod config;
mod context;
mod copy;
pub(crate) mod dockerfile;
pub(crate) mod expand;
mod extract;
mod fetch;
mod health;
mod heredoc;
mod job;
mod mode;
mod mount;
mod options;
mod padding;
mod pattern;
mod plan;
mod prune;
mod report;
mod run;
mod stage;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use windlass_engine_api::types::{ErrorDetail, Progress};

pub use config::apply_changes;

use crate::container::error::Result;
use crate::container::parts::{
    BuildRequest, Builder, Built, CacheItem, Networks, ProgressSink, PruneBuild, Reader, Runtime,
};
use crate::container::removal::remove_dir_all;
use crate::image::LocalImages;
use crate::userns::Remap;
use cache::Cache;
use job::Job;
use options::Options;
use plan::Plan;
use report::Report;
use stage::{Failure, blocking};

/// Builds with the engine's own images, processes and networks.
#[derive(Clone)]
pub struct LocalBuilder {
    images: LocalImages,
    runtime: Arc<dyn Runtime>,
    networks: Arc<dyn Networks>,
    cache: Cache,
    scratch: PathBuf,
    /// Steps run in user namespaces.
    remap: Option<Arc<Remap>>,
}

impl LocalBuilder {
    /// A builder with its scratch folder below `root`; what an interrupted build left there is taken away.
    pub async fn open(
        root: &Path,
        images: LocalImages,
        runtime: Arc<dyn Runtime>,
        networks: Arc<dyn Networks>,
    ) -> Result<Self> {
        let scratch = root.join("build");
        fs_err::create_dir_all(&scratch)?;
        for entry in fs_err::read_dir(&scratch)? {
            let entry = entry?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("step").exists() {
                runtime.delete(&id).await?;
            }
            images.overlays.discard(&id)?;
            remove_dir_all(&entry.path())?;
        }
        Ok(Self {
            images,
            runtime,
            networks,
            cache: Cache::open(root)?,
            scratch,
            remap: None,
        })
    }

    /// Steps run in user namespaces.
    pub fn remapped(self, remap: Option<Arc<Remap>>) -> Self {
        Self { remap, ..self }
    }

    /// What a step's user and group are on the host.
    fn outside(&self, owner: (u32, u32)) -> (u32, u32) {
        let maps = self.remap.as_ref().map(|remap| &remap.maps);
        maps.and_then(|maps| maps.outside(owner)).unwrap_or(owner)
    }

    /// A new folder in the scratch folder; its name is a new container id.
    fn new_folder(&self) -> Result<(String, PathBuf)> {
        let id = hex::encode(rand::random::<[u8; 32]>());
        let folder = self.scratch.join(&id);
        fs_err::create_dir(&folder)?;
        Ok((id, folder))
    }
}

/// A folder that goes with its owner; nobody waits until its last file is gone.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = remove_dir_all(&folder) {
                tracing::warn!(%error, "a build's folder stays until the next start");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[async_trait]
impl Builder for LocalBuilder {
    async fn build(
        &self,
        request: BuildRequest,
        context: Reader,
        progress: ProgressSink,
    ) -> Result<Option<Built>> {
        let mut options = Options::read(&request.parameters)?;
        let (_, folder) = self.new_folder()?;
        let scratch = Scratch(folder);
        let arrived = arrival::arrive(&mut options, context, &scratch.0).await?;
        let plan = Plan::new(arrived.instructions, &options)?;
        let report = Report::new(progress.clone(), options.quiet);
        let job = Job::new(
            self.clone(),
            options,
            request.auth,
            (&scratch.0, arrived.source),
            plan,
            report,
        );
        match job.run().await {
            Err(Failure::Command { message, code }) => {
                let detail = ErrorDetail {
                    code: Some(code),
                    message: message.clone(),
                };
                progress
                    .send(Progress {
                        error: message,
                        error_detail: Some(detail),
                        ..Progress::default()
                    })
                    .await
                    .ok();
                Ok(None)
            }
            Err(Failure::Other(error)) => Err(error),
            Ok(built) => Ok(Some(built)),
        }
    }

    async fn prune(&self, wanted: PruneBuild) -> Result<(Vec<String>, u64)> {
        let this = self.clone();
        blocking(move || this.prune_now(&wanted)).await
    }

    async fn cache(&self) -> Result<Vec<CacheItem>> {
        let this = self.clone();
        blocking(move || this.items()).await
    }
}
