//! What a user's new network is: from the request, in Docker's words where it makes no sense. Pure.
//!
//! Deliberately absent: networks over several hosts, drivers and address management by other programs.

use std::net::IpAddr;

use windlass_engine_api::types::{CreateNetwork, IpamConfig};

use super::defaults::{LONGEST_NAME, interface, new_id};
use super::options;
use super::record::{Driver, Pool, Record};
use super::rules::USERS;
use super::subnet::{self, Family, Subnet};
use crate::container::error::{Error, Kind, Result};

/// Where there is room for a new network.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The networks there are.
    pub records: Vec<&'a Record>,
    /// Where the host knows a way to.
    pub routed: Vec<Subnet>,
    /// What the engine's own addresses follow from.
    pub seed: &'a str,
}

impl Ground<'_> {
    fn networks(&self) -> Vec<Subnet> {
        let all = self.records.iter().flat_map(|r| r.pools());
        all.map(|pool| pool.subnet).collect()
    }

    fn taken(&self) -> Vec<Subnet> {
        [self.networks(), self.routed.clone()].concat()
    }
}

/// A user's network.
pub fn record(mut wanted: CreateNetwork, ground: &Ground<'_>, created: String) -> Result<Record> {
    let driver = driver(&wanted)?;
    let from = wanted.config_from.take().unwrap_or_default().network;
    let mut record = if from.is_empty() {
        made(wanted, driver, ground)?
    } else {
        copied(wanted, driver, &from, ground)?
    };
    record.created = created;
    Ok(record)
}

