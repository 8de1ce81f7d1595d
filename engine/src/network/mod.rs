//! Networks: bridges with a namespace a container, addresses, published ports in the kernel, names.
//! Nothing runs for it but the engine, and nothing stops when the engine does: rules, bridges and namespaces are the kernel's.
//!
//! Deliberately absent: IPv6, a container in several networks, other drivers than `bridge`.

mod conntrack;
mod defaults;
mod dns;
mod kernel;
mod link;
mod namespace;
mod netlink;
mod nft;
mod ports;
mod record;
mod rule;
mod rules;
mod state;
mod subnet;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fs_err as fs;
use tokio::task::JoinHandle;
use windlass_engine_api::types::{CreateNetwork, EndpointSettings, NetworkInspect, PortMap};

use crate::container::clock;
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::{Connect, Connected, Networks};
use kernel::{Kernel, Publishes};
use link::{Endpoint, Links};
use record::Record;
use rule::Protocol;
use state::{Lease, State};

/// Where things are, and what the default network is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Durable state.
    pub root: PathBuf,
    /// State until the next boot.
    pub run: PathBuf,
    /// The default network's interface.
    pub bridge: String,
    /// The default network's addresses.
    pub subnet: String,
}

/// Takes back what an engine that is gone for good left in the kernel; it is known by the name of its default bridge.
pub async fn clear(bridge: &str) -> anyhow::Result<()> {
    Links::open()?.remove(bridge).await?;
    rules::clear(bridge)
}

/// The names of all nftables tables here.
pub fn tables() -> anyhow::Result<Vec<String>> {
    nft::tables()
}

/// The table of the engine with this default bridge.
pub fn table_of(bridge: &str) -> String {
    rules::table(bridge)
}

/// The networks of this host.
#[derive(Debug)]
pub struct LocalNetworks {
    folder: PathBuf,
    namespaces: PathBuf,
    state: Arc<Mutex<State>>,
    kernel: Kernel,
    resolvers: dns::Resolvers,
    /// Containers whose interfaces are being removed: that takes the kernel tens of milliseconds, for which nobody has to wait.
    leaving: Mutex<BTreeMap<String, JoinHandle<()>>>,
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace(&self, container: &str) -> PathBuf {
        self.namespaces.join(container)
    }

