//! The provider contract: what creates and destroys hosts, and the types that cross that line.
//!
//! Deliberately absent: SSH, the store, retries and intents. A provider makes one call to its cloud and
//! reports what happened; the lifecycle in `windlass-machine` decides what that means.

pub mod conformance;
mod driver;
pub mod fake;
mod options;

pub use driver::{Context, Driver};
pub use fake::Fake;
pub use options::{OptionSpec, OptionValues, fill_from_environment, resolve, storable};

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What a provider needs to make one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// Machine name: also the host name and, where the provider has them, a tag.
    pub name: String,
    /// Idempotency token: a second create with the same token returns the first one's instance.
    pub token: String,
    /// OpenSSH public key line that must be able to log in.
    pub authorized_key: String,
    /// OpenSSH-format private host key to install before the first login, where the provider can inject one.
    pub host_key: Option<String>,
}

/// The provider's own view of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Provider-wide unique id.
    pub id: String,
    /// The name given at create.
    pub name: String,
    /// The token given at create, read back from the provider.
    pub token: String,
    /// Power state now.
    pub state: PowerState,
    /// Where SSH is reached from here: address or host name; `None` while the provider has not assigned one.
    pub address: Option<String>,
    /// Address under which other machines of the fleet reach it; `None` means `address`.
    pub private_address: Option<String>,
    /// SSH port.
    pub ssh_port: u16,
    /// SSH login name.
    pub ssh_user: String,
}

/// Power state of an instance, in docker-machine's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Booting.
    Starting,
    /// Up.
    Running,
    /// Shutting down.
    Stopping,
    /// Off, and can be started again.
    Stopped,
    /// The provider says that it failed.
    Error,
    /// The provider does not tell.
    Unknown,
}

/// Why a provider call failed; the kind drives retries.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// What to do about it, if known.
    pub hint: Option<String>,
}

/// The kinds of provider failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Credentials are missing, wrong or expired, or lack a permission (for `local`: not root).
    Auth,
    /// A quota is used up, or the provider has no capacity of that kind.
    Quota,
    /// The thing does not exist.
    NotFound,
    /// The thing exists already, or is in a state that forbids the call.
    Conflict,
    /// Too many calls; try again after this long.
    Throttled(Duration),
    /// The provider cannot do this.
    Unsupported,
    /// An option is missing or has a bad value.
    Invalid,
    /// Anything else; may be tried again.
    Other,
}

impl ProviderError {
    /// An error of `kind` with a one-sentence message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Result of a provider call.
pub type Result<T, E = ProviderError> = std::result::Result<T, E>;

/// Whether a provider's hosts exist only because it made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Create makes a host, delete destroys it, list shows every host with a token of ours.
    Makes,
    /// The host was there before and stays: create only checks, delete touches nothing, list is empty.
    Adopts,
}

/// Which key logs in to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginKey {
    /// A key pair made for the machine; its public half goes into [`CreateRequest::authorized_key`].
    PerMachine,
    /// This private key file, given by the user; copy it into the machine's directory.
    File(PathBuf),
    /// What the user's own `ssh` would use: the agent, `~/.ssh/config`, the default key files.
    Users,
}

/// What creates and destroys hosts.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name that `--driver` takes.
    fn name(&self) -> &'static str;

    /// Makes a host, or returns the one that the same token made earlier.
    async fn create(&self, request: &CreateRequest) -> Result<Instance>;

    /// The instance as it is now; `NotFound` when it is gone.
    async fn get(&self, id: &str) -> Result<Instance>;

    /// All instances of ours, and only ours: orphans are found by comparing this with the store.
    async fn list(&self) -> Result<Vec<Instance>>;

    /// Destroys it and everything create made for it. Deleting what is gone is success.
    async fn delete(&self, id: &str) -> Result<()>;

    /// Whether create makes a host, or takes over one that exists.
    fn ownership(&self) -> Ownership {
        Ownership::Makes
    }

    /// The key that logs in to a host of this provider.
    fn login_key(&self) -> LoginKey {
        LoginKey::PerMachine
    }

    /// Power operations, where the provider has them.
    fn power(&self) -> Option<&dyn Power> {
        None
    }
}

/// Power operations. Each returns when the instance has reached the state; doing what is done is success.
#[async_trait]
pub trait Power: Send + Sync {
    /// Switches on.
    async fn start(&self, id: &str) -> Result<()>;
    /// Shuts down in order.
    async fn stop(&self, id: &str) -> Result<()>;
    /// Stops and starts.
    async fn restart(&self, id: &str) -> Result<()>;
    /// Cuts the power.
    async fn kill(&self, id: &str) -> Result<()>;
}
