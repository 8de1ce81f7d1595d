//! The networks of this host: which there are, and how they come and go.
//!
//! Deliberately absent: what containers have in them (`tenancy`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fs_err as fs;
use tokio::task::JoinHandle;
use windlass_engine_api::types::{CreateNetwork, NetworkInspect};

use super::kernel::{self, Kernel};
use super::link::Links;
use super::record::{self, Record};
use super::state::{self, State};
use super::{Settings, defaults, dns, namespace, wish};
use crate::container::clock;
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::{Connect, Connected, Networks};

/// The networks of this host.
#[derive(Debug)]
pub struct LocalNetworks {
    folder: PathBuf,
    pub(super) namespaces: PathBuf,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) kernel: Kernel,
    pub(super) resolvers: dns::Resolvers,
    /// Containers whose interfaces are being removed: that takes the kernel tens of milliseconds, for which nobody has to wait.
    pub(super) leaving: Mutex<BTreeMap<String, JoinHandle<()>>>,
    /// Who holds it changes which networks there are.
    changes: tokio::sync::Mutex<()>,
}

impl LocalNetworks {
    /// Reads the networks' records; the kernel is not touched before [`Networks::adopt`].
    pub async fn open(settings: Settings) -> anyhow::Result<Self> {
        let folder = settings.root.join("networks");
        let links = Links::open()?;
        let mut records = record::load(&folder)?;
        let default = defaults::settle(&settings, &links, &mut records).await?;
        default.save(&folder)?;
        let mut state = State::default();
        for record in records.into_iter().chain([default]) {
            state.add(record);
        }
        Ok(Self {
            folder,
            namespaces: settings.run.join("netns"),
            kernel: Kernel::new(settings.bridge, links),
            state: Arc::new(Mutex::new(state)),
            resolvers: dns::Resolvers::default(),
            leaving: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let state = self.state();
        state.networks.values().map(|n| n.record.clone()).collect()
    }

    /// Takes back namespaces and pairs of containers that do not run.
    async fn sweep(&self) -> Result<()> {
        let (running, kept): (BTreeSet<String>, BTreeSet<String>) = {
            let state = self.state();
            let leases = state.tenants.values().flat_map(|t| &t.leases);
            let kept = leases.map(|l| l.host.clone()).collect();
            (state.tenants.keys().cloned().collect(), kept)
        };
        match fs::read_dir(&self.namespaces) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if !running.contains(&name) {
                        tracing::info!(container = name, "takes back a network namespace");
                        namespace::remove(&self.namespaces.join(&name))?;
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        let mut bridges = Vec::new();
        for record in self.records().into_iter().filter(Record::has_bridge) {
            if let Some(index) = self.kernel.links.find(&record.bridge).await? {
                bridges.push(index);
                self.state().up.insert(record.id);
            }
        }
        for end in self.kernel.links.ends(&bridges).await? {
            if !kept.contains(&end) {
                self.kernel.links.remove(&end).await?;
            }
        }
        Ok(())
    }

    /// The bridge first, so that no bridge is ever without a record.
    async fn forget(&self, record: &Record) -> Result<()> {
        if record.has_bridge() {
            self.kernel.links.remove(&record.bridge).await?;
            self.state().up.remove(&record.id);
            self.kernel.rules(&self.state).await?;
        }
        record.forget(&self.folder)?;
        self.state().networks.remove(&record.id);
        Ok(())
    }

    /// A bridge that is there already and is not ours is not taken over.
    async fn check_bridge(&self, record: &Record) -> Result<()> {
        if record.driver == record::Driver::Bridge || record.config_only {
            return Ok(());
        }
        match self.kernel.links.find(&record.bridge).await? {
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!(
                "the host has no interface {} for network {}",
                record.bridge, record.name
            ))),
        }
    }
}

#[async_trait]
impl Networks for LocalNetworks {
    fn list(&self) -> Vec<NetworkInspect> {
        let state = self.state();
        let mut all: Vec<_> = state
            .networks
            .values()
            .map(|n| n.record.to_wire())
            .collect();
        let created = all
            .iter()
            .find(|n| n.name == "bridge")
            .map(|n| n.created.clone())
            .unwrap_or_default();
        all.extend(["host", "none"].map(|name| record::without_bridge(name, &created)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn find(&self, reference: &str) -> Result<NetworkInspect> {
        let own = self.state().find(reference).map(Record::to_wire);
        let missing = match own {
            Ok(network) => return Ok(network),
            Err(error) => error,
        };
        let fixed = self.list().into_iter().find(|n| {
            matches!(n.name.as_str(), "host" | "none")
                && (n.name == reference
                    || n.id == reference
                    || !reference.is_empty() && n.id.starts_with(reference))
        });
        fixed.ok_or(missing)
    }

    async fn create(&self, wanted: CreateNetwork) -> Result<String> {
        let _one = self.changes.lock().await;
        let routed = self.kernel.links.routed(None).await?;
        let record = {
            let state = self.state();
            if state
                .networks
                .values()
                .any(|n| n.record.name == wanted.name)
                && wanted.name != "bridge"
            {
                return Err(Error::conflict(format!(
                    "network with name {} already exists",
                    wanted.name
                )));
            }
            let ground = wish::Ground {
                records: state.networks.values().map(|n| &n.record).collect(),
                routed,
                seed: &self.folder.display().to_string(),
            };
            wish::record(wanted, &ground, clock::now())?
        };
        self.check_bridge(&record).await?;
        record.save(&self.folder)?;
        self.state().add(record.clone());
        if let Err(error) = self.kernel.ensure(&self.state, &record).await {
            self.forget(&record).await.ok();
            return Err(error);
        }
        Ok(record.id)
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        let _one = self.changes.lock().await;
        let record = self.state().find(reference)?.clone();
        if record.is_default() {
            return Err(Error::new(
                Kind::Forbidden,
                "bridge is a pre-defined network and cannot be removed",
            ));
        }
        self.all_left().await;
        {
            let state = self.state();
            let inside: Vec<String> = state.inside(&record.id).map(|(c, _)| c.clone()).collect();
            if !inside.is_empty() {
                return Err(state::in_use(&record, &inside));
            }
            let borrows = |r: &Record| r.config_from == record.name;
            if record.config_only && state.networks.values().any(|n| borrows(&n.record)) {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!("configuration network \"{}\" is in use", record.name),
                ));
            }
        }
        self.forget(&record).await
    }

    async fn connect(&self, wanted: &Connect) -> Result<Connected> {
        self.connect_all(wanted).await
    }

    async fn join(&self, wanted: &Connect) -> Result<Connected> {
        self.join_more(wanted).await
    }

    async fn leave(&self, container: &str, network: &str) -> Result<Connected> {
        self.leave_one(container, network).await
    }

    fn renamed(&self, wanted: &Connect) {
        self.rename(wanted);
    }

    async fn disconnect(&self, container: &str) -> Result<()> {
        self.disconnect_all(container).await
    }

    async fn adopt(&self, running: &[(Connect, Connected)]) -> Result<()> {
        self.all_left().await;
        self.state().tenants.clear();
        let ends = self.kernel.links.names().await?;
        for (wanted, connected) in running {
            self.remember(wanted, connected, &ends);
        }
        self.sweep().await?;
        match self.kernel.rules(&self.state).await {
            // Where the kernel has no nftables, containers on the host's network still work; the first on a bridge will tell.
            Err(error) if self.state().bridges().is_empty() => {
                tracing::warn!(%error, "no rules for networks");
            }
            done => done?,
        }
        for (wanted, _) in running {
            if let Err(error) = self.resolver(&wanted.container).await {
                let container = &wanted.container;
                tracing::warn!(container, %error, "names are not resolved in it");
            }
        }
        Ok(())
    }

    async fn rest(&self) -> Result<()> {
        self.all_left().await;
        {
            let mut state = self.state();
            if !state.tenants.is_empty() {
                return Ok(());
            }
            state.up.clear();
        }
        for record in self.records().into_iter().filter(Record::has_bridge) {
            self.kernel.links.remove(&record.bridge).await?;
        }
        self.kernel.rules(&self.state).await?;
        self.kernel.clear_others().await
    }
}

/// The host's end of an endpoint's pair: an older engine named it by the container.
pub(super) fn end_of(container: &str, endpoint: &str, ends: &BTreeSet<String>) -> String {
    let older = kernel::host_end(container);
    if ends.contains(&older) {
        older
    } else {
        kernel::host_end(endpoint)
    }
}
