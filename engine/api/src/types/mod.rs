//! The wire types, named as in Docker's API description.

mod container;
mod event;
mod exec;
mod host_config;
mod image;
mod inspect;
mod network;
mod stats;
mod system;
mod volume;

pub use container::*;
pub use event::*;
pub use exec::*;
pub use host_config::*;
pub use image::*;
pub use inspect::*;
pub use network::*;
pub use stats::*;
pub use system::*;
pub use volume::*;

use std::collections::BTreeMap;

/// Docker's `{}` as the value of a set-like map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}

/// Name → value.
pub type StringMap = BTreeMap<String, String>;

/// Container port (`80/tcp`) → where it is published.
pub type PortMap = BTreeMap<String, Vec<PortBinding>>;
