//! What containers have in networks: taking it, changing it while they run, giving it back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::PoisonError;

use windlass_engine_api::types::{EndpointSettings, StringMap};

use super::dns;
use super::interface::{Interface, Kind, Ways};
use super::kernel::Publishes;
use super::link::{self, Home};
use super::local::{LocalNetworks, end_of};
use super::ports::{self, Chosen};
use super::record::{Driver, Record};
use super::state::{FAMILIES, Lease, Tenant};
use super::subnet::Family;
use crate::container::error::{self, Error, Result};
use crate::container::parts::{Connect, Connected, Join};

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
const NAME: &str = "com.docker.network.endpoint.ifname";

/// A place that a container takes.
struct Taken {
    lease: Lease,
    record: Record,
    options: StringMap,
}

impl LocalNetworks {
    fn namespace(&self, container: &str) -> PathBuf {
        self.namespaces.join(container)
    }

    /// Waits until nothing of the container's former interfaces is left.
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
    pub(super) async fn all_left(&self) {
        let leaving =
            std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        for task in leaving.into_values() {
            task.await.ok();
        }
    }

    /// See [`crate::container::parts::Networks::connect`].
    pub(super) async fn connect_all(&self, wanted: &Connect) -> Result<Connected> {
        let records = self.found(wanted)?;
        self.disconnect_all(&wanted.container).await?;
        self.left(&wanted.container).await;
        match self.try_connect(wanted, records).await {
            Ok(connected) => Ok(connected),
            Err(error) => {
                self.disconnect_all(&wanted.container).await?;
                Err(error)
            }
        }
    }

    fn found(&self, wanted: &Connect) -> Result<Vec<Record>> {
        let state = self.state();
        let find = |join: &Join| {
            let record = state.find(&join.network)?;
            if record.config_only {
                return Err(Error::new(
                    error::Kind::Forbidden,
                    format!(
                        "cannot create an endpoint in configuration-only network {}",
                        record.name
                    ),
                ));
            }
            Ok(record.clone())
        };
        wanted.joins.iter().map(find).collect()
    }

    async fn try_connect(&self, wanted: &Connect, records: Vec<Record>) -> Result<Connected> {
        for record in &records {
            self.kernel.ensure(&self.state, record).await?;
        }
        let (taken, ways) = {
            let mut state = self.state();
            let tenant = Tenant {
                dns: servers(wanted),
                ..Tenant::default()
            };
            state.tenants.insert(wanted.container.clone(), tenant);
            drop(state);
            let taken = self.take(wanted, records)?;
            self.publish(wanted)?;
            (taken, self.ways(&wanted.container))
        };
        self.attach(wanted, Home::New(wanted.user.clone()), &taken, ways)
            .await
    }

    /// Places in the state.
    fn take(&self, wanted: &Connect, records: Vec<Record>) -> Result<Vec<Taken>> {
        let mut state = self.state();
        let mut taken: Vec<Taken> = Vec::new();
        for (join, record) in wanted.joins.iter().zip(records) {
            if state.lease_of(&wanted.container, &record.id).is_some() {
                let name = join.names.first().map_or("", String::as_str);
                return Err(Error::new(
                    error::Kind::Forbidden,
                    format!(
                        "endpoint with name {name} already exists in network {}",
                        record.name
                    ),
                ));
            }
            let lease = state.lease(&wanted.container, &record.id, join)?;
            taken.push(Taken {
                lease,
                record,
                options: join.options.clone(),
            });
        }
        Ok(taken)
    }

    fn publish(&self, wanted: &Connect) -> Result<()> {
        let mut state = self.state();
        state.publish(wanted, &ports::probe).map_err(|e| {
            let names = wanted.joins.first().map(|j| &j.names);
            let name = names.and_then(|n| n.first()).map_or("", String::as_str);
            let endpoint = state.tenants.get(&wanted.container);
            let endpoint = endpoint.and_then(|t| t.leases.first());
            let id = endpoint.map_or("", |l| l.id.as_str());
            let message = format!(
                "failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({id}): {}",
                e.message
            );
            Error::new(e.kind, message)
        })
    }

