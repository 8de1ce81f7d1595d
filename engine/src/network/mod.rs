//! Networks: bridges with a namespace a container, addresses, published ports in the kernel, names.
//! Nothing runs for it but the engine, and nothing stops when the engine does: rules, bridges and namespaces are the kernel's.
//!
//! Deliberately absent: networks over several hosts.

mod conntrack;
mod defaults;
mod dns;
mod interface;
mod ipam;
mod kernel;
mod link;
mod local;
mod message;
mod namespace;
mod netlink;
mod nft;
mod options;
mod others;
mod ports;
mod record;
mod rule;
mod rules;
mod state;
mod subnet;
mod tenancy;
mod wish;

use std::path::PathBuf;

pub use local::LocalNetworks;

/// Where things are, and what the default network is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Durable state.
    pub root: PathBuf,
    /// State until the next boot.
    pub run: PathBuf,
    /// The default network's interface.
    pub bridge: String,
    /// The default network's addresses.
    pub subnet: String,
}

/// Takes back what an engine that is gone for good left in the kernel; it is known by the name of its default bridge.
pub async fn clear(bridge: &str) -> anyhow::Result<()> {
    link::Links::open()?.remove(bridge).await?;
    let mut batch = nft::Batch::default();
    rules::replace(&mut batch, &rules::table(bridge), &[], &[]);
    batch.commit()?;
    others::clear(bridge)
}

/// The names of all nftables tables here.
pub fn tables() -> anyhow::Result<Vec<String>> {
    nft::tables()
}

/// The table of the engine with this default bridge.
pub fn table_of(bridge: &str) -> String {
    rules::table(bridge)
}
