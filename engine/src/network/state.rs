//! Who has which address, port and name: pure, in memory; after a restart it is made again from what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use windlass_engine_api::types::{PortBinding, PortMap};

use super::record::Record;
use super::rules::{Bridge, Published};
use super::subnet::Subnet;
use super::{Protocol, ports};
use crate::container::error::{Error, Result};
use crate::container::parts::Connect;

/// What a container has.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The network's id.
    pub network: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Names by which neighbours find it, in lower case.
    pub names: Vec<String>,
    /// Published ports.
    pub ports: Vec<Published>,
}

/// A network in use.
#[derive(Debug, Clone)]
pub struct Network {
    /// What is kept about it.
    pub record: Record,
    /// Where the search for a free address goes on: a given-back one is not given away at once.
    next: u32,
}

/// All of it.
#[derive(Debug, Default)]
pub struct State {
    /// By id.
    pub networks: BTreeMap<String, Network>,
    /// By container.
    pub leases: BTreeMap<String, Lease>,
    /// Ids of networks whose bridge is there.
    pub up: BTreeSet<String>,
}

impl State {
    /// Adds a network.
    pub fn add(&mut self, record: Record) {
        let network = Network { record, next: 0 };
        self.networks.insert(network.record.id.clone(), network);
    }

    /// By name, id, or a prefix of the id that only one has.
    pub fn find(&self, reference: &str) -> Result<&Record> {
        let all = || self.networks.values().map(|n| &n.record);
        if let Some(record) = all().find(|r| r.name == reference || r.id == reference) {
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
                "network {reference} is ambiguous (2 matches found on ID prefix)"
            ))),
            _ => Err(missing()),
        }
    }

    /// Finds an address, and takes it.
    pub fn lease(&mut self, id: &str, wanted: &Connect) -> Result<Ipv4Addr> {
        let address = match &wanted.address {
            Some(text) => self.wanted_address(id, text)?,
            None => match self.former_address(id, wanted) {
                Some(address) => address,
                None => self.free_address(id)?,
            },
        };
        let mut names: Vec<String> = wanted.names.iter().map(|n| n.to_lowercase()).collect();
        names.dedup();
        let lease = Lease {
            network: id.to_owned(),
            address,
            names,
            ports: Vec::new(),
        };
        self.leases.insert(wanted.container.clone(), lease);
        Ok(address)
    }

    fn taken(&self, id: &str) -> BTreeSet<Ipv4Addr> {
        let leased = self.leases.values().filter(|l| l.network == id);
        let gateway = self.networks.get(id).map(|n| n.record.gateway);
        leased.map(|l| l.address).chain(gateway).collect()
    }

    /// The address of the container's last run, while it is free: what others noted of it still holds after a restart.
    fn former_address(&self, id: &str, wanted: &Connect) -> Option<Ipv4Addr> {
        let address = wanted.former_address.as_deref()?.parse().ok()?;
        let range = self.networks.get(id)?.record.range();
        let place = range.place(address).map(u64::from)?;
        let inside = place > 0 && place + 1 < range.size();
        (inside && !self.taken(id).contains(&address)).then_some(address)
    }

    fn wanted_address(&self, id: &str, text: &str) -> Result<Ipv4Addr> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}")))?;
        let record = &self.network(id)?.record;
        if record.is_default() {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        let range = record.range();
        let place = range.place(address).map(u64::from);
        if place.is_none_or(|p| p == 0 || p + 1 >= range.size()) {
            return Err(Error::invalid(format!(
                "invalid address {address}: it does not belong to network {}'s subnet {range}",
                record.name
            )));
        }
        if self.taken(id).contains(&address) {
            return Err(Error::new(
                crate::container::error::Kind::Forbidden,
                "Address already in use",
            ));
        }
        Ok(address)
    }

    fn network(&self, id: &str) -> Result<&Network> {
        self.networks
            .get(id)
            .ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    fn free_address(&mut self, id: &str) -> Result<Ipv4Addr> {
        let taken = self.taken(id);
        let network = self
            .networks
            .get_mut(id)
            .ok_or_else(|| Error::not_found(format!("network {id} not found")))?;
        let range = network.record.range();
        // Without the first (the network) and the last (broadcast).
        let usable = u32::try_from(range.size().saturating_sub(2)).unwrap_or(u32::MAX);
        for _ in 0..usable.min(taken.len() as u32 + 1) {
            network.next = network.next % usable + 1;
            let candidate = range.at(network.next);
            if !taken.contains(&candidate) {
                return Ok(candidate);
            }
        }
        // The few taken ones lie in a row: further on is free, or nothing is.
        let free = (1..=usable)
            .map(|place| range.at(place))
            .find(|a| !taken.contains(a));
        free.ok_or_else(|| {
            Error::message(format!(
                "no available IPv4 addresses on network {}: {range}",
                network.record.name
            ))
        })
    }

    /// Chooses host ports and takes them; `free` asks the host whether nobody else listens there.
    pub fn publish(
        &mut self,
        wanted: &Connect,
        address: Ipv4Addr,
        free: &dyn Fn(Protocol, Ipv4Addr, u16) -> ports::Free,
    ) -> Result<PortMap> {
        let from = ports::sources(wanted.publish_from.as_deref())?;
        let mut chosen: Vec<Published> = Vec::new();
        let mut shown = PortMap::new();
        for (text, bindings) in &wanted.ports {
            let (port, protocol) = ports::read(text)?;
            let former = wanted.former_ports.get(text);
            for (index, binding) in bindings.iter().enumerate() {
                let host = ports::host_address(&binding.host_ip)?;
                let taken = |candidate: u16| {
                    let mut all = self.leases.values().flat_map(|l| &l.ports).chain(&chosen);
                    all.any(|p| ports::collides(p, protocol, host, candidate))
                };
                let former = former
                    .and_then(|f| f.get(index))
                    .filter(|_| matches!(binding.host_port.as_str(), "" | "0"))
                    .and_then(|f| ports::choose(&f.host_port, protocol, host, &taken, free).ok());
                let host_port = match former {
                    Some(port) => port,
                    None => ports::choose(&binding.host_port, protocol, host, &taken, free)?,
                };
                let from = from.clone();
                chosen.push(Published {
                    host,
                    host_port,
                    address,
                    port,
                    protocol,
                    from,
                });
                let binding = PortBinding {
                    host_ip: host.to_string(),
                    host_port: host_port.to_string(),
                };
                shown.entry(text.clone()).or_default().push(binding);
            }
        }
        if let Some(lease) = self.leases.get_mut(&wanted.container) {
            lease.ports = chosen;
        }
        Ok(shown)
    }

    /// The bridges that are there.
    pub fn bridges(&self) -> Vec<Bridge> {
        let up = self
            .networks
            .values()
            .filter(|n| self.up.contains(&n.record.id));
        up.map(|n| bridge(&n.record)).collect()
    }

    /// All published ports.
    pub fn published(&self) -> Vec<Published> {
        self.leases.values().flat_map(|l| l.ports.clone()).collect()
    }

    /// Networks that no other may overlap.
    pub fn ranges(&self) -> Vec<Subnet> {
        self.networks.values().map(|n| n.record.range()).collect()
    }

    /// The addresses of a name in a network.
    pub fn resolve(&self, network: &str, name: &str) -> Vec<Ipv4Addr> {
        let inside = self.leases.values().filter(|l| l.network == network);
        inside
            .filter(|l| l.names.iter().any(|n| n == name))
            .map(|l| l.address)
            .collect()
    }

    /// The name of an address in a network.
    pub fn name_of(&self, network: &str, address: Ipv4Addr) -> Option<String> {
        let mut inside = self.leases.values().filter(|l| l.network == network);
        let lease = inside.find(|l| l.address == address)?;
        lease.names.first().cloned()
    }
}

