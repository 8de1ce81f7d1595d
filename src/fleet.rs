//! A fleet as the autoscaler sees it: its machines with their engines, and its declared count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use time::OffsetDateTime;
use windlass_autoscale::{BoxError, Decision, Member, Roster, Target};
use windlass_deploy::{Deployer, UpOptions};
use windlass_engine_api::Client;
use windlass_machine::{IntentKind, Machine, State};

use crate::cli::Loaded;
use crate::world::World;

/// The machines of a fleet.
pub struct FleetMembers {
    world: World,
    project: String,
    fleet: String,
    /// Since when a machine is ready, by token: a machine of the same name made later is another one. `None`: it was so from the first look.
    ready: Mutex<HashMap<String, Option<Instant>>>,
    looked: AtomicBool,
}

impl FleetMembers {
    /// Those of `fleet` in the store.
    pub fn new(world: World, project: String, fleet: String) -> Self {
        Self {
            world,
            project,
            fleet,
            ready: Mutex::default(),
            looked: AtomicBool::new(false),
        }
    }

    fn ready_for(&self, machine: &Machine) -> Duration {
        let first = !self.looked.load(Ordering::Relaxed);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let since = ready
            .entry(machine.token.clone())
            .or_insert_with(|| (!first).then(Instant::now));
        match since {
            Some(since) => since.elapsed(),
            None => {
                let age = OffsetDateTime::now_utc() - machine.created_at;
                Duration::try_from(age).unwrap_or_default()
            }
        }
    }

    async fn member(&self, machine: &Machine, unfinished: bool) -> Member {
        let serves = machine.engine.is_some() && !unfinished && machine.state != State::Stopped;
        let engine = match serves {
            true => self.world.sessions.engine(machine).await,
            false => {
                return Member {
                    name: machine.name.to_string(),
                    ready_for: None,
                    engine: Err(format!("it is {}", machine.state.word())),
                };
            }
        };
        Member {
            name: machine.name.to_string(),
            ready_for: Some(self.ready_for(machine)),
            engine: engine.map(Client::new).map_err(|error| error.to_string()),
        }
    }
}

#[async_trait]
impl Roster for FleetMembers {
    async fn members(&self) -> Result<Vec<Member>, BoxError> {
        let intents = self.world.store.intents().await?;
        let machines = self.world.store.machines().await?;
        let ours = machines.iter().filter(|machine| {
            machine.project.as_ref() == Some(&self.project)
                && machine.slot.as_ref().is_some_and(|s| s.fleet == self.fleet)
        });
        let leaving = |machine: &Machine| {
            let deletes = |kind| kind == IntentKind::Delete;
            intents
                .iter()
                .any(|i| i.machine == machine.name && deletes(i.kind))
        };
        let unfinished = |machine: &Machine| intents.iter().any(|i| i.machine == machine.name);
        let staying = ours.filter(|machine| !leaving(machine));
        let members = staying.map(|machine| self.member(machine, unfinished(machine)));
        let members = join_all(members).await;
        self.looked.store(true, Ordering::Relaxed);
        Ok(members)
    }
}

/// The fleet's declared count, and how it is brought about.
pub struct FleetTarget {
    /// The pipeline of everybody.
    pub deployer: Deployer,
    /// What is declared.
    pub loaded: Arc<Loaded>,
    /// Which fleet.
    pub fleet: String,
    /// How it is brought up.
    pub options: UpOptions,
}

#[async_trait]
impl Target for FleetTarget {
    async fn desired(&self) -> Result<u32, BoxError> {
        Ok(self
            .deployer
            .count(&self.loaded.project, &self.fleet)
            .await?)
    }

    async fn set_desired(&self, count: u32, _: &Decision) -> Result<(), BoxError> {
        let project = &self.loaded.project.name;
        Ok(self.deployer.set_count(project, &self.fleet, count).await?)
    }

    async fn apply(&self) -> Result<(), BoxError> {
        self.deployer
            .up(&self.loaded.project, &self.options)
            .await?;
        Ok(())
    }
}