    fn ways(&self, container: &str) -> Ways {
        let state = self.state();
        let way = |family: Family| {
            let (_, record) = state.gateway(container, family)?;
            Some(record.pool(family)?.gateway)
        };
        Ways {
            v4: way(Family::V4),
            v6: way(Family::V6),
        }
    }

    /// In the kernel, what is in the state.
    async fn attach(
        &self,
        wanted: &Connect,
        home: Home,
        taken: &[Taken],
        ways: Ways,
    ) -> Result<Connected> {
        let container = &wanted.container;
        let netns = self.namespace(container);
        let interfaces = taken.iter().map(interface_of).collect::<Result<Vec<_>>>()?;
        let published = self
            .state()
            .tenants
            .get(container)
            .is_some_and(|t| !t.ports.is_empty());
        let attach = self.kernel.links.attach(&netns, home, interfaces, ways);
        let rules = async {
            match published {
                false => Ok(()),
                true => self.kernel.rules(&self.state).await,
            }
        };
        let (attached, ruled) = tokio::join!(attach, rules);
        attached.map_err(|e| Error::from(e.context("failed to set up container networking")))?;
        ruled?;
        self.kernel.forget_flows(&self.state, container).await?;
        self.resolver(container).await?;
        Ok(self.connected(container))
    }

    /// What a container has now.
    fn connected(&self, container: &str) -> Connected {
        let state = self.state();
        let tenant = state.tenants.get(container);
        let endpoints = tenant.iter().flat_map(|t| &t.leases).filter_map(|lease| {
            let record = &state.networks.get(&lease.network)?.record;
            Some((record.name.clone(), shown(lease, record)))
        });
        Connected {
            netns: self.namespace(container),
            endpoints: endpoints.collect(),
            ports: state.port_map(container),
            nameserver: self
                .resolvers
                .runs(container)
                .then(|| dns::ADDRESS.to_string()),
        }
    }

    /// Names are resolved in users' networks only.
    pub(super) async fn resolver(&self, container: &str) -> Result<()> {
        let with_names = {
            let state = self.state();
            let leases = state.tenants.get(container).into_iter();
            let mut leases = leases.flat_map(|t| &t.leases);
            leases.any(|l| {
                let network = state.networks.get(&l.network);
                network.is_some_and(|n| !n.record.is_default())
            })
        };
        if !with_names || self.resolvers.runs(container) {
            return Ok(());
        }
        let scope = dns::Scope {
            state: self.state.clone(),
            container: container.to_owned(),
        };
        let netns = self.namespace(container);
        Ok(self.resolvers.start(container, &netns, scope).await?)
    }

    /// See [`crate::container::parts::Networks::join`].
    pub(super) async fn join_more(&self, wanted: &Connect) -> Result<Connected> {
        let records = self.found(wanted)?;
        for record in &records {
            self.kernel.ensure(&self.state, record).await?;
        }
        let before = self.tenant(&wanted.container)?;
        let taken = self.take(wanted, records);
        let joined = match taken {
            Ok(taken) => self.try_join(wanted, &before, &taken).await,
            Err(error) => Err(error),
        };
        if joined.is_err() {
            let after = self.tenant(&wanted.container)?;
            self.state()
                .tenants
                .insert(wanted.container.clone(), before.clone());
            let news = after.leases.iter();
            for lease in news.filter(|l| !before.leases.iter().any(|b| b.id == l.id)) {
                self.kernel.links.remove(&lease.host).await?;
            }
            self.settle(&wanted.container).await?;
        }
        joined
    }

    fn tenant(&self, container: &str) -> Result<Tenant> {
        let tenant = self.state().tenants.get(container).cloned();
        tenant.ok_or_else(|| Error::conflict(format!("container {container} has no network")))
    }

    async fn try_join(
        &self,
        wanted: &Connect,
        before: &Tenant,
        taken: &[Taken],
    ) -> Result<Connected> {
        if before.ports.is_empty() {
            self.publish(wanted)?;
        }
        let ways = self.ways(&wanted.container);
        self.attach(wanted, Home::Old, taken, ways).await
    }

    /// Ways and rules follow the state.
    async fn settle(&self, container: &str) -> Result<()> {
        let netns = self.namespace(container);
        let ways = self.ways(container);
        self.kernel.links.reroute(&netns, ways).await?;
        self.kernel.rules(&self.state).await
    }

