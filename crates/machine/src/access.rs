//! What the lifecycle needs done on a host, so that it knows neither SSH nor the installer.

use std::path::PathBuf;

use async_trait::async_trait;
use windlass_provider::LoginKey;

use crate::{Engine, Machine, MachineName};

/// Keys for a machine that is about to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKeys {
    /// OpenSSH public key line that must be able to log in; empty when the user's own keys are used.
    pub authorized_key: String,
    /// OpenSSH-format private host key to inject, already pinned; `None` to trust on first use.
    pub host_key: Option<String>,
    /// The private key for logging in, relative to the state directory; `None` means the user's own keys.
    pub key_file: Option<PathBuf>,
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKeys")
            .field("authorized_key", &self.authorized_key)
            .field("host_key", &self.host_key.as_ref().map(|_| "…"))
            .field("key_file", &self.key_file)
            .finish()
    }
}

/// Why something could not be done on a host.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct AccessError {
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
    /// What lies below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl AccessError {
    /// An error with a one-sentence message.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            source: None,
        }
    }
}

/// What happens on the host itself. Everything here is idempotent: after a crash it is called again.
#[async_trait]
pub trait HostAccess: Send + Sync {
    /// Makes the machine's keys, or returns those made before.
    async fn prepare(&self, machine: &MachineName, key: &LoginKey)
    -> Result<HostKeys, AccessError>;

    /// Returns when a login over SSH has worked (the host key checked, or shown and pinned); gives up after a bounded time.
    async fn connect(&self, machine: &Machine) -> Result<(), AccessError>;

    /// Puts the engine onto the host and waits until it answers; changes nothing where it is there already.
    async fn install(&self, machine: &Machine) -> Result<Engine, AccessError>;

    /// Forgets keys, pins and logs of a machine that is gone.
    async fn forget(&self, machine: &MachineName) -> Result<(), AccessError>;
}
