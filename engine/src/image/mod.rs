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
mod part;
mod pull;
mod reference;
mod registry;
mod save;
mod store;
mod tarball;
mod unpack;

pub(crate) use archive::peeked as decompress;
pub use archive::{Loaded, tar_of};
pub use config::RegistryConfig;
pub use error::{Error, Result};
pub use layer::{LayerStore, PendingLayer};
pub use manifest::{Descriptor, HistoryEntry, ImageConfig, Manifest, Platform, RootFs, RunConfig};
pub use overlay::Overlays;
pub(crate) use overlay::exists_below;
pub use part::LocalImages;
pub use pull::ProgressSink;
pub use reference::Reference;
pub(crate) use save::HashingWriter;
pub use store::{Image, ImageMeta, ImageStore, Removed};
pub use tarball::{Written, write_layer};
pub use unpack::{Unpacked, unpack};