    /// See [`crate::container::parts::Networks::leave`].
    pub(super) async fn leave_one(&self, container: &str, network: &str) -> Result<Connected> {
        let (lease, record) = {
            let mut state = self.state();
            let record = state.find(network)?.clone();
            let tenant = state.tenants.get_mut(container);
            let place = tenant.and_then(|t| {
                let at = t.leases.iter().position(|l| l.network == record.id)?;
                Some(t.leases.remove(at))
            });
            let lease = place.ok_or_else(|| {
                Error::message(format!(
                    "container {container} is not connected to network {}",
                    record.name
                ))
            })?;
            let shut = state.is_shut(container);
            if let Some(tenant) = state.tenants.get_mut(container).filter(|_| shut) {
                tenant.ports.clear();
            }
            (lease, record)
        };
        let netns = self.namespace(container);
        if record.driver == Driver::Bridge {
            self.kernel.links.remove(&lease.host).await?;
        } else if let Some(address) = lease.addresses().next() {
            self.kernel.links.remove_inside(&netns, address).await?;
        }
        self.settle(container).await?;
        Ok(self.connected(container))
    }

    /// See [`crate::container::parts::Networks::renamed`].
    pub(super) fn rename(&self, wanted: &Connect) {
        let mut state = self.state();
        for join in &wanted.joins {
            let Ok(network) = state.find(&join.network).map(|r| r.id.clone()) else {
                continue;
            };
            let tenant = state.tenants.get_mut(&wanted.container);
            let mut leases = tenant.into_iter().flat_map(|t| &mut t.leases);
            if let Some(lease) = leases.find(|l| l.network == network) {
                lease.names = join.names.iter().map(|n| n.to_lowercase()).collect();
            }
        }
    }

    /// See [`crate::container::parts::Networks::disconnect`].
    pub(super) async fn disconnect_all(&self, container: &str) -> Result<()> {
        self.left(container).await;
        self.resolvers.stop(container);
        let netns = self.namespace(container);
        let (publishes, ends) = match self.state().tenants.get_mut(container) {
            Some(tenant) => {
                tenant.leaving = true;
                let publishes = if tenant.ports.is_empty() {
                    Publishes::Nothing
                } else {
                    Publishes::Ports
                };
                tenant.ports.clear();
                let ends = tenant.leases.iter().map(|l| l.host.clone()).collect();
                (publishes, ends)
            }
            None if netns.exists() => (Publishes::Nothing, Vec::new()),
            None => return Ok(()),
        };
        let (kernel, state) = (self.kernel.clone(), self.state.clone());
        let id = container.to_owned();
        let leaving = tokio::spawn(async move {
            if let Err(error) = kernel.take_back(&state, &netns, ends, publishes).await {
                tracing::warn!(container = id, %error, "network could not be taken back");
                return;
            }
            // Last: nobody gets an address that is still in use.
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.tenants.remove(&id);
        });
        let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(container.to_owned(), leaving);
        Ok(())
    }

    /// What a running container had before the engine's restart.
    pub(super) fn remember(
        &self,
        wanted: &Connect,
        connected: &Connected,
        ends: &BTreeSet<String>,
    ) {
        let mut state = self.state();
        let mut tenant = Tenant {
            dns: servers(wanted),
            from: ports::sources(wanted.publish_from.as_deref()).unwrap_or_default(),
            ..Tenant::default()
        };
        for (name, endpoint) in &connected.endpoints {
            let record = state.find(&endpoint.network_id);
            let Ok(record) = record.or_else(|_| state.find(name)) else {
                tracing::warn!(
                    container = wanted.container,
                    network = name,
                    "runs in a network that is not known; its ports are not published any more"
                );
                continue;
            };
            let join = wanted
                .joins
                .iter()
                .find(|j| j.network == *name || j.network == record.id || j.network == record.name);
            let join = join.cloned().unwrap_or_default();
            tenant.leases.push(Lease {
                network: record.id.clone(),
                v4: endpoint.ip_address.parse().ok(),
                v6: endpoint.global_ipv6_address.parse().ok(),
                mac: link::read_mac(&endpoint.mac_address).unwrap_or_default(),
                host: end_of(&wanted.container, &endpoint.endpoint_id, ends),
                id: endpoint.endpoint_id.clone(),
                names: join.names.iter().map(|n| n.to_lowercase()).collect(),
                links: join.links,
                priority: join.priority,
            });
        }
        for (text, bindings) in &connected.ports {
            let Ok((port, protocol)) = ports::read(text) else {
                continue;
            };
            let chosen = bindings.iter().filter_map(|binding| {
                Some(Chosen {
                    host: binding.host_ip.parse().ok()?,
                    host_port: binding.host_port.parse().ok()?,
                    port,
                    protocol,
                })
            });
            tenant.ports.extend(chosen);
        }
        state.tenants.insert(wanted.container.clone(), tenant);
    }
}

