//! The record of a machine, as the store keeps it: no secret and no absolute path.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use windlass_provider::{Instance, OptionValues};

use crate::MachineName;

/// What is known of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: MachineName,
    /// The provider that makes it: `generic`, `local`, …
    pub driver: String,
    /// Option values without secrets and without paths.
    #[serde(default)]
    pub options: OptionValues,
    /// The token of its create, which is also a tag on the instance.
    pub token: String,
    /// The provider's id, from the moment create answered.
    pub instance_id: Option<String>,
    /// Where SSH is reached.
    pub address: Option<String>,
    /// Where other machines of the fleet reach it; `None` means `address`.
    pub private_address: Option<String>,
    /// SSH login name.
    pub ssh_user: String,
    /// SSH port.
    pub ssh_port: u16,
    /// Private key, relative to the state directory; `None` means the user's own keys.
    pub key_file: Option<PathBuf>,
    /// Where it is in its life.
    pub state: State,
    /// Its place in a fleet.
    pub slot: Option<Slot>,
    /// The project that made it; `None` for `create` on the command line.
    pub project: Option<String>,
    /// Labels, for placement constraints.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The engine on it, once there is one.
    pub engine: Option<Engine>,
    /// Counts the writes of this record; the store refuses an update made from an older one.
    #[serde(skip)]
    pub generation: u64,
}

/// A machine's place in a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The fleet.
    pub fleet: String,
    /// Its number there, from 1.
    pub ordinal: u32,
}

/// The engine on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Ours, or one that was there.
    pub kind: EngineKind,
    /// Its version.
    pub version: String,
    /// Hex SHA-256 of the binary, where it is ours.
    pub digest: Option<String>,
    /// Its socket on the host.
    pub socket: String,
}

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `windlassd`, installed by us.
    Bundled,
    /// A Docker that was on the host; never upgraded or removed by us.
    Adopted,
}

/// Where a machine is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is", content = "reason")]
pub enum State {
    /// The provider is asked for it.
    Creating,
    /// It exists, and does not answer SSH yet.
    Booting,
    /// It answers; the engine goes onto it.
    Installing,
    /// In use.
    Ready,
    /// Being started.
    Starting,
    /// Being shut down.
    Stopping,
    /// Off.
    Stopped,
    /// Being destroyed.
    Deleting,
    /// A step failed, for this reason; the same command again goes on from there.
    Error(String),
}

impl State {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Booting => "booting",
            Self::Installing => "installing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Deleting => "deleting",
            Self::Error(_) => "error",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(reason) => write!(f, "error: {reason}"),
            other => f.write_str(other.word()),
        }
    }
}

impl Machine {
    /// Takes over what the provider says of it.
    pub fn observe(&mut self, instance: &Instance) {
        self.instance_id = Some(instance.id.clone());
        if instance.address.is_some() {
            self.address.clone_from(&instance.address);
            self.private_address.clone_from(&instance.private_address);
        }
        self.ssh_user.clone_from(&instance.ssh_user);
        self.ssh_port = instance.ssh_port;
    }

    /// Where other machines reach it.
    pub fn reachable_at(&self) -> Option<&str> {
        self.private_address.as_deref().or(self.address.as_deref())
    }
}
