//! Images: references, registries, layers on disk.
//!
//! Deliberately absent: mounting (the runtime does it) and building.

mod archive;
mod arrival;
mod config;
mod error;
mod layer;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

pub use archive::{Loaded, tar_of};
pub use config::RegistryConfig;
pub use error::{Error, Result};
pub use layer::{LayerStore, PendingLayer};
pub use manifest::{Descriptor, HistoryEntry, ImageConfig, Manifest, Platform, RootFs, RunConfig};
pub use pull::ProgressSink;
pub use reference::Reference;
pub use store::{Image, ImageMeta, ImageStore, Removed};
pub use unpack::{Unpacked, unpack};
