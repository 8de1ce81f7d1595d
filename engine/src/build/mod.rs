//! Building images from a Dockerfile, one instruction after the other, each an image of its own that the next build finds again.
//!
//! Deliberately absent: BuildKit (its flags and here-documents are refused), `ADD` of a URL.

mod commit;
mod config;
mod context;
mod copy;
mod dockerfile;
mod expand;
mod options;
mod run;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::io::SyncIoBridge;
use windlass_engine_api::types::{ErrorDetail, Progress};

pub use config::apply_changes;

use crate::container::error::{Error, Result};
use crate::container::parts::{BuildRequest, Builder, Networks, ProgressSink, Reader, Runtime};
use crate::container::removal::remove_dir_all;
use crate::container::{files, rooted};
use crate::image::LocalImages;
use options::Options;
use stage::Build;

/// Builds with the engine's own images, processes and networks.
#[derive(Clone)]
pub struct LocalBuilder {
    images: LocalImages,
    runtime: Arc<dyn Runtime>,
    networks: Arc<dyn Networks>,
    scratch: PathBuf,
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
            scratch,
        })
    }

    /// A new folder in the scratch folder; its name is a new container id.
    fn new_folder(&self) -> Result<(String, PathBuf)> {
        let id = hex::encode(rand::random::<[u8; 32]>());
        let folder = self.scratch.join(&id);
        fs_err::create_dir(&folder)?;
        Ok((id, folder))
    }
}

/// A folder that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_dir_all(&self.0) {
            tracing::warn!(%error, "a build's folder stays until the next start");
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
    ) -> Result<()> {
        let options = Options::read(&request.parameters)?;
        let (_, folder) = self.new_folder()?;
        let scratch = Scratch(folder);
        let target = scratch.0.join("context");
        fs_err::create_dir(&target)?;
        let archive = SyncIoBridge::new(context);
        let into = target.clone();
        tokio::task::spawn_blocking(move || -> Result<()> {
            let root = rooted::open_root(&into)?;
            let archive = crate::image::decompress(archive)?;
            files::put(&root, "/", archive, files::Unpacking::default())
        })
        .await
        .map_err(Error::internal)??;
        let mut build = Build::new(self, options, request.auth, &target, progress.clone())?;
        match build.run().await {
            Err(stage::Failure::Command { message, code }) => {
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
                Ok(())
            }
            Err(stage::Failure::Other(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }
}
