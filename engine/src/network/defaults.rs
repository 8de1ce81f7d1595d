//! What a new network is: the default one from the engine's options, a user's from the request.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use windlass_engine_api::types::CreateNetwork;

use super::Settings;
use super::link::Links;
use super::record::Record;
use super::rules::USERS;
use super::subnet::{self, Subnet};
use crate::container::clock;
use crate::container::error::{Error, Kind, Result};

/// The option's own default: no wish, so that another range may be taken where it is in use.
pub const SUBNET: &str = "172.29.0.0/16";
const LONGEST_NAME: usize = 15;
/// Two containers at least.
const SMALLEST: u8 = 29;

/// The default network's record, taken out of `records` if it was there.
pub async fn settle(
    settings: &Settings,
    links: &Links,
    records: &mut Vec<Record>,
) -> anyhow::Result<Record> {
    if !is_interface(&settings.bridge) {
        bail!(
            "--bridge: '{}' is no name for an interface",
            settings.bridge
        );
    }
    let wanted = Subnet::parse(&settings.subnet)
        .filter(|s| s.length() >= 8 && s.length() <= SMALLEST)
        .with_context(|| {
            format!(
                "--bridge-subnet: '{}' is no IPv4 network like 10.1.0.0/16",
                settings.subnet
            )
        })?;
    let former = records.iter().position(|r| r.is_default());
    let former = former.map(|at| records.swap_remove(at));
    let bridge = links.find(&settings.bridge).await?;
    let wish = settings.subnet != SUBNET;
    let kept = former
        .as_ref()
        .map(Record::range)
        .filter(|range| !wish || *range == wanted);
    let range = match kept {
        Some(kept) if bridge.is_some() => kept,
        _ => {
            let mut taken = links.routed(bridge).await?;
            taken.extend(records.iter().map(Record::range));
            free(kept, wanted, wish, &taken)?
        }
    };
    let (id, created) = match former {
        Some(former) => (former.id, former.created),
        None => (new_id(), clock::now()),
    };
    Ok(Record {
        id,
        name: "bridge".to_owned(),
        created,
        bridge: settings.bridge.clone(),
        subnet: range.to_string(),
        gateway: range.at(1),
        internal: false,
        attachable: false,
        labels: Default::default(),
    })
}

fn free(
    kept: Option<Subnet>,
    wanted: Subnet,
    wish: bool,
    taken: &[Subnet],
) -> anyhow::Result<Subnet> {
    let clash = |range: &Subnet| taken.iter().find(|t| t.overlaps(*range));
    let mut candidates = kept.into_iter().chain([wanted]);
    if let Some(range) = candidates.find(|c| clash(c).is_none()) {
        return Ok(range);
    }
    match clash(&wanted) {
        Some(other) if wish => bail!(
            "--bridge-subnet: {wanted} overlaps with {other}, which this host already uses; choose another"
        ),
        _ => subnet::choose(taken).context("no private address range is free for containers"),
    }
}

