//! RUN: a container for one command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_engine_api::types::{HostConfig, Progress};

use super::stage::Failure;
use super::{LocalBuilder, Scratch};
use crate::container::error::{Error, Result};
use crate::container::parts::{Connect, MountSpec, Netns, ProcessSpec, ProgressSink, RunSpec};
use crate::container::{MountRecord, resolv_conf};
use crate::image::Image;

/// A root file system that a step works in. Dropped, everything of it is taken away, whatever happened.
pub struct Workshop {
    builder: LocalBuilder,
    /// Its container id.
    pub id: String,
    /// The mounted root.
    pub rootfs: PathBuf,
    folder: Option<Scratch>,
}

impl Workshop {
    /// Mounts `image` with a new writable layer.
    pub fn open(builder: &LocalBuilder, image: &Image) -> Result<Self> {
        let (id, folder) = builder.new_folder()?;
        let folder = Some(Scratch(folder));
        let mut this = Self {
            builder: builder.clone(),
            rootfs: PathBuf::new(),
            id,
            folder,
        };
        this.rootfs = builder
            .images
            .overlays
            .mount(&this.id, &builder.images.store, image)?;
        Ok(this)
    }

    /// Its folder for files of any kind.
    pub fn folder(&self) -> &Path {
        self.folder
            .as_ref()
            .map_or(Path::new(""), |folder| &folder.0)
    }

    /// Unmounts; the writable layer's folder.
    pub fn close(&self) -> Result<PathBuf> {
        self.builder.images.overlays.unmount(&self.id)?;
        Ok(self.builder.images.overlays.upper(&self.id))
    }

    /// Runs a command; its output goes to the progress.
    pub async fn run(
        &self,
        process: ProcessSpec,
        network: &str,
        progress: &ProgressSink,
    ) -> Result<(), Failure> {
        let shown = process.args.join(" ");
        let runtime = &self.builder.runtime;
        fs_err::write(self.folder().join("step"), &shown).map_err(Error::from)?;
        let spec = self.specification(process, network).await?;
        runtime.create(&spec).await?;
        let attachment = runtime.attach(&self.id).await?;
        runtime.start(&self.id).await?;
        let mut output = attachment.output;
        while let Some(frame) = output.recv().await {
            let stream = String::from_utf8_lossy(&frame.data).into_owned();
            progress
                .send(Progress {
                    stream,
                    ..Progress::default()
                })
                .await
                .ok();
        }
        let exit = runtime.wait(&self.id).await?;
        runtime.delete(&self.id).await?;
        self.builder.networks.disconnect(&self.id).await?;
        if exit.code != 0 {
            let message = format!(
                "The command '{shown}' returned a non-zero code: {}",
                exit.code
            );
            return Err(Failure::Command {
                message,
                code: exit.code,
            });
        }
        Ok(())
    }

    async fn specification(&self, process: ProcessSpec, network: &str) -> Result<RunSpec> {
        let mut nameserver = None;
        let netns = match network {
            "none" => Netns::None,
            "host" => Netns::Host,
            other => {
                let network = if matches!(other, "default" | "") {
                    "bridge"
                } else {
                    other
                };
                let wanted = Connect {
                    container: self.id.clone(),
                    network: network.into(),
                    ..Connect::default()
                };
                let connected = self.builder.networks.connect(&wanted).await?;
                nameserver = connected.nameserver;
                Netns::Path(connected.netns)
            }
        };
        let folder = self.folder();
        let hostname = self.id.get(..12).unwrap_or_default().to_owned();
        let host_resolvers = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolvers = resolv_conf(
            &HostConfig::default(),
            &host_resolvers,
            netns == Netns::Host,
            nameserver.as_deref(),
        );
        let files = [
            (
                "hosts",
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned(),
            ),
            ("hostname", format!("{hostname}\n")),
            ("resolv.conf", resolvers),
        ];
        let mut mounts = Vec::new();
        for (name, content) in files {
            fs_err::write(folder.join(name), content)?;
            mounts.push(etc_mount(folder, name));
        }
        Ok(RunSpec {
            id: self.id.clone(),
            folder: folder.to_owned(),
            rootfs: self.rootfs.clone(),
            process,
            hostname,
            mounts,
            netns,
            log_path: folder.join("output.log"),
            ..RunSpec::default()
        })
    }
}

fn etc_mount(folder: &Path, name: &str) -> MountSpec {
    let source = folder.join(name);
    let record = MountRecord {
        kind: "bind".into(),
        source: source.display().to_string(),
        destination: format!("/etc/{name}"),
        rw: true,
        propagation: "rprivate".into(),
        ..MountRecord::default()
    };
    MountSpec { record, source }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let (builder, id, folder) = (self.builder.clone(), self.id.clone(), self.folder.take());
        let cleanup = async move {
            // A client that went away has stopped us in the middle: the command may still run.
            let runtime = Arc::clone(&builder.runtime);
            let ended = match folder
                .as_ref()
                .is_some_and(|folder| folder.0.join("step").exists())
            {
                true => runtime
                    .delete(&id)
                    .await
                    .and(builder.networks.disconnect(&id).await),
                false => Ok(()),
            };
            let discarded = builder.images.overlays.discard(&id).map_err(Error::from);
            if let Err(error) = ended.and(discarded) {
                tracing::warn!(%error, id, "a build step was not taken away");
            }
            drop(folder);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn(cleanup)),
            Err(_) => tracing::debug!("the engine ends; the step is taken away at its next start"),
        }
    }
}