    /// Waits until nothing of the container's former interface is left.
    async fn left(&self, container: &str) {
        let leaving = {
            let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|name, task| name == container || !task.is_finished());
            all.remove(container)
        };
        if let Some(task) = leaving {
            task.await.ok();
        }
    }

    /// Waits for everybody who leaves.
    async fn all_left(&self) {
        let leaving =
            std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        for task in leaving.into_values() {
            task.await.ok();
        }
    }

    async fn try_connect(&self, wanted: &Connect, record: &Record) -> Result<Connected> {
        self.kernel.ensure(&self.state, record).await?;
        let address = self.state().lease(&record.id, wanted)?;
        let mac = match &wanted.mac {
            None => link::mac(address),
            Some(text) => link::read_mac(text)
                .ok_or_else(|| Error::invalid(format!("invalid MAC address: {text}")))?,
        };
        let ports = self.publish(wanted, record, address)?;
        let range = record.range();
        let netns = self.namespace(&wanted.container);
        let endpoint = Endpoint {
            host: kernel::host_end(&wanted.container),
            address,
            length: range.length(),
            mac,
            gateway: (!record.internal).then_some(record.gateway),
        };
        let attach = self.kernel.links.attach(&netns, &record.bridge, endpoint);
        let rules = async {
            match ports.is_empty() {
                true => Ok(()),
                false => self.kernel.rules(&self.state).await,
            }
        };
        let (attached, ruled) = tokio::join!(attach, rules);
        attached.map_err(|e| Error::from(e.context("failed to set up container networking")))?;
        ruled?;
        self.kernel
            .forget_flows(&self.state, &wanted.container)
            .await?;
        let nameserver = self.resolver(&wanted.container, record).await?;
        let settings = EndpointSettings {
            mac_address: link::shown(mac),
            network_id: record.id.clone(),
            endpoint_id: hex::encode(rand::random::<[u8; 32]>()),
            gateway: if record.internal {
                String::new()
            } else {
                record.gateway.to_string()
            },
            ip_address: address.to_string(),
            ip_prefix_len: range.length(),
            dns_names: (!record.is_default()).then(|| wanted.names.clone()),
            ..EndpointSettings::default()
        };
        Ok(Connected {
            netns,
            endpoint: settings,
            ports,
            nameserver,
        })
    }

    fn publish(&self, wanted: &Connect, record: &Record, address: Ipv4Addr) -> Result<PortMap> {
        if record.internal {
            if !wanted.ports.is_empty() {
                tracing::warn!(
                    network = record.name,
                    "an internal network publishes no ports"
                );
            }
            return Ok(PortMap::new());
        }
        self.state()
            .publish(wanted, address, &ports::probe)
            .map_err(|e| {
                let name = wanted.names.first().map_or("", String::as_str);
                let message = format!(
                    "failed to set up container networking: driver failed programming external connectivity on endpoint {name}: {}",
                    e.message
                );
                Error::new(e.kind, message)
            })
    }

    /// Names are resolved in users' networks only.
    async fn resolver(&self, container: &str, record: &Record) -> Result<Option<String>> {
        if record.is_default() {
            return Ok(None);
        }
        let scope = dns::Scope {
            state: self.state.clone(),
            network: record.id.clone(),
            internal: record.internal,
        };
        let netns = self.namespace(container);
        self.resolvers.start(container, &netns, scope).await?;
        Ok(Some(dns::ADDRESS.to_string()))
    }

    /// What a running container had before the engine's restart.
    fn remember(&self, wanted: &Connect, connected: &Connected) -> Option<Record> {
        let mut state = self.state();
        let endpoint = &connected.endpoint;
        let record = state
            .find(&endpoint.network_id)
            .or_else(|_| state.find(&wanted.network))
            .ok()?
            .clone();
        let address = endpoint.ip_address.parse().ok()?;
        let from = ports::sources(wanted.publish_from.as_deref()).ok()?;
        let mut published = Vec::new();
        for (text, bindings) in &connected.ports {
            let (port, protocol) = ports::read(text).ok()?;
            for binding in bindings {
                published.push(rules::Published {
                    host: ports::host_address(&binding.host_ip).ok()?,
                    host_port: binding.host_port.parse().ok()?,
                    address,
                    port,
                    protocol,
                    from: from.clone(),
                });
            }
        }
        let lease = Lease {
            network: record.id.clone(),
            address,
            names: wanted.names.iter().map(|n| n.to_lowercase()).collect(),
            ports: published,
        };
        state.leases.insert(wanted.container.clone(), lease);
        Some(record)
    }

    /// Takes back namespaces and pairs of containers that do not run.
    async fn sweep(&self) -> Result<()> {
        let running: Vec<String> = self.state().leases.keys().cloned().collect();
        match fs::read_dir(&self.namespaces) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    if !running.contains(&name) {
                        tracing::info!(container = name, "takes back a network namespace");
                        self.kernel.links.remove(&kernel::host_end(&name)).await?;
                        namespace::remove(&self.namespaces.join(&name))?;
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        let records: Vec<Record> = self
            .state()
            .networks
            .values()
            .map(|n| n.record.clone())
            .collect();
        let mut bridges = Vec::new();
        for record in records {
            if let Some(index) = self.kernel.links.find(&record.bridge).await? {
                bridges.push(index);
                self.state().up.insert(record.id);
            }
        }
        let kept: Vec<String> = running.iter().map(|c| kernel::host_end(c)).collect();
        for end in self.kernel.links.ends(&bridges).await? {
            if !kept.contains(&end) {
                self.kernel.links.remove(&end).await?;
            }
        }
        Ok(())
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
        if let Ok(record) = self.state().find(reference) {
            return Ok(record.to_wire());
        }
        let all = self.list();
        let fixed = all.into_iter().find(|n| {
            n.name == reference
                || n.id == reference
                || reference.len() >= 12 && n.id.starts_with(reference)
        });
        fixed.ok_or_else(|| Error::not_found(format!("network {reference} not found")))
    }

    async fn create(&self, wanted: CreateNetwork) -> Result<String> {
        let _one = self.changes.lock().await;
        if self.find(&wanted.name).is_ok_and(|n| n.name == wanted.name) {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                wanted.name
            )));
        }
        let mut taken = self.state().ranges();
        taken.extend(self.kernel.links.routed(None).await?);
        let record = defaults::record(wanted, &taken, clock::now())?;
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
        if self.state().leases.values().any(|l| l.network == record.id) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "error while removing network: network {} has active endpoints",
                    record.name
                ),
            ));
        }
        self.forget(&record).await
    }

    async fn connect(&self, wanted: &Connect) -> Result<Connected> {
        let record = self.state().find(&wanted.network)?.clone();
        self.disconnect(&wanted.container).await?;
        self.left(&wanted.container).await;
        match self.try_connect(wanted, &record).await {
            Ok(connected) => Ok(connected),
            Err(error) => {
                self.disconnect(&wanted.container).await?;
                Err(error)
            }
        }
    }

    async fn disconnect(&self, container: &str) -> Result<()> {
        self.left(container).await;
        self.resolvers.stop(container);
        let netns = self.namespace(container);
        let publishes = match self.state().leases.get_mut(container) {
            Some(lease) if lease.ports.is_empty() => Publishes::Nothing,
            Some(lease) => {
                lease.ports.clear();
                Publishes::Ports
            }
            None if netns.exists() => Publishes::Nothing,
            None => return Ok(()),
        };
        let (kernel, state) = (self.kernel.clone(), self.state.clone());
        let id = container.to_owned();
        let leaving = tokio::spawn(async move {
            if let Err(error) = kernel.take_back(&state, &id, &netns, publishes).await {
                tracing::warn!(container = id, %error, "network could not be taken back");
                return;
            }
            // Last: nobody gets an address that is still in use.
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.leases.remove(&id);
        });
        let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(container.to_owned(), leaving);
        Ok(())
    }

    async fn adopt(&self, running: &[(Connect, Connected)]) -> Result<()> {
        self.all_left().await;
        self.state().leases.clear();
        let mut adopted = Vec::new();
        for (wanted, connected) in running {
            match self.remember(wanted, connected) {
                Some(record) => adopted.push((wanted.container.clone(), record)),
                None => tracing::warn!(
                    container = wanted.container,
                    "runs in a network that is not known; its ports are not published any more"
                ),
            }
        }
        self.sweep().await?;
        match self.kernel.rules(&self.state).await {
            // Where the kernel has no nftables, containers on the host's network still work; the first on a bridge will tell.
            Err(error) if self.state().bridges().is_empty() => {
                tracing::warn!(%error, "no rules for networks");
            }
            done => done?,
        }
        for (container, record) in adopted {
            if let Err(error) = self.resolver(&container, &record).await {
                tracing::warn!(container, %error, "names are not resolved in it");
            }
        }
        Ok(())
    }

    async fn rest(&self) -> Result<()> {
        self.all_left().await;
        let records: Vec<Record> = {
            let mut state = self.state();
            if !state.leases.is_empty() {
                return Ok(());
            }
            state.up.clear();
            state.networks.values().map(|n| n.record.clone()).collect()
        };
        for record in records {
            self.kernel.links.remove(&record.bridge).await?;
        }
        self.kernel.rules(&self.state).await
    }
}

impl LocalNetworks {
    /// The bridge first, so that no bridge is ever without a record.
    async fn forget(&self, record: &Record) -> Result<()> {
        self.kernel.links.remove(&record.bridge).await?;
        self.state().up.remove(&record.id);
        self.kernel.rules(&self.state).await?;
        record.forget(&self.folder)?;
        self.state().networks.remove(&record.id);
        Ok(())
    }
}
