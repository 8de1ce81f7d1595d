//! The lifecycle of a machine: create, power, upgrade, remove; each step idempotent and written down before it is taken.
//!
//! Killed at any point, the same call again goes on where the last one stopped. Deliberately absent: what a provider or a
//! host does in a step ([`windlass_provider::Provider`], [`HostAccess`]), and which machines there should be.

mod create;
mod error;
mod orphans;
mod power;
mod remove;
mod retry;
mod upgrade;

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use windlass_provider::OptionValues;

use crate::{
    Event, HostAccess, Lock, Machine, MachineName, Phase, Reporter, Silent, Slot, Step, Store,
    StoreError, Write,
};

pub use error::LifecycleError;
pub use orphans::Orphans;
pub use power::PowerAction;
pub use remove::Remove;
pub use upgrade::Upgraded;

type Result<T, E = LifecycleError> = std::result::Result<T, E>;

/// What is asked of [`Lifecycle::create`].
#[derive(Clone, Debug)]
pub struct CreateSpec {
    /// Name of the new machine.
    pub name: MachineName,
    /// Options to keep in the record: see [`windlass_provider::storable`].
    pub options: OptionValues,
    /// Its place in a fleet.
    pub slot: Option<Slot>,
    /// The project that asks.
    pub project: Option<String>,
    /// Labels for placement.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl CreateSpec {
    /// A machine outside any project.
    pub fn new(name: MachineName, options: OptionValues) -> Self {
        Self {
            name,
            options,
            slot: None,
            project: None,
            labels: Default::default(),
        }
    }
}

/// Clock and ids, injected so that tests are seeded.
pub trait Ambience: Send + Sync {
    /// The time now.
    fn now(&self) -> OffsetDateTime;
    /// A token that nobody has used: letters and digits, at most 32.
    fn token(&self) -> String;
}

/// The real clock and random tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Ambience for System {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn token(&self) -> String {
        format!("{:032x}", rand::random::<u128>())
    }
}

/// Told at every point where a crash must do no harm. Tests return an error there, which stops everything at once, as `kill -9` does.
pub trait Steps: Send + Sync {
    /// The lifecycle has reached `point`.
    fn reach(&self, point: Point) -> std::result::Result<(), Crash>;
}

/// A crash at a point, made by a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash;

/// Points between two effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Nothing is written yet.
    Start,
    /// The intent is durable.
    Intended,
    /// Keys are made.
    Prepared,
    /// The provider has answered a create, and the record does not say so.
    Made,
    /// The instance id is in the record.
    Recorded,
    /// The host has an address.
    Booted,
    /// SSH has answered, and the record does not say so.
    Connected,
    /// The engine is on it, and the record does not say so.
    Installed,
    /// The provider has deleted the host, and the record is still there.
    Deleted,
    /// Keys are forgotten, and the record is still there.
    Forgotten,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Start,
        Self::Intended,
        Self::Prepared,
        Self::Made,
        Self::Recorded,
        Self::Booted,
        Self::Connected,
        Self::Installed,
        Self::Deleted,
        Self::Forgotten,
    ];
}

/// Goes on everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Onward;

impl Steps for Onward {
    fn reach(&self, _: Point) -> Result<(), Crash> {
        Ok(())
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For another windlass that works on the same machine.
    pub lock: Duration,
    /// From create or start to running with an address.
    pub boot: Duration,
    /// Between two looks at an instance that boots.
    pub poll: Duration,
    /// Tries of a provider call that fails in a way that may pass.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(2),
            boot: Duration::from_secs(600),
            poll: Duration::from_secs(1),
            tries: 5,
        }
    }
}

/// Makes, switches, upgrades and removes machines. Cheap to clone; several machines at once are fine.
#[derive(Clone)]
pub struct Lifecycle {
    /// Where records and intents are kept.
    pub store: Arc<dyn Store>,
    /// How hosts are reached.
    pub access: Arc<dyn HostAccess>,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
    /// Crash points, for tests.
    pub steps: Arc<dyn Steps>,
    /// Clock and ids.
    pub ambience: Arc<dyn Ambience>,
    /// How long to wait.
    pub patience: Patience,
}

impl Lifecycle {
    /// A lifecycle that tells nobody; set the other fields as needed.
    pub fn new(store: Arc<dyn Store>, access: Arc<dyn HostAccess>) -> Self {
        Self {
            store,
            access,
            reporter: Arc::new(Silent),
            steps: Arc::new(Onward),
            ambience: Arc::new(System),
            patience: Patience::default(),
        }
    }

    /// The lock of one machine: held through every change of it.
    pub async fn lock(&self, name: &MachineName) -> Result<Lock, StoreError> {
        self.store
            .lock(&format!("machine.{name}"), self.patience.lock)
            .await
    }

    /// Changes a record that others may be changing too: reads, applies `change`, writes, and again when it was stale.
    pub async fn amend(
        &self,
        name: &MachineName,
        change: impl Fn(&mut Machine),
    ) -> Result<Machine> {
        loop {
            let mut machine = self.existing(name).await?;
            change(&mut machine);
            match self.store.update(&machine).await {
                Err(StoreError::Stale(_)) => {}
                other => return Ok(other?),
            }
        }
    }

    async fn existing(&self, name: &MachineName) -> Result<Machine> {
        Ok(self
            .store
            .machine(name)
            .await?
            .ok_or_else(|| StoreError::NotFound(name.clone()))?)
    }

    /// Writes the record and others with it, and leaves the new generation in it.
    async fn write(&self, machine: &mut Machine, more: Vec<Write>) -> Result<()> {
        let mut writes = vec![Write::Update(Box::new(machine.clone()))];
        writes.extend(more);
        self.store.commit(writes).await?;
        machine.generation += 1;
        Ok(())
    }

    fn reach(&self, point: Point) -> Result<()> {
        self.steps
            .reach(point)
            .map_err(|Crash| LifecycleError::Crashed(point))
    }

    fn report(&self, machine: &MachineName, step: Step, phase: Phase) {
        self.reporter.report(&Event {
            machine: machine.clone(),
            step,
            phase,
        });
    }

    /// Reports a step around `work`.
    async fn step<T>(
        &self,
        machine: &MachineName,
        step: Step,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.report(machine, step, Phase::Started);
        let done = work.await;
        let phase = match &done {
            Ok(_) => Phase::Done,
            Err(error) => Phase::Failed(error.to_string()),
        };
        self.report(machine, step, phase);
        done
    }
}
