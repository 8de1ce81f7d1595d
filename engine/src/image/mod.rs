//! Images: references, registries, layers on disk.
//!
//! Deliberately absent: building, and what a container is.

mod archive;
mod arrival;
mod config;
mod error;
mod layer;
mod manifest;
mod overlay;
mod pull;
mod reference;
mod registry;
mod save;
mod store;
mod tarball;
mod unpack;

pub use archive::{Loaded, tar_of};
pub use config::RegistryConfig;
pub use error::{Error, Result};
pub use layer::{LayerStore, PendingLayer};
pub use manifest::{Descriptor, HistoryEntry, ImageConfig, Manifest, Platform, RootFs, RunConfig};
pub use overlay::Overlays;
pub use pull::ProgressSink;
pub use reference::Reference;
pub use store::{Image, ImageMeta, ImageStore, Removed};
pub use tarball::{Written, write_layer};
pub use unpack::{Unpacked, unpack};
