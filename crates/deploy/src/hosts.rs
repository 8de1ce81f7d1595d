//! What deploying needs of machines, so that it knows neither providers nor SSH.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_compose::model::Fleet;
use windlass_engine_api::Dial;
use windlass_machine::{MachineName, Slot};

/// Any error; its message is for people.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A machine that deploying may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: MachineName,
    /// Its place in a fleet.
    pub slot: Option<Slot>,
    /// The project that made it; `None`: made by `windlass create`, and never removed by a project.
    pub project: Option<String>,
    /// Labels for placement.
    pub labels: BTreeMap<String, String>,
    /// Where everybody reaches it.
    pub address: Option<String>,
    /// Where other machines reach it, when that is not its [`Host::address`].
    pub private_address: Option<String>,
    /// Its create is finished and it is not stopped.
    pub ready: bool,
    /// Something of it was interrupted: `create` or `remove` with its name goes on with it.
    pub unfinished: bool,
}

/// Makes, removes and reaches machines. Implemented over the lifecycle and SSH by the command line, and by a simulation in tests.
#[async_trait]
pub trait Hosts: Send + Sync {
    /// All machines of the store, ready or not.
    async fn list(&self) -> Result<Vec<Host>, BoxError>;
    /// Makes a machine of a fleet, or goes on with an interrupted one; returns when its engine answers.
    async fn create(
        &self,
        project: &str,
        fleet: &Fleet,
        name: &MachineName,
        slot: &Slot,
    ) -> Result<Host, BoxError>;
    /// Destroys a machine; gone already is success.
    async fn remove(&self, name: &MachineName) -> Result<(), BoxError>;
    /// The machine's engine, over its SSH session.
    async fn engine(&self, name: &MachineName) -> Result<Arc<dyn Dial>, BoxError>;
    /// A unix socket on the machine.
    async fn socket(&self, name: &MachineName, path: &str) -> Result<Arc<dyn Dial>, BoxError>;
    /// The static `windlass-ingress` for an architecture as Docker's `info` names it (`x86_64`, `aarch64`).
    async fn ingress_binary(&self, architecture: &str) -> Result<Vec<u8>, BoxError>;
}
