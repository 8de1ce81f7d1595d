//! Images: references, registries, layers on disk.
//!
//! Deliberately absent: building, and what a container is.

mod archive;
mod arrival;
mod commit;
mod config;
mod decompress;
mod difference;
mod entries;
mod error;
mod layer;
mod listing;
mod manifest;
mod names;
mod original;
mod outage;
mod overlay;
mod part;
mod pattern;
mod pipeline;
mod pull;
mod push;
mod reference;
mod registry;
mod removal;
mod save;
mod search;
mod sparse;
mod store;
mod tarball;
mod unpack;
mod upload;
mod views;

pub use archive::{Loaded, tar_of};
pub use config::RegistryConfig;
pub(crate) use decompress::peeked as decompress;
pub use error::{Error, Result};
pub use layer::{LayerStore, PendingLayer};
pub use manifest::{Descriptor, HistoryEntry, ImageConfig, Manifest, Platform, RootFs, RunConfig};
pub(crate) use outage::describe;
pub use overlay::Overlays;
pub(crate) use overlay::exists_below;
pub use part::LocalImages;
pub use pull::ProgressSink;
pub use reference::Reference;
pub(crate) use registry::{fetch, http_client};
pub use removal::{ImageUser, Removal, RemovalOptions, Removed, Told};
pub(crate) use save::HashingWriter;
pub use store::{Image, ImageMeta, ImageStore, Pins};
pub use tarball::{Written, write_layer};
pub use unpack::{Unpacked, unpack};
