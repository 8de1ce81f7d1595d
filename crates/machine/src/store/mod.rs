//! The store: machines, intents and releases, durable before any outside effect.
//!
//! Deliberately absent: secrets, keys and absolute paths; how a record changes, which is the lifecycle's business.

mod lock;
mod schema;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Machine, MachineName};

pub use lock::Lock;
pub use sqlite::SqliteStore;

/// What is about to happen outside, written before it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Idempotency token; for a create it is also the tag on the instance.
    pub token: String,
    /// Which machine.
    pub machine: MachineName,
    /// What is meant.
    pub kind: IntentKind,
    /// How far it has got.
    pub step: IntentStep,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
}

/// What an intent means to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    /// Make a machine.
    Create,
    /// Destroy one.
    Delete,
}

/// The last thing of an intent that is known to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentStep {
    /// Written down; the provider may or may not have been asked.
    Begun,
    /// The provider has made the host, and its id is in the record.
    Created,
    /// It has answered SSH.
    Connected,
}

/// One applied version of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Counts up within the store.
    pub id: u64,
    /// The project.
    pub project: String,
    /// What was declared, normalised.
    pub declared: serde_json::Value,
    /// When it was applied.
    #[serde(with = "time::serde::rfc3339")]
    pub applied_at: OffsetDateTime,
}

/// One change; [`Store::commit`] makes several of them at once or none.
#[derive(Clone, Debug)]
pub enum Write {
    /// A machine that is not there yet.
    Insert(Box<Machine>),
    /// A machine as changed from the generation that it carries.
    Update(Box<Machine>),
    /// Removes the machine, if it still has this generation.
    Remove(MachineName, u64),
    /// Writes an intent, which replaces one with the same token.
    Put(Intent),
    /// Ends every intent of a machine.
    EndAll(MachineName),
}

/// Why the store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A second machine of that name.
    #[error("machine `{0}` exists already")]
    Exists(MachineName),
    /// No such machine.
    #[error("there is no machine `{0}`")]
    NotFound(MachineName),
    /// Somebody else has changed the record since it was read.
    #[error("machine `{0}` was changed by another process")]
    Stale(MachineName),
    /// Somebody else holds the lock.
    #[error("`{name}` is in use by another windlass ({holder})")]
    Locked {
        /// The lock.
        name: String,
        /// Process id and host, where they are known.
        holder: String,
    },
    /// Written by a newer windlass.
    #[error("{path} was written by a newer windlass (schema {found}, this one knows {known})")]
    Newer {
        /// The file.
        path: String,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The folder is not the store's alone.
    #[error(
        "{0} holds other things and is open to others, and the state directory is closed to all but its owner"
    )]
    Shared(String),
    /// A record that cannot be read.
    #[error("{what} in the store is damaged")]
    Damaged {
        /// Which record.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// SQLite failed.
    #[error("cannot {doing} in {path}")]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system failed.
    #[error("cannot open the store")]
    Io(#[from] std::io::Error),
}

/// Where machines, intents and releases are kept. Writes are durable when the call returns.
#[async_trait]
pub trait Store: Send + Sync {
    /// All machines, by name.
    async fn machines(&self) -> Result<Vec<Machine>, StoreError>;

    /// One machine.
    async fn machine(&self, name: &MachineName) -> Result<Option<Machine>, StoreError>;

    /// All intents, oldest first.
    async fn intents(&self) -> Result<Vec<Intent>, StoreError>;

    /// Makes all changes in one transaction, or none.
    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError>;

    /// Takes a named lock, waiting up to `wait`. It is released by dropping it, and by the end of the process however it ends.
    async fn lock(&self, name: &str, wait: Duration) -> Result<Lock, StoreError>;

    /// Notes an applied version of a project.
    async fn add_release(
        &self,
        project: &str,
        declared: &serde_json::Value,
        applied_at: OffsetDateTime,
    ) -> Result<Release, StoreError>;

    /// The last `limit` releases of a project, newest first.
    async fn releases(&self, project: &str, limit: usize) -> Result<Vec<Release>, StoreError>;

    /// The machines that a fleet of a project shall have, if that was ever decided.
    async fn count(&self, project: &str, fleet: &str) -> Result<Option<u32>, StoreError>;

    /// Decides how many machines a fleet shall have.
    async fn set_count(&self, project: &str, fleet: &str, count: u32) -> Result<(), StoreError>;

    /// Forgets what was decided of a project's fleets.
    async fn forget_counts(&self, project: &str) -> Result<(), StoreError>;

    /// The intent of one machine, if there is one; a delete outranks the create that it undoes.
    async fn intent(&self, name: &MachineName) -> Result<Option<Intent>, StoreError> {
        let mut found: Vec<_> = self
            .intents()
            .await?
            .into_iter()
            .filter(|intent| intent.machine == *name)
            .collect();
        found.sort_by_key(|intent| intent.kind == IntentKind::Create);
        Ok(found.into_iter().next())
    }

    /// Updates one machine, and returns it with its new generation.
    async fn update(&self, machine: &Machine) -> Result<Machine, StoreError> {
        self.commit(vec![Write::Update(Box::new(machine.clone()))])
            .await?;
        Ok(Machine {
            generation: machine.generation + 1,
            ..machine.clone()
        })
    }
}
