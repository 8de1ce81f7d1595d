//! Containers: their records, their life, their streams.
//!
//! Deliberately absent: how images, processes, networks and volumes work; see `parts`.

mod adopt;
mod attach;
pub mod clock;
pub mod commit;
mod create;
pub mod error;
pub mod events;
mod exec;
pub mod extract;
pub mod files;
mod health;
mod inspect;
mod lifecycle;
mod links;
mod list;
pub mod log_options;
pub(crate) mod logs;
mod merge;
mod mounts;
mod names;
mod networking;
pub mod pack;
pub mod parts;
mod platform;
mod prepare;
mod probe;
pub mod record;
mod registry;
pub mod removal;
pub mod resources;
mod restart;
mod root;
pub mod rooted;
pub mod security;
pub(crate) mod signal;
mod sources;
mod stats;
mod stop;
mod supervise;
mod top;
mod update;
pub mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use windlass_engine_api::types::{HostConfig, LogConfig};

pub use attach::AttachTo;
pub use exec::{Exec, already};
pub use list::{Query, Sizes};
pub use logs::{LogQuery, LogReader, Tail, path as log_path};
pub use mounts::MountRecord;
pub(crate) use prepare::resolv_conf;
pub use registry::{Container, Registry};
pub use root::Root;
pub use stop::{Removal, WaitFor};
pub use update::Change;

use crate::userns::Remap;

/// What holds for the whole engine.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Durable state.
    pub root: PathBuf,
    /// State until the next boot.
    pub run: PathBuf,
    /// Stable over restarts.
    pub engine_id: String,
    /// Which build this is.
    pub build_id: String,
    /// This boot of the host.
    pub boot_id: String,
    /// Processors of the host.
    pub cpus: usize,
    /// The log of containers that ask for none.
    pub log: LogConfig,
    /// The settings file.
    pub config: crate::config::Config,
}

/// The engine: containers and the parts they are made of.
pub struct Engine {
    /// What holds for all of it.
    pub settings: Settings,
    /// The containers.
    pub containers: Registry,
    /// The bus of events.
    pub events: events::EventBus,
    /// Images.
    pub images: Arc<dyn parts::Images>,
    /// Processes.
    pub runtime: Arc<dyn parts::Runtime>,
    /// Networks.
    pub networks: Arc<dyn parts::Networks>,
    /// Volumes.
    pub volumes: Arc<dyn parts::Volumes>,
    /// Builds.
    pub builder: Arc<dyn parts::Builder>,
    /// Containers have user namespaces.
    pub remap: Option<Arc<Remap>>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
}

/// The parts, for [`Engine::new`].
pub struct Parts {
    /// Images.
    pub images: Arc<dyn parts::Images>,
    /// Processes.
    pub runtime: Arc<dyn parts::Runtime>,
    /// Networks.
    pub networks: Arc<dyn parts::Networks>,
    /// Volumes.
    pub volumes: Arc<dyn parts::Volumes>,
    /// Builds.
    pub builder: Arc<dyn parts::Builder>,
    /// User namespaces.
    pub remap: Option<Arc<Remap>>,
}

impl Engine {
    /// Reads the containers' records; nothing is started or adopted yet, see [`Engine::adopt`].
    pub fn new(settings: Settings, parts: Parts) -> anyhow::Result<Arc<Self>> {
        let containers = Registry::load(&settings.root, &settings.run)?;
        Ok(Arc::new(Self {
            settings,
            containers,
            events: events::EventBus::default(),
            images: parts.images,
            runtime: parts.runtime,
            networks: parts.networks,
            volumes: parts.volumes,
            builder: parts.builder,
            remap: parts.remap,
            execs: Mutex::default(),
        }))
    }

    /// How a container's ids are shifted; `None`: it has the host's.
    fn remap_of(&self, host: &HostConfig) -> Option<Arc<Remap>> {
        let remap = self.remap.clone();
        remap.filter(|_| host.userns_mode != "host")
    }

    /// Tells everybody what happened to a container.
    fn tell(&self, container: &Container, action: &str) {
        self.events
            .publish("container", action, &container.id, container.attributes());
    }

    /// An image's id, if it is there.
    pub fn image_id(&self, reference: &str) -> Option<String> {
        self.images.find(reference).ok().map(|image| image.id)
    }
}