/// A record's bridge, for rules and links.
pub fn bridge(record: &Record) -> Bridge {
    Bridge {
        name: record.bridge.clone(),
        subnet: record.range(),
        internal: record.internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ports::Free;

    fn state(subnet: &str, name: &str) -> State {
        let range = Subnet::parse(subnet).unwrap();
        let mut state = State::default();
        state.add(Record {
            id: format!("{name}id"),
            name: name.to_owned(),
            created: String::new(),
            bridge: "br".to_owned(),
            subnet: subnet.to_owned(),
            gateway: range.at(1),
            internal: false,
            attachable: false,
            labels: Default::default(),
        });
        state
    }

    fn wants(container: &str, ports: &[(&str, &str, &str)]) -> Connect {
        let mut map = PortMap::new();
        for (port, host_ip, host_port) in ports {
            map.entry((*port).to_owned())
                .or_default()
                .push(PortBinding {
                    host_ip: (*host_ip).to_owned(),
                    host_port: (*host_port).to_owned(),
                });
        }
        Connect {
            container: container.to_owned(),
            names: vec![container.to_uppercase()],
            ports: map,
            ..Connect::default()
        }
    }

    #[test]
    fn every_address_is_given_once() {
        let mut state = state("10.0.0.0/29", "net");
        let mut given = BTreeSet::new();
        for i in 0..5 {
            let address = state.lease("netid", &wants(&format!("c{i}"), &[])).unwrap();
            assert!(given.insert(address));
        }
        let error = state.lease("netid", &wants("c9", &[])).unwrap_err();
        assert!(error.message.contains("no available IPv4 addresses"));
        assert!(
            !given.contains(&"10.0.0.1".parse().unwrap()),
            "the gateway's"
        );
        let back = state.leases.remove("c3").unwrap().address;
        assert_eq!(state.lease("netid", &wants("c9", &[])).unwrap(), back);
        let mut fixed = wants("c8", &[]);
        for (text, words) in [
            ("10.0.1.2", "does not belong"),
            ("10.0.0.7", "does not belong"),
            ("10.0.0.1", "already in use"),
            ("x", "invalid IPv4"),
        ] {
            fixed.address = Some(text.to_owned());
            let error = state.lease("netid", &fixed).unwrap_err();
            assert!(error.message.contains(words), "{text}: {}", error.message);
        }
        assert_eq!(state.resolve("netid", "c9"), [back]);
        assert_eq!(state.name_of("netid", back).as_deref(), Some("c9"));
        assert!(state.resolve("other", "c9").is_empty());
    }

    #[test]
    fn a_given_back_address_rests() {
        let mut state = state("10.0.0.0/24", "net");
        let first = state.lease("netid", &wants("a", &[])).unwrap();
        state.leases.remove("a");
        assert_ne!(state.lease("netid", &wants("b", &[])).unwrap(), first);
    }

    #[test]
    fn a_container_comes_back_where_it_was() {
        let mut state = state("10.0.0.0/29", "net");
        let free = |_: Protocol, _: Ipv4Addr, _: u16| Free::Yes;
        let mut wanted = wants("a", &[("80/tcp", "", "")]);
        let address = state.lease("netid", &wanted).unwrap();
        let first = state.publish(&wanted, address, &free).unwrap();
        wanted.former_address = Some(address.to_string());
        wanted.former_ports = first.clone();
        state.leases.remove("a");
        assert_eq!(state.lease("netid", &wanted).unwrap(), address);
        assert_eq!(state.publish(&wanted, address, &free).unwrap(), first);
        // Taken meanwhile: it gets others.
        state.leases.remove("a");
        let port = first["80/tcp"][0].host_port.clone();
        let mut other = wants("b", &[("80/tcp", "", &port)]);
        other.former_address = wanted.former_address.clone();
        let others = state.lease("netid", &other).unwrap();
        state.publish(&other, others, &free).unwrap();
        assert_ne!(state.lease("netid", &wanted).unwrap(), address);
        let second = state.publish(&wanted, address, &free).unwrap();
        assert_ne!(second["80/tcp"][0].host_port, port);
    }

    #[test]
    fn ports_collide_by_address_and_protocol() {
        let mut state = state("10.0.0.0/24", "net");
        let free = |_: Protocol, _: Ipv4Addr, port: u16| {
            if port == 99 { Free::Taken } else { Free::Yes }
        };
        let mut publish = |container: &str, ports: &[(&str, &str, &str)]| {
            let wanted = wants(container, ports);
            let address = state.lease("netid", &wanted).unwrap();
            state.publish(&wanted, address, &free)
        };
        let shown = publish("a", &[("80/tcp", "", "8080"), ("80/udp", "", "8080")]).unwrap();
        assert_eq!(shown["80/tcp"][0].host_ip, "0.0.0.0");
        publish("b", &[("80/tcp", "127.0.0.1", "8081")]).unwrap();
        publish("c", &[("80/tcp", "127.0.0.2", "8081")]).unwrap();
        for (ip, port) in [
            ("", "8080"),
            ("127.0.0.1", "8080"),
            ("", "8081"),
            ("", "99"),
        ] {
            let error = publish("x", &[("80/tcp", ip, port)]).unwrap_err();
            let ip = if ip.is_empty() { "0.0.0.0" } else { ip };
            let words = format!("Bind for {ip}:{port} failed: port is already allocated");
            assert_eq!(error.message, words);
        }
        let ranged = publish(
            "d",
            &[("80/tcp", "", "8079-8082"), ("81/tcp", "", "8079-8082")],
        );
        let ranged = ranged.unwrap();
        assert_eq!(
            (
                ranged["80/tcp"][0].host_port.as_str(),
                ranged["81/tcp"][0].host_port.as_str()
            ),
            ("8079", "8082")
        );
        let chosen = publish("e", &[("80/tcp", "", "")]).unwrap();
        let number: u16 = chosen["80/tcp"][0].host_port.parse().unwrap();
        assert!(number >= 1024);
        assert!(
            publish("f", &[("80/tcp", "::1", "1")])
                .unwrap_err()
                .message
                .contains("IPv6")
        );
    }
}
