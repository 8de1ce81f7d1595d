//! Giving addresses to containers: pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::record::{Pool, Record};
use super::subnet::{Family, Subnet};
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::Join;

/// An address of a family for a container; `None`: the network has none of it.
pub fn choose(
    record: &Record,
    family: Family,
    wanted: &Join,
    taken: &BTreeSet<IpAddr>,
    next: &mut u128,
) -> Result<Option<IpAddr>> {
    let text = match family {
        Family::V4 => &wanted.v4,
        Family::V6 => &wanted.v6,
    };
    check(record, family, text.as_deref())?;
    let Some(pool) = record.pool(family) else {
        return Ok(None);
    };
    let kept = |address: &IpAddr| {
        *address == pool.gateway || pool.auxiliary.values().any(|other| other == address)
    };
    if let Some(address) = text.as_ref().and_then(|text| text.parse().ok()) {
        if taken.contains(&address) || kept(&address) {
            return Err(Error::new(Kind::Forbidden, "Address already in use"));
        }
        return Ok(Some(address));
    }
    let range = pool.range.unwrap_or(pool.subnet);
    let is_free =
        |address: &IpAddr| usable(pool, *address) && !taken.contains(address) && !kept(address);
    // The address of the last run, while it is free: what others noted of it still holds after a restart.
    let former = match family {
        Family::V4 => &wanted.former_v4,
        Family::V6 => &wanted.former_v6,
    };
    let former = former.as_ref().and_then(|f| f.parse().ok());
    if let Some(address) = former.filter(|a| range.contains(*a) && is_free(a)) {
        return Ok(Some(address));
    }
    search(range, next, taken.len() + pool.auxiliary.len(), &is_free)
        .map(Some)
        .ok_or_else(|| {
            Error::message(format!(
                "no available {family} addresses on this network's address pools: {} ({})",
                record.name, record.id
            ))
        })
}

/// The next free one after the last that was given; at the end from the beginning.
fn search(
    range: Subnet,
    next: &mut u128,
    taken: usize,
    is_free: &dyn Fn(&IpAddr) -> bool,
) -> Option<IpAddr> {
    // Taken, the gateway, the network itself and broadcast.
    let tries = range.size().min(taken as u128 + 4);
    for step in 0..tries {
        let place = (*next + step) % range.size();
        let candidate = range.at(place);
        if is_free(&candidate) {
            *next = (place + 1) % range.size();
            return Some(candidate);
        }
    }
    // What rests in front of it.
    (0..range.size().min(1 << 17))
        .map(|p| range.at(p))
        .find(is_free)
}

/// Neither the network itself nor its broadcast address.
fn usable(pool: &Pool, address: IpAddr) -> bool {
    let subnet = pool.subnet;
    let edge =
        address == subnet.base() || subnet.family() == Family::V4 && address == subnet.last();
    subnet.contains(address) && (!edge || subnet.size() <= 2)
}

/// Whether a container may ask for this address.
fn check(record: &Record, family: Family, text: Option<&str>) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    let wrong = |why: &str| Err(Error::invalid(why.to_owned()));
    if record.is_default() {
        return wrong("user specified IP address is supported on user defined networks only");
    }
    let address: Option<IpAddr> = text.parse().ok();
    let Some(address) = address.filter(|a| Family::of(*a) == family) else {
        return wrong(&format!("invalid {family} address: {text}"));
    };
    let spare = record.spare_v6.as_ref().filter(|_| family == Family::V6);
    match record.pool(family).or(spare) {
        Some(pool) if pool.configured => {
            if usable(pool, address) {
                Ok(())
            } else {
                wrong(&format!(
                    "no configured subnet or ip-range contain the IP address {address}"
                ))
            }
        }
        _ => wrong(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subnet: &str, range: Option<&str>) -> Record {
        let mut pool = Pool::new(Subnet::parse(subnet).unwrap());
        pool.range = range.and_then(Subnet::parse);
        pool.configured = true;
        let mut record = Record {
            name: "net".to_owned(),
            ..Record::default()
        };
        match pool.subnet.family() {
            Family::V4 => record.v4 = Some(pool),
            Family::V6 => record.v6 = Some(pool),
        }
        record
    }

    #[test]
    fn every_address_is_given_once() {
        let record = record("10.0.0.0/29", None);
        let (mut taken, mut next) = (BTreeSet::new(), 0);
        let any = Join::default();
        for _ in 0..5 {
            let given = choose(&record, Family::V4, &any, &taken, &mut next)
                .unwrap()
                .unwrap();
            assert!(taken.insert(given));
        }
        assert!(
            !taken.contains(&"10.0.0.1".parse().unwrap()),
            "the gateway's"
        );
        let error = choose(&record, Family::V4, &any, &taken, &mut next).unwrap_err();
        assert!(error.message.contains("no available IPv4 addresses"));
        let back = "10.0.0.4".parse().unwrap();
        taken.remove(&back);
        let again = choose(&record, Family::V4, &any, &taken, &mut next).unwrap();
        assert_eq!(again, Some(back));
        assert_eq!(
            choose(&record, Family::V6, &any, &taken, &mut next).unwrap(),
            None
        );
    }

    #[test]
    fn a_given_back_address_rests_and_a_former_one_comes_back() {
        let record = record("fd00::/64", Some("fd00::100/120"));
        let (taken, mut next) = (BTreeSet::new(), 0);
        let mut wanted = Join::default();
        let mut take =
            |wanted: &Join| choose(&record, Family::V6, wanted, &taken, &mut next).unwrap();
        let first = take(&wanted);
        assert_eq!(first, "fd00::100".parse().ok());
        assert_ne!(take(&wanted), first);
        wanted.former_v6 = Some("fd00::100".to_owned());
        assert_eq!(take(&wanted), first);
        wanted.former_v6 = Some("fd00::5".to_owned());
        assert_ne!(take(&wanted), "fd00::5".parse().ok(), "not in the range");
    }

    #[test]
    fn an_address_as_asked_for() {
        let record = record("10.0.0.0/24", None);
        let taken = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
        let ask = |record: &Record, text: &str| {
            let wanted = Join {
                v4: Some(text.to_owned()),
                ..Join::default()
            };
            choose(record, Family::V4, &wanted, &taken, &mut 0)
        };
        assert_eq!(ask(&record, "10.0.0.7").unwrap(), "10.0.0.7".parse().ok());
        for (text, words) in [
            ("10.0.1.2", "no configured subnet"),
            ("10.0.0.255", "no configured subnet"),
            ("10.0.0.1", "Address already in use"),
            ("10.0.0.9", "Address already in use"),
            ("x", "invalid IPv4 address: x"),
            ("fd00::1", "invalid IPv4 address"),
        ] {
            let error = ask(&record, text).unwrap_err();
            assert!(error.message.contains(words), "{text}: {}", error.message);
        }
        let mut off = record.clone();
        off.spare_v6 = Some(Pool::new(Subnet::parse("fd00::/64").unwrap()));
        off.spare_v6.as_mut().unwrap().configured = true;
        let wanted = Join {
            v6: Some("fd00::5".to_owned()),
            ..Join::default()
        };
        let none = choose(&off, Family::V6, &wanted, &taken, &mut 0).unwrap();
        assert_eq!(none, None, "IPv6 is off");
        let mut other = record.clone();
        other.v4.as_mut().unwrap().configured = false;
        let error = ask(&other, "10.0.0.7").unwrap_err();
        assert!(error.message.contains("user configured subnets"));
        other.name = "bridge".to_owned();
        let error = ask(&other, "10.0.0.7").unwrap_err();
        assert!(error.message.contains("user defined networks only"));
    }
}
