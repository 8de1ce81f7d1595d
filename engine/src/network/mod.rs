//! Networks: bridges with a namespace a container, addresses, published ports in the kernel, names.
//! Nothing runs for it but the engine, and nothing stops when the engine does: rules, bridges and namespaces are the kernel's.
//!
//! Deliberately absent: IPv6, a container in several networks, other drivers than `bridge`.

mod defaults;
mod dns;
mod link;
mod namespace;
mod nft;
mod ports;
mod record;
mod rules;
mod state;
mod subnet;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fs_err as fs;
use windlass_engine_api::types::{CreateNetwork, EndpointSettings, NetworkInspect, PortMap};

use crate::container::clock;
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::{Connect, Connected, Networks};
use link::{Endpoint, Links};
use nft::{Batch, Protocol};
use record::Record;
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

/// The networks of this host.
#[derive(Debug)]
pub struct LocalNetworks {
    folder: PathBuf,
    namespaces: PathBuf,
    engine: String,
    state: Arc<Mutex<State>>,
    links: Links,
    resolvers: dns::Resolvers,
    /// Who holds it changes bridges and rules.
    kernel: tokio::sync::Mutex<()>,
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
            engine: settings.bridge,
            state: Arc::new(Mutex::new(state)),
            links,
            resolvers: dns::Resolvers::default(),
            kernel: tokio::sync::Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace(&self, container: &str) -> PathBuf {
        self.namespaces.join(container)
    }

    /// The bridge is there, with its rules.
    async fn ensure(&self, record: &Record) -> Result<()> {
        let _one = self.kernel.lock().await;
        link::forwarding()?;
        let bridge = state::bridge(record);
        let made = self.links.ensure_bridge(&bridge, record.gateway).await?;
        let unknown = self.state().up.insert(record.id.clone());
        if made || unknown {
            self.rules().await?;
        }
        Ok(())
    }

    /// Puts the state's rules into the kernel; the caller holds `kernel`.
    async fn rules(&self) -> Result<()> {
        let (bridges, published) = {
            let state = self.state();
            (state.bridges(), state.published())
        };
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let mut batch = Batch::default();
            rules::replace(&mut batch, &rules::table(&engine), &bridges, &published);
            rules::pass_others(&mut batch, &engine, &bridges)?;
            batch.commit()?;
            // Another program's tables: what can be done is done, and the rest is told.
            if let Err(error) = rules::pass_legacy(&bridges) {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "published ports may be cut off"
                );
            }
            Ok(())
        })
        .await
        .map_err(Error::internal)??;
        Ok(())
    }

    async fn try_connect(&self, wanted: &Connect, record: &Record) -> Result<Connected> {
        self.ensure(record).await?;
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
            host: host_end(&wanted.container),
            address,
            length: range.length(),
            mac,
            gateway: (!record.internal).then_some(record.gateway),
        };
        self.links
            .attach(&netns, &record.bridge, endpoint)
            .await
            .map_err(|e| Error::from(e.context("failed to set up container networking")))?;
        if !ports.is_empty() {
            let _one = self.kernel.lock().await;
            self.rules().await?;
        }
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
                        self.links.remove(&host_end(&name)).await?;
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
            if let Some(index) = self.links.find(&record.bridge).await? {
                bridges.push(index);
                self.state().up.insert(record.id);
            }
        }
        let kept: Vec<String> = running.iter().map(|c| host_end(c)).collect();
        for end in self.links.ends(&bridges).await? {
            if !kept.contains(&end) {
                self.links.remove(&end).await?;
            }
        }
        Ok(())
    }
}

/// Name of the host's end of a container's pair.
fn host_end(container: &str) -> String {
    let short: String = container.chars().take(12).collect();
    format!("{}{short}", link::PREFIX)
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
        taken.extend(self.links.routed(None).await?);
        let record = defaults::record(wanted, &taken, clock::now())?;
        record.save(&self.folder)?;
        self.state().add(record.clone());
        if let Err(error) = self.ensure(&record).await {
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
        match self.try_connect(wanted, &record).await {
            Ok(connected) => Ok(connected),
            Err(error) => {
                if let Err(error) = self.disconnect(&wanted.container).await {
                    tracing::warn!(container = wanted.container, %error, "network could not be taken back");
                }
                Err(error)
            }
        }
    }

    async fn disconnect(&self, container: &str) -> Result<()> {
        self.resolvers.stop(container);
        let published = match self.state().leases.get_mut(container) {
            Some(lease) => !std::mem::take(&mut lease.ports).is_empty(),
            None => false,
        };
        if published {
            let _one = self.kernel.lock().await;
            self.rules().await?;
        }
        self.links.remove(&host_end(container)).await?;
        namespace::remove(&self.namespace(container))?;
        // Last: nobody gets an address that is still in use.
        self.state().leases.remove(container);
        Ok(())
    }

    async fn adopt(&self, running: &[(Connect, Connected)]) -> Result<()> {
        let _one = self.kernel.lock().await;
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
        self.rules().await?;
        for (container, record) in adopted {
            if let Err(error) = self.resolver(&container, &record).await {
                tracing::warn!(container, %error, "names are not resolved in it");
            }
        }
        Ok(())
    }
}

impl LocalNetworks {
    /// The bridge first, so that no bridge is ever without a record.
    async fn forget(&self, record: &Record) -> Result<()> {
        let _kernel = self.kernel.lock().await;
        self.state().up.remove(&record.id);
        self.rules().await?;
        self.links.remove(&record.bridge).await?;
        record.forget(&self.folder)?;
        self.state().networks.remove(&record.id);
        Ok(())
    }
}