fn is_interface(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// A user's network.
pub fn record(wanted: CreateNetwork, taken: &[Subnet], created: String) -> Result<Record> {
    check(&wanted)?;
    let pools = wanted.ipam.map(|i| i.config).unwrap_or_default();
    let (range, gateway) = match &pools[..] {
        [] => automatic(taken)?,
        [pool] if pool.subnet.is_empty() => automatic(taken)?,
        [pool] => asked(&pool.subnet, &pool.gateway, taken)?,
        _ => {
            return Err(Error::invalid(
                "windlassd's networks have one IPv4 subnet each",
            ));
        }
    };
    let id = new_id();
    Ok(Record {
        bridge: format!("{USERS}{}", &id[..LONGEST_NAME - USERS.len()]),
        id,
        name: wanted.name,
        created,
        subnet: range.to_string(),
        gateway,
        internal: wanted.internal,
        attachable: wanted.attachable,
        labels: wanted.labels,
    })
}

fn check(wanted: &CreateNetwork) -> Result<()> {
    let name = &wanted.name;
    let valid = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !valid {
        return Err(Error::invalid(format!(
            "invalid network name \"{name}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    if wanted.enable_ipv6 == Some(true) {
        return Err(Error::invalid("windlassd's networks have no IPv6 yet"));
    }
    if let Some(option) = wanted.options.keys().next() {
        return Err(Error::invalid(format!(
            "windlassd's networks take no options, and {option} was given"
        )));
    }
    let Some(ipam) = &wanted.ipam else {
        return Ok(());
    };
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(Error::not_found(format!(
            "could not find plugin {} in v1 plugin registry: plugin not found",
            ipam.driver
        )));
    }
    if ipam.config.iter().any(|c| !c.ip_range.is_empty()) {
        return Err(Error::invalid(
            "windlassd's networks give addresses from their whole subnet: --ip-range is not supported",
        ));
    }
    Ok(())
}

fn automatic(taken: &[Subnet]) -> Result<(Subnet, Ipv4Addr)> {
    let range = subnet::choose(taken)
        .ok_or_else(|| Error::message("all predefined address pools have been fully subnetted"))?;
    Ok((range, range.at(1)))
}

fn asked(text: &str, gateway: &str, taken: &[Subnet]) -> Result<(Subnet, Ipv4Addr)> {
    let range = Subnet::parse(text)
        .filter(|s| s.length() >= 8 && s.length() <= SMALLEST)
        .ok_or_else(|| {
            Error::invalid(format!(
                "invalid subnet {text}: an IPv4 network like 10.1.0.0/16 is needed"
            ))
        })?;
    if let Some(other) = taken.iter().find(|t| t.overlaps(range)) {
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "invalid pool request: Pool overlaps with other one on this address space: {other}"
            ),
        ));
    }
    if gateway.is_empty() {
        return Ok((range, range.at(1)));
    }
    let address: Option<Ipv4Addr> = gateway.parse().ok();
    let inside = address.filter(|a| {
        let place = range.place(*a).map(u64::from);
        place.is_some_and(|p| p > 0 && p + 1 < range.size())
    });
    let address = inside.ok_or_else(|| {
        Error::invalid(format!("invalid gateway {gateway}: it is not in {range}"))
    })?;
    Ok((range, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine_api::types::{Ipam, IpamConfig};

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    #[test]
    fn the_default_range_gives_way_and_a_wish_does_not() {
        let default = subnet(SUBNET);
        let nested = [subnet("172.29.0.0/16")];
        assert_eq!(free(None, default, false, &[]).unwrap(), default);
        let other = free(None, default, false, &nested).unwrap();
        assert!(!other.overlaps(default));
        let error = free(None, default, true, &nested).unwrap_err().to_string();
        assert!(error.contains("172.29.0.0/16"), "{error}");
        let kept = subnet("172.27.0.0/16");
        assert_eq!(free(Some(kept), default, false, &nested).unwrap(), kept);
    }

    #[test]
    fn users_networks() {
        let wanted = |config: Vec<IpamConfig>| CreateNetwork {
            name: "back".to_owned(),
            ipam: Some(Ipam {
                config,
                ..Ipam::default()
            }),
            ..CreateNetwork::default()
        };
        let pool = |subnet: &str, gateway: &str| IpamConfig {
            subnet: subnet.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamConfig::default()
        };
        let taken = [subnet("10.5.0.0/16")];
        let make = |config| record(wanted(config), &taken, String::new());
        let made = make(vec![pool("10.6.0.0/24", "10.6.0.254")]).unwrap();
        assert_eq!(made.gateway, Ipv4Addr::new(10, 6, 0, 254));
        assert_eq!(made.bridge.len(), LONGEST_NAME);
        assert_eq!(make(vec![]).unwrap().gateway.octets()[3], 1);
        for (config, words) in [
            (pool("10.5.1.0/24", ""), "overlaps"),
            (pool("fd00::/64", ""), "invalid subnet"),
            (pool("10.6.0.0/24", "10.7.0.1"), "invalid gateway"),
            (pool("10.6.0.0/24", "10.6.0.255"), "invalid gateway"),
        ] {
            let error = make(vec![config]).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
        let mut bad = wanted(vec![]);
        bad.options.insert("mtu".to_owned(), "1".to_owned());
        assert!(
            record(bad, &taken, String::new())
                .unwrap_err()
                .message
                .contains("mtu")
        );
    }
}
