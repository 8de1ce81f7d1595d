//! The crates wired together for one run: store, providers, hosts, progress.
//!
//! Deliberately absent: what a command does with them, and which providers there are (`registry.rs`).

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use windlass_deploy::Deployer;
use windlass_machine::{Lifecycle, Machine, MachineName, SqliteStore, Store, StoreError};
use windlass_provider::{Context, OptionSpec, Provider, fill_from_environment};

use crate::access::Access;
use crate::environment;
use crate::error::{CommandError, Result};
use crate::hosts::StoreHosts;
use crate::progress::Progress;
use crate::registry;
use crate::sessions::Sessions;

/// Everything a command works with. Cheap to clone.
#[derive(Clone)]
pub struct World {
    /// The state directory.
    pub home: PathBuf,
    /// Where the binaries for hosts lie.
    pub binaries: Option<PathBuf>,
    /// Machines, intents, releases.
    pub store: Arc<dyn Store>,
    /// Makes, switches and removes machines.
    pub lifecycle: Lifecycle,
    /// One SSH session a host.
    pub sessions: Arc<Sessions>,
    /// Who is told.
    pub progress: Arc<Progress>,
}

impl World {
    /// Opens the store of the user.
    pub fn open(progress: &Arc<Progress>) -> Result<Self> {
        let home = environment::state_folder()?;
        let binaries = environment::binaries();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&home)?);
        let sessions = Arc::new(Sessions::new(home.clone(), progress.clone()));
        let access = Access {
            binaries: binaries.clone(),
            sessions: sessions.clone(),
            progress: progress.clone(),
        };
        let mut lifecycle = Lifecycle::new(store.clone(), Arc::new(access));
        lifecycle.reporter = progress.clone();
        Ok(Self {
            home,
            binaries,
            store,
            lifecycle,
            sessions,
            progress: progress.clone(),
        })
    }

    /// What providers are given besides their options.
    pub fn context(&self) -> Context {
        Context {
            state: self.home.clone(),
            binaries: self.binaries.clone(),
        }
    }

    /// Brings projects up and down.
    pub fn deployer(&self) -> Deployer {
        let hosts = StoreHosts {
            world: self.clone(),
        };
        Deployer::new(Arc::new(hosts), self.store.clone(), self.progress.clone())
    }

    /// The provider that made a machine, from its record; credentials come from the environment again.
    pub fn provider_of(&self, machine: &Machine) -> Result<Box<dyn Provider>> {
        let driver = registry::driver(&machine.driver)?;
        let mut values = machine.options.clone();
        let secrets: Vec<OptionSpec> = driver
            .options
            .iter()
            .filter(|o| o.secret)
            .copied()
            .collect();
        fill_from_environment(&secrets, &mut values, environment::variable);
        driver.build(&values, &self.context()).map_err(|error| {
            CommandError::failed(format!(
                "machine `{}`: cannot use driver `{}`",
                machine.name, machine.driver
            ))
            .because(&error)
        })
    }

    /// A machine of the store.
    pub async fn machine(&self, name: &MachineName) -> Result<Machine> {
        let found = self.store.machine(name).await?;
        Ok(found.ok_or_else(|| StoreError::NotFound(name.clone()))?)
    }

    /// The names given, or the active machine: `$WINDLASS_MACHINE`, else the only one.
    pub async fn named_or_active(&self, names: Vec<MachineName>) -> Result<Vec<MachineName>> {
        if !names.is_empty() {
            return Ok(names);
        }
        if let Some(active) = environment::variable("WINDLASS_MACHINE") {
            return match MachineName::new(active) {
                Ok(name) => Ok(vec![name]),
                Err(error) => Err(CommandError::input("WINDLASS_MACHINE").because(&error)),
            };
        }
        let machines = self.store.machines().await?;
        match machines.as_slice() {
            [only] => Ok(vec![only.name.clone()]),
            [] => Err(
                CommandError::input("no machine is named, and there is none")
                    .hint("make one with `windlass create`"),
            ),
            several => {
                let names: Vec<_> = several.iter().map(|m| m.name.as_str()).collect();
                Err(
                    CommandError::input("no machine is named, and there are several")
                        .hint(format!("name one of {}", names.join(", ")))
                        .hint("or set WINDLASS_MACHINE, as `windlass env` does"),
                )
            }
        }
    }

    /// Like [`World::named_or_active`], for one.
    pub async fn one_or_active(&self, name: Option<MachineName>) -> Result<MachineName> {
        match name {
            Some(name) => Ok(name),
            None => Ok(self.named_or_active(Vec::new()).await?.remove(0)),
        }
    }

    /// Does `work` for several machines side by side, and gives all failures together.
    pub async fn each(
        &self,
        names: &[MachineName],
        work: impl AsyncFn(&MachineName) -> Result<()>,
    ) -> Result<()> {
        let mut distinct = names.to_vec();
        distinct.sort();
        distinct.dedup();
        let done = join_all(distinct.iter().map(|name| work(name))).await;
        let failures = done.into_iter().filter_map(Result::err);
        CommandError::several(failures).map_or(Ok(()), Err)
    }

    /// Prints a result on standard output; `false` when nobody reads it any more.
    pub fn print(&self, text: &str) -> bool {
        self.progress.print(text)
    }
}
