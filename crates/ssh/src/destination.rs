//! Where a session goes, with what keys, and what is known about the host already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::ClientConfig;

/// Everything a session needs to know; the caller has read environment and home for it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Address, name, or a `Host` of the client configuration.
    pub host: String,
    /// Overrides the client configuration; 22 where neither says.
    pub port: Option<u16>,
    /// Overrides the client configuration; `root` where neither says.
    pub user: Option<String>,
    /// Private keys to try before all others.
    pub keys: Vec<PathBuf>,
    /// The agent's socket (`SSH_AUTH_SOCK`).
    pub agent: Option<PathBuf>,
    /// `~/.ssh/config`.
    pub config: ClientConfig,
    /// The machine's own file of pinned keys; made at the first login.
    pub known_hosts: PathBuf,
    /// `~/.ssh/known_hosts`: what it knows of the host has to match.
    pub user_known_hosts: Option<PathBuf>,
    /// For the connection and the handshake, at each hop.
    pub connect_timeout: Duration,
    /// How long the host may say nothing before it is asked; after three unanswered questions the connection is given up.
    pub alive_interval: Duration,
}

impl Destination {
    /// A destination with nothing but a host and a file for its key.
    pub fn new(host: impl Into<String>, known_hosts: impl AsRef<Path>) -> Self {
        Self {
            host: host.into(),
            port: None,
            user: None,
            keys: Vec::new(),
            agent: None,
            config: ClientConfig::default(),
            known_hosts: known_hosts.as_ref().to_owned(),
            user_known_hosts: None,
            connect_timeout: Duration::from_secs(15),
            alive_interval: Duration::from_secs(15),
        }
    }
}