fn servers(wanted: &Connect) -> Vec<IpAddr> {
    wanted.dns.iter().filter_map(|d| d.parse().ok()).collect()
}

/// As the API shows it.
fn shown(lease: &Lease, record: &Record) -> EndpointSettings {
    let gateway = |family: Family| match record.pool(family) {
        Some(pool) if !record.internal => pool.gateway.to_string(),
        _ => String::new(),
    };
    let length = |family: Family| record.pool(family).map_or(0, |p| p.subnet.length());
    let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    EndpointSettings {
        mac_address: link::shown(lease.mac),
        network_id: record.id.clone(),
        endpoint_id: lease.id.clone(),
        gateway: gateway(Family::V4),
        ip_address: text(lease.v4),
        ip_prefix_len: length(Family::V4),
        ipv6_gateway: gateway(Family::V6),
        global_ipv6_address: text(lease.v6),
        global_ipv6_prefix_len: length(Family::V6),
        ..EndpointSettings::default()
    }
}

fn interface_of(taken: &Taken) -> Result<Interface> {
    let Taken {
        lease,
        record,
        options,
    } = taken;
    let settings = record.settings();
    let kind = settings.kind.clone().unwrap_or_default();
    let kind = match record.driver {
        Driver::Bridge => Kind::Pair {
            bridge: record.bridge.clone(),
            isolated: !settings.among_each_other,
        },
        Driver::Macvlan => Kind::Macvlan {
            parent: record.bridge.clone(),
            mode: kind,
        },
        Driver::Ipvlan => Kind::Ipvlan {
            parent: record.bridge.clone(),
            mode: kind,
        },
    };
    let address = |family: Family| {
        let length = record.pool(family)?.subnet.length();
        Some((lease.address(family)?, length))
    };
    let name = options.get(NAME).filter(|n| !n.is_empty());
    if let Some(name) = name {
        super::defaults::interface(name)
            .map_err(|e| Error::invalid(format!("invalid interface name: {e}")))?;
    }
    Ok(Interface {
        host: lease.host.clone(),
        prefix: settings.prefix.clone(),
        name: name.cloned(),
        kind,
        mac: lease.mac,
        addresses: FAMILIES.into_iter().filter_map(address).collect(),
        mtu: settings.mtu,
        sysctls: sysctls(options)?,
    })
}

/// `net.ipv4.conf.IFNAME.log_martians=1,…`: only what is the interface's own.
fn sysctls(options: &StringMap) -> Result<Vec<(String, String)>> {
    let text = options.get(SYSCTLS).map_or("", String::as_str);
    let each = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    each.map(|setting| {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("invalid sysctl setting: {setting}")))?;
        let parts: Vec<&str> = key.split('.').collect();
        let plain = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let own = matches!(parts[..], ["net", _, "conf" | "neigh", "IFNAME", _]);
        if own && parts.iter().all(plain) {
            Ok((key.to_owned(), value.to_owned()))
        } else {
            Err(Error::invalid(format!(
                "unrecognised network interface sysctl '{setting}'"
            )))
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_interface_are_its_own() {
        let read = |text: &str| sysctls(&[(SYSCTLS.to_owned(), text.to_owned())].into());
        let good = read("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.mtu=1400");
        assert_eq!(good.unwrap().len(), 2);
        for bad in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4/..conf.IFNAME.x=1",
            "kernel.conf.IFNAME.x.y=1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("").unwrap().is_empty());
    }
}
