//! Who has which address, port and name: pure, in memory; after a restart it is made again from what runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use windlass_engine_api::types::{PortBinding, PortMap};

use super::ipam;
use super::options::Mode;
use super::ports::{self, Chosen};
use super::record::{Driver, Record};
use super::rule::Protocol;
use super::rules::{Bridge, Published, Span};
use super::subnet::{Family, Subnet};
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::{Connect, Join};

/// Both, in the order in which they are looked at.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A container's place in a network.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The network's id.
    pub network: String,
    /// Its IPv4 address.
    pub v4: Option<IpAddr>,
    /// Its IPv6 address.
    pub v6: Option<IpAddr>,
    /// Hardware address.
    pub mac: [u8; 6],
    /// The host's end of its pair.
    pub host: String,
    /// 64 hex digits.
    pub id: String,
    /// Names by which neighbours find it, in lower case.
    pub names: Vec<String>,
    /// Names by which it alone finds neighbours: in lower case, with the neighbour's name or id.
    pub links: Vec<(String, String)>,
    /// Who has the highest one has the way out.
    pub priority: i64,
}

impl Lease {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// All of them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.into_iter().chain(self.v6)
    }
}

/// What a container has.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Its places, in the order in which it came to them.
    pub leases: Vec<Lease>,
    /// Published ports.
    pub ports: Vec<Chosen>,
    /// Who may come to them from outside; `None`: everybody.
    pub from: Option<Vec<Subnet>>,
    /// Name servers of its own.
    pub dns: Vec<IpAddr>,
    /// It goes: what it has is not given to others yet, but nobody finds it any more.
    pub leaving: bool,
}

/// A network in use.
#[derive(Debug, Clone)]
pub struct Network {
    /// What is kept about it.
    pub record: Record,
    /// Where the search for a free address goes on, by family: a given-back one is not given away at once.
    next: [u128; 2],
}

/// All of it.
#[derive(Debug, Default)]
pub struct State {
    /// By id.
    pub networks: BTreeMap<String, Network>,
    /// By container.
    pub tenants: BTreeMap<String, Tenant>,
    /// Ids of networks whose bridge is there.
    pub up: BTreeSet<String>,
}

impl State {
    /// Adds a network.
    pub fn add(&mut self, record: Record) {
        let network = Network {
            record,
            next: [0; 2],
        };
        self.networks.insert(network.record.id.clone(), network);
    }

