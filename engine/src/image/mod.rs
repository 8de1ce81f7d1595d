//! Images: references, registries, layers on disk.
//!
//! Deliberately absent: mounting (the runtime does it) and building.

mod config;
mod error;
mod layer;
mod manifest;
mod reference;
mod unpack;

pub use config::RegistryConfig;
pub use error::{Error, Result};
pub use layer::{LayerStore, PendingLayer};
pub use manifest::{Descriptor, HistoryEntry, ImageConfig, Manifest, Platform, RootFs, RunConfig};
pub use reference::Reference;
pub use unpack::{Unpacked, unpack};