fn driver(wanted: &CreateNetwork) -> Result<Driver> {
    let name = &wanted.name;
    if name.trim().is_empty() || name.contains('/') || name.contains('\0') {
        return Err(Error::invalid(format!("invalid name: {name}")));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(Error::new(
            Kind::Forbidden,
            format!("operation is not permitted on predefined {name} network "),
        ));
    }
    if wanted.ingress {
        return Err(Error::new(
            Kind::Forbidden,
            "Ingress network can only be global scope network",
        ));
    }
    match wanted.driver.as_str() {
        "" | "default" | "bridge" => Ok(Driver::Bridge),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Ok(Driver::Ipvlan),
        only @ ("host" | "null") => Err(Error::new(
            Kind::Forbidden,
            format!("only one instance of \"{only}\" network is allowed"),
        )),
        "overlay" => Err(Error::new(
            Kind::Unavailable,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        other => Err(plugin(other)),
    }
}

fn plugin(name: &str) -> Error {
    Error::not_found(format!(
        "could not find plugin {name} in v1 plugin registry: plugin not found: plugin \"{name}\" not found"
    ))
}

/// With the configuration of another.
fn copied(
    wanted: CreateNetwork,
    driver: Driver,
    from: &str,
    ground: &Ground<'_>,
) -> Result<Record> {
    let lender = ground.records.iter().find(|r| r.name == from);
    let lender = lender.ok_or_else(|| {
        Error::not_found(format!("configuration network \"{from}\" does not exist"))
    })?;
    if !lender.config_only {
        return Err(Error::new(
            Kind::Forbidden,
            format!("network \"{from}\" is not a configuration network"),
        ));
    }
    let configured = wanted.ipam.as_ref().is_some_and(|i| !i.config.is_empty());
    if configured || !wanted.options.is_empty() || !wanted.labels.is_empty() {
        return Err(Error::new(
            Kind::Forbidden,
            "user specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    let id = new_id();
    let mut record = Record {
        name: wanted.name,
        driver,
        config_only: false,
        config_from: from.to_owned(),
        internal: wanted.internal,
        attachable: wanted.attachable,
        ..(*lender).clone()
    };
    if record.v4.is_none() {
        record.v4 = Some(Pool::new(automatic(ground, Family::V4)?));
    }
    record.bridge = bridge(&record, &id)?;
    record.id = id;
    Ok(record)
}

fn made(wanted: CreateNetwork, driver: Driver, ground: &Ground<'_>) -> Result<Record> {
    options::read(&wanted.options)?;
    let ipam = wanted.ipam.unwrap_or_default();
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(plugin(&ipam.driver));
    }
    let id = new_id();
    let mut record = Record {
        name: wanted.name,
        driver,
        internal: wanted.internal,
        attachable: wanted.attachable,
        config_only: wanted.config_only,
        options: wanted.options,
        ipam_options: ipam.options,
        labels: wanted.labels,
        ..Record::default()
    };
    let with6 = wanted.enable_ipv6 == Some(true);
    check(&ipam.config, with6)?;
    // A configuration only is not used itself: what it has is in nobody's way.
    let taken = if wanted.config_only {
        Vec::new()
    } else {
        ground.networks()
    };
    for config in &ipam.config {
        let pool = pool(config)?;
        let place = match pool.subnet.family() {
            Family::V4 => &mut record.v4,
            Family::V6 if !with6 => {
                record.spare_v6 = Some(pool);
                continue;
            }
            Family::V6 => &mut record.v6,
        };
        let family = pool.subnet.family();
        if taken.iter().any(|t| t.overlaps(pool.subnet)) {
            return Err(Error::new(
                Kind::Forbidden,
                "invalid pool request: Pool overlaps with other one on this address space",
            ));
        }
        if place.replace(pool).is_some() {
            return Err(Error::new(
                Kind::Forbidden,
                format!("bridge driver doesn't support multiple {family} subnets"),
            ));
        }
    }
    if wanted.enable_ipv4 == Some(false) {
        record.v4 = None;
        if !with6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
    } else if record.v4.is_none() && !wanted.config_only {
        record.v4 = Some(Pool::new(automatic(ground, Family::V4)?));
    }
    if with6 && record.v6.is_none() && !wanted.config_only {
        record.v6 = Some(Pool::new(automatic(ground, Family::V6)?));
    }
    if !wanted.config_only {
        record.bridge = bridge(&record, &id)?;
        unused(&record, ground)?;
    }
    record.id = id;
    Ok(record)
}

/// Two networks on one bridge would be one.
fn unused(record: &Record, ground: &Ground<'_>) -> Result<()> {
    let mut others = ground.records.iter();
    match others.find(|r| record.has_bridge() && r.has_bridge() && r.bridge == record.bridge) {
        Some(other) => Err(Error::new(
            Kind::Forbidden,
            format!(
                "cannot create network {} ({}): conflicts with network {} ({}): networks have same bridge name",
                record.name, record.bridge, other.id, other.bridge
            ),
        )),
        None => Ok(()),
    }
}

fn bridge(record: &Record, id: &str) -> Result<String> {
    let settings = options::read(&record.options)?;
    if record.driver != Driver::Bridge {
        let parent = settings.parent.ok_or_else(|| {
            Error::invalid(format!(
                "a {} network of windlassd needs -o parent=INTERFACE",
                record.driver.as_str()
            ))
        })?;
        return Ok(parent);
    }
    let name = settings
        .name
        .unwrap_or_else(|| format!("{USERS}{}", &id[..LONGEST_NAME - USERS.len()]));
    interface(&name).map_err(|e| Error::invalid(format!("invalid bridge name: {e}")))?;
    Ok(name)
}

fn automatic(ground: &Ground<'_>, family: Family) -> Result<Subnet> {
    let found = match family {
        Family::V4 => subnet::choose(&ground.taken()),
        Family::V6 => subnet::choose_local(ground.seed, &ground.taken()),
    };
    found.ok_or_else(|| Error::message("all predefined address pools have been fully subnetted"))
}

/// Everything that is wrong with the addresses, at once.
fn check(configs: &[IpamConfig], with6: bool) -> Result<()> {
    let mut wrong = Vec::new();
    for config in configs {
        match Subnet::parse(&config.subnet) {
            None => wrong.push(format!(
                "invalid subnet {}: invalid CIDR block notation",
                config.subnet
            )),
            Some(subnet) if subnet.family() == Family::V6 && !with6 => {}
            Some(subnet) => wrong.extend(faults(config, subnet)),
        }
    }
    match &wrong[..] {
        [] => Ok(()),
        [one] => Err(Error::invalid(format!("invalid network config:\n{one}"))),
        many => Err(Error::invalid(format!(
            "invalid network config:\n* {}",
            many.join("\n* ")
        ))),
    }
}

fn faults(config: &IpamConfig, subnet: Subnet) -> Vec<String> {
    let mut wrong = Vec::new();
    if config.subnet != subnet.to_string() && !unusual(&config.subnet, subnet) {
        wrong.push(format!(
            "invalid subnet {}: it should be {subnet}",
            config.subnet
        ));
    }
    let range = &config.ip_range;
    if !range.is_empty() {
        let why = match Subnet::parse(range) {
            None => Some("invalid CIDR block notation".to_owned()),
            Some(r) if r.family() != subnet.family() => {
                Some(format!("parent subnet is an {} block", subnet.family()))
            }
            Some(r) if r.length() < subnet.length() => Some(format!(
                "CIDR block is bigger than its parent subnet {subnet}"
            )),
            Some(r) if *range != r.to_string() && !unusual(range, r) => {
                Some(format!("it should be {r}"))
            }
            Some(r) if !subnet.overlaps(r) => {
                Some(format!("parent subnet {subnet} doesn't contain ip-range"))
            }
            Some(_) => None,
        };
        wrong.extend(why.map(|why| format!("invalid ip-range {range}: {why}")));
    }
    let address = |text: &str| match text.parse::<IpAddr>() {
        _ if text.is_empty() => None,
        Err(_) => Some("invalid address".to_owned()),
        Ok(a) if Family::of(a) != subnet.family() => {
            Some(format!("parent subnet is an {} block", subnet.family()))
        }
        Ok(a) if !subnet.contains(a) => Some(format!(
            "parent subnet {subnet} doesn't contain this address"
        )),
        Ok(_) => None,
    };
    if let Some(why) = address(&config.gateway) {
        wrong.push(format!("invalid gateway {}: {why}", config.gateway));
    }
    for (name, text) in &config.auxiliary_addresses {
        if let Some(why) = address(text) {
            wrong.push(format!("invalid auxiliary address {name}: {why}"));
        }
    }
    wrong
}

/// Written in another way (`fd00:0::/64`), but with no bit too many.
fn unusual(text: &str, subnet: Subnet) -> bool {
    let address = text.split('/').next().and_then(|a| a.parse().ok());
    address == Some(subnet.base())
}

/// A checked pool.
fn pool(config: &IpamConfig) -> Result<Pool> {
    let bad = || Error::invalid(format!("invalid subnet {}", config.subnet));
    let subnet = Subnet::parse(&config.subnet).ok_or_else(bad)?;
    if subnet.size() < 2 {
        return Err(Error::message(
            "failed to allocate gateway: no address is left for it",
        ));
    }
    let range = Subnet::parse(&config.ip_range);
    let mut pool = Pool::new(subnet);
    pool.range = range;
    pool.configured = true;
    // Docker takes the first address of the range.
    if let Some(range) = range {
        pool.gateway = if range.base() == subnet.base() {
            range.at(1)
        } else {
            range.base()
        };
    }
    if let Ok(gateway) = config.gateway.parse() {
        pool.gateway = gateway;
    }
    for (name, text) in &config.auxiliary_addresses {
        let address = text.parse().map_err(|_| bad())?;
        pool.auxiliary.insert(name.clone(), address);
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine_api::types::{ConfigReference, Ipam};

    fn pool(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.to_owned(),
            ip_range: range.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamConfig::default()
        }
    }

    fn wanted(config: Vec<IpamConfig>) -> CreateNetwork {
        CreateNetwork {
            name: "back".to_owned(),
            ipam: Some(Ipam {
                config,
                ..Ipam::default()
            }),
            ..CreateNetwork::default()
        }
    }

    fn other() -> Record {
        let subnet = Subnet::parse("10.5.0.0/16").unwrap();
        Record {
            id: "cd".to_owned(),
            name: "other".to_owned(),
            bridge: "wl-other".to_owned(),
            v4: Some(Pool::new(subnet)),
            ..Record::default()
        }
    }

    fn make(wanted: CreateNetwork) -> Result<Record> {
        let other = other();
        let ground = Ground {
            records: vec![&other],
            routed: vec![Subnet::parse("172.18.0.0/16").unwrap()],
            seed: "host",
        };
        record(wanted, &ground, String::new())
    }

    #[test]
    fn addresses_as_asked_for() {
        let made = make(wanted(vec![pool("10.6.0.0/24", "", "10.6.0.254")])).unwrap();
        let v4 = made.v4.unwrap();
        assert_eq!(v4.gateway.to_string(), "10.6.0.254");
        assert_eq!(made.bridge.len(), LONGEST_NAME);
        let ranged = make(wanted(vec![pool("10.6.0.0/16", "10.6.9.0/24", "")])).unwrap();
        assert_eq!(ranged.v4.unwrap().gateway.to_string(), "10.6.9.0");
        let chosen = make(wanted(vec![])).unwrap().v4.unwrap();
        assert_eq!(chosen.subnet.to_string(), "172.19.0.0/16");
        assert!(!chosen.configured);
        let mut both = wanted(vec![pool("fd00:0::/64", "", "")]);
        let off = make(both.clone()).unwrap();
        assert!(off.v6.is_none() && off.spare_v6.is_some());
        both.enable_ipv6 = Some(true);
        let made = make(both.clone()).unwrap();
        assert_eq!(made.v6.unwrap().gateway.to_string(), "fd00::1");
        both.ipam = None;
        both.enable_ipv4 = Some(false);
        let made = make(both).unwrap();
        assert!(made.v4.is_none() && made.v6.unwrap().subnet.length() == 64);
    }

    #[test]
    fn nonsense_is_told_in_dockers_words() {
        for (config, words) in [
            (
                pool("10.5.1.0/24", "", ""),
                "Pool overlaps with other one on this address space",
            ),
            (
                pool("10.6.0.0", "", ""),
                "invalid subnet 10.6.0.0: invalid CIDR block notation",
            ),
            (
                pool("10.6.0.1/24", "", ""),
                "invalid subnet 10.6.0.1/24: it should be 10.6.0.0/24",
            ),
            (
                pool("10.6.0.0/24", "", "10.7.0.1"),
                "invalid gateway 10.7.0.1: parent subnet 10.6.0.0/24 doesn't contain this address",
            ),
            (
                pool("10.6.0.0/24", "", "fd00::1"),
                "invalid gateway fd00::1: parent subnet is an IPv4 block",
            ),
            (
                pool("10.6.0.0/24", "10.6.0.0/16", ""),
                "invalid ip-range 10.6.0.0/16: CIDR block is bigger than its parent subnet 10.6.0.0/24",
            ),
            (
                pool("10.6.0.0/24", "10.7.0.0/25", ""),
                "doesn't contain ip-range",
            ),
            (pool("10.6.0.0/32", "", ""), "failed to allocate gateway"),
        ] {
            let error = make(wanted(vec![config])).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
        let twice = vec![pool("10.6.0.0/24", "", ""), pool("10.7.0.0/24", "", "")];
        assert_eq!(make(wanted(twice)).unwrap_err().kind, Kind::Forbidden);
        let mut named = wanted(vec![]);
        named.options.insert(
            "com.docker.network.bridge.name".to_owned(),
            "wl-other".to_owned(),
        );
        assert!(
            make(named)
                .unwrap_err()
                .message
                .contains("same bridge name")
        );
        for (name, driver, kind) in [
            ("", "", Kind::Invalid),
            ("host", "", Kind::Forbidden),
            ("a", "host", Kind::Forbidden),
            ("a", "nosuch", Kind::NotFound),
            ("a", "overlay", Kind::Unavailable),
            ("a", "macvlan", Kind::Invalid),
        ] {
            let mut request = wanted(vec![]);
            (request.name, request.driver) = (name.to_owned(), driver.to_owned());
            assert_eq!(make(request).unwrap_err().kind, kind, "{name} {driver}");
        }
    }

    #[test]
    fn a_lent_configuration() {
        let mut lent = wanted(vec![pool("10.6.0.0/24", "", "")]);
        lent.config_only = true;
        let lender = make(lent).unwrap();
        assert!(!lender.has_bridge());
        let ground = Ground {
            records: vec![&lender],
            routed: Vec::new(),
            seed: "host",
        };
        let mut request = CreateNetwork {
            name: "borrows".to_owned(),
            config_from: Some(ConfigReference {
                network: "back".to_owned(),
            }),
            ..CreateNetwork::default()
        };
        let made = record(request.clone(), &ground, String::new()).unwrap();
        assert_eq!(made.v4, lender.v4);
        assert!(made.has_bridge() && made.id != lender.id);
        request.config_from = Some(ConfigReference {
            network: "nosuch".to_owned(),
        });
        let error = record(request, &ground, String::new()).unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }
}