    /// By name, id, or a prefix of the id that only one has.
    pub fn find(&self, reference: &str) -> Result<&Record> {
        let all = || self.networks.values().map(|n| &n.record);
        if let Some(record) = all().find(|r| r.id == reference) {
            return Ok(record);
        }
        if let Some(record) = all().find(|r| r.name == reference) {
            return Ok(record);
        }
        let missing = || Error::not_found(format!("network {reference} not found"));
        if reference.is_empty() {
            return Err(missing());
        }
        let mut matching = all().filter(|r| r.id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found on ID prefix)",
                2 + matching.count()
            ))),
            _ => Err(missing()),
        }
    }

    /// A container's place in a network.
    pub fn lease_of(&self, container: &str, network: &str) -> Option<&Lease> {
        let tenant = self.tenants.get(container)?;
        tenant.leases.iter().find(|l| l.network == network)
    }

    /// Those in a network who stay.
    pub fn inside<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a String, &'a Lease)> {
        let staying = self.tenants.iter().filter(|(_, t)| !t.leaving);
        staying.flat_map(move |(id, t)| {
            let here = t.leases.iter().filter(move |l| l.network == network);
            here.map(move |lease| (id, lease))
        })
    }

    /// Finds addresses, and takes them.
    pub fn lease(&mut self, container: &str, network: &str, wanted: &Join) -> Result<Lease> {
        let mut addresses = [None, None];
        for (index, family) in FAMILIES.into_iter().enumerate() {
            let taken = self.taken(network);
            let place = self
                .networks
                .get_mut(network)
                .ok_or_else(|| Error::not_found(format!("network {network} not found")))?;
            let next = &mut place.next[index];
            addresses[index] = ipam::choose(&place.record, family, wanted, &taken, next)?;
        }
        let [v4, v6] = addresses;
        let id = super::defaults::new_id();
        let mac = match &wanted.mac {
            Some(text) => super::link::read_mac(text)
                .ok_or_else(|| Error::invalid(format!("invalid MAC address: {text}")))?,
            None => super::link::mac(v4.or(v6)),
        };
        let mut names: Vec<String> = Vec::new();
        for name in wanted.names.iter().map(|n| n.to_lowercase()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let links = wanted.links.iter();
        let lease = Lease {
            network: network.to_owned(),
            v4,
            v6,
            mac,
            host: super::kernel::host_end(&id),
            id,
            names,
            links: links.map(|(a, c)| (a.to_lowercase(), c.clone())).collect(),
            priority: wanted.priority,
        };
        let tenant = self.tenants.entry(container.to_owned()).or_default();
        tenant.leases.push(lease.clone());
        Ok(lease)
    }

    fn taken(&self, network: &str) -> BTreeSet<IpAddr> {
        let leases = self.tenants.values().flat_map(|t| &t.leases);
        leases
            .filter(|l| l.network == network)
            .flat_map(Lease::addresses)
            .collect()
    }

    /// Where a container's way out of a family is: Docker's order.
    pub fn gateway(&self, container: &str, family: Family) -> Option<(&Lease, &Record)> {
        let tenant = self.tenants.get(container)?;
        let all = tenant.leases.iter().filter_map(|lease| {
            lease.address(family)?;
            let record = &self.networks.get(&lease.network)?.record;
            let shut = record.internal || record.settings().mode(family) == Mode::Isolated;
            (!shut).then_some((lease, record))
        });
        all.min_by_key(|(lease, record)| {
            let both = lease.v4.is_some() && lease.v6.is_some();
            (Reverse(lease.priority), !both, record.name.clone())
        })
    }

    /// Where a container's published ports of a family lead to.
    fn published_at(&self, container: &str, family: Family) -> Option<(IpAddr, &Record)> {
        let (lease, record) = self.gateway(container, family)?;
        let address = lease.address(family)?;
        (record.driver == Driver::Bridge).then_some((address, record))
    }

    /// Chooses host ports and takes them; `free` asks the host whether nobody else listens there.
    pub fn publish(
        &mut self,
        wanted: &Connect,
        free: &dyn Fn(Protocol, IpAddr, u16) -> ports::Free,
    ) -> Result<()> {
        let from = ports::sources(wanted.publish_from.as_deref())?;
        let open = FAMILIES.map(|f| self.published_at(&wanted.container, f));
        let families: Vec<Family> = open.iter().flatten().map(|(a, _)| Family::of(*a)).collect();
        if families.is_empty() {
            return Ok(());
        }
        let binding = open[0].and_then(|(_, record)| record.settings().binding);
        let mut chosen: Vec<Chosen> = Vec::new();
        for (text, bindings) in &wanted.ports {
            let (port, protocol) = ports::read(text)?;
            let former = wanted.former_ports.get(text);
            for (index, asked) in bindings.iter().enumerate() {
                let hosts = ports::hosts(&asked.host_ip, binding, &families)?;
                let taken = |candidate: u16| {
                    let others = self.tenants.values().flat_map(|t| &t.ports);
                    let mut all = others.chain(&chosen);
                    all.any(|p| hosts.iter().any(|h| p.collides(protocol, *h, candidate)))
                };
                let choose = |text: &str| ports::choose(text, protocol, &hosts, &taken, free);
                let any = matches!(asked.host_port.as_str(), "" | "0");
                let former = former.and_then(|f| f.get(index)).filter(|_| any);
                let host_port = match former.and_then(|f| choose(&f.host_port).ok()) {
                    Some(port) => port,
                    None => choose(&asked.host_port)?,
                };
                chosen.extend(hosts.iter().map(|host| Chosen {
                    host: *host,
                    host_port,
                    port,
                    protocol,
                }));
            }
        }
        if let Some(tenant) = self.tenants.get_mut(&wanted.container) {
            tenant.ports = chosen;
            tenant.from = from;
        }
        Ok(())
    }

    /// A container's published ports as the API shows them.
    pub fn port_map(&self, container: &str) -> PortMap {
        let mut shown = PortMap::new();
        for chosen in self.tenants.get(container).iter().flat_map(|t| &t.ports) {
            let text = format!("{}/{}", chosen.port, chosen.protocol);
            shown.entry(text).or_default().push(PortBinding {
                host_ip: chosen.host.to_string(),
                host_port: chosen.host_port.to_string(),
            });
        }
        shown
    }

    /// The bridges that are there.
    pub fn bridges(&self) -> Vec<Bridge> {
        let up = self.networks.values().map(|n| &n.record);
        let up = up.filter(|r| r.has_bridge() && self.up.contains(&r.id));
        up.map(bridge).collect()
    }

    /// All published ports.
    pub fn published(&self) -> Vec<Published> {
        let mut all = Vec::new();
        for (container, tenant) in self.tenants.iter().filter(|(_, t)| !t.ports.is_empty()) {
            for family in FAMILIES {
                let Some((address, record)) = self.published_at(container, family) else {
                    continue;
                };
                let here = tenant.ports.iter();
                for chosen in here.filter(|c| Family::of(c.host) == family) {
                    all.push(Published {
                        host: chosen.host,
                        host_port: chosen.host_port,
                        address,
                        port: chosen.port,
                        protocol: chosen.protocol,
                        from: tenant.from.clone(),
                        bridge: record.bridge.clone(),
                        mode: record.settings().mode(family),
                    });
                }
            }
        }
        all
    }

    /// The addresses by which a container finds a name, in one of its networks; `None`: nobody is called so.
    pub fn resolve(&self, container: &str, name: &str) -> Option<Vec<IpAddr>> {
        let tenant = self.tenants.get(container)?;
        let own = || tenant.leases.iter().filter(|l| self.has_names(&l.network));
        for lease in own() {
            let found = self.named(lease, name);
            if !found.is_empty() {
                return Some(found);
            }
        }
        // `name.network` is in that network only; both may have dots in them.
        own().find_map(|lease| {
            let network = &self.networks.get(&lease.network)?.record.name;
            let name = name.strip_suffix(&network.to_lowercase())?;
            let found = self.named(lease, name.strip_suffix('.')?);
            (!found.is_empty()).then_some(found)
        })
    }

    fn has_names(&self, network: &str) -> bool {
        let network = self.networks.get(network);
        network.is_some_and(|n| !n.record.is_default())
    }

    fn named(&self, lease: &Lease, name: &str) -> Vec<IpAddr> {
        let linked = lease.links.iter().find(|(alias, _)| alias == name);
        let name = linked.map_or(name, |(_, target)| target.as_str());
        let inside = self.inside(&lease.network);
        let called = inside
            .filter(|(id, l)| l.names.iter().any(|n| n == name) || linked.is_some() && *id == name);
        called.flat_map(|(_, l)| l.addresses()).collect()
    }

    /// The name of an address, as a container finds it.
    pub fn name_of(&self, container: &str, address: IpAddr) -> Option<String> {
        let tenant = self.tenants.get(container)?;
        tenant.leases.iter().find_map(|own| {
            let mut inside = self.inside(&own.network);
            let (_, lease) = inside.find(|(_, l)| l.addresses().any(|a| a == address))?;
            let network = &self.networks.get(&own.network)?.record;
            let name = lease.names.first()?;
            (!network.is_default()).then(|| format!("{name}.{}", network.name))
        })
    }

    /// Whether a container reaches nobody outside.
    pub fn is_shut(&self, container: &str) -> bool {
        FAMILIES
            .iter()
            .all(|f| self.gateway(container, *f).is_none())
    }
}

/// A refusal because somebody is there.
pub fn in_use(record: &Record, containers: &[String]) -> Error {
    Error::new(
        Kind::Forbidden,
        format!(
            "error while removing network: network {} id {} has active endpoints {}",
            record.name,
            record.id,
            containers.join(" ")
        )
        .trim_end()
        .to_owned(),
    )
}

/// A record's bridge, for rules and links.
pub fn bridge(record: &Record) -> Bridge {
    let settings = record.settings();
    let side = |family: Family| {
        record.pool(family).map(|pool| Span {
            subnet: pool.subnet,
            gateway: (settings.mode(family) != Mode::Isolated).then_some(pool.gateway),
            mode: settings.mode(family),
        })
    };
    Bridge {
        name: record.bridge.clone(),
        v4: side(Family::V4),
        v6: side(Family::V6),
        internal: record.internal,
        among_each_other: settings.among_each_other,
        masquerade: settings.masquerade,
        mtu: settings.mtu,
    }
}
