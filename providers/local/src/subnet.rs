//! A subnet for the machines that nothing on this computer uses.

use std::net::Ipv4Addr;
use std::path::Path;

use fs_err as fs;
use windlass_provider::{ErrorKind, ProviderError, Result};

use crate::failure;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Net {
    address: u32,
    mask: u32,
}

impl Net {
    fn overlaps(self, other: Net) -> bool {
        let mask = self.mask & other.mask;
        self.address & mask == other.address & mask
    }
}

/// The one in `file`, or a free one that is then written there. The caller holds a lock of the whole computer.
pub fn choose(file: &Path, reservations: &Path) -> Result<String> {
    if let Ok(known) = fs::read_to_string(file)
        && parse(known.trim()).is_some()
    {
        return Ok(known.trim().to_owned());
    }
    let routes = fs::read_to_string("/proc/net/route")
        .map_err(failure::of_host("cannot read the routes of this computer"))?;
    let mut taken = parse_routes(&routes);
    taken.extend(reserved(reservations));
    let free = candidates()
        .find(|(_, net)| !taken.iter().any(|other| net.overlaps(*other)))
        .map(|(text, _)| text)
        .ok_or_else(|| {
            ProviderError::new(
                ErrorKind::Quota,
                "no private subnet of this computer is free for local machines",
            )
        })?;
    fs::write(file, format!("{free}\n")).map_err(failure::of_host("cannot write the subnet"))?;
    Ok(free)
}

/// 172.29 is the engine's default, used inside the machines; 172.17 to 172.20 are Docker's.
fn candidates() -> impl Iterator<Item = (String, Net)> {
    let first = (30..32).chain(21..29).map(|n| format!("172.{n}.0.0/16"));
    let second = (180..240).map(|n| format!("10.{n}.0.0/16"));
    first
        .chain(second)
        .filter_map(|text| parse(&text).map(|net| (text, net)))
}

fn parse(text: &str) -> Option<Net> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
    Some(Net {
        address: address.parse::<Ipv4Addr>().ok()?.to_bits(),
        mask: u32::MAX << (32 - bits),
    })
}

/// Without the default route, which overlaps everything.
fn parse_routes(table: &str) -> Vec<Net> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let net = Net {
                address: number(columns.get(1)?)?,
                mask: number(columns.get(7)?)?,
            };
            (net.mask != 0).then_some(net)
        })
        .collect()
}

/// What other state folders of this computer have chosen since the last boot.
fn reserved(folder: &Path) -> Vec<Net> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("subnet")).ok())
        .filter_map(|text| parse(text.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
br0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    #[test]
    fn routes_are_read_and_avoided() {
        let routes = parse_routes(ROUTES);
        assert_eq!(routes, [parse("172.30.0.0/16").unwrap()]);
        let wide = parse("172.16.0.0/12").unwrap();
        assert!(wide.overlaps(routes[0]) && routes[0].overlaps(wide));
        assert!(!routes[0].overlaps(parse("172.31.0.0/16").unwrap()));
        assert!(candidates().all(|(text, _)| !text.starts_with("172.29.")));
        for bad in ["", "10.0.0.0", "10.0.0.0/0", "10.0.0.0/33", "x/8"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn chosen_once_and_apart() {
        let run = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for name in ["a", "b", "c"] {
            let folder = run.path().join(name);
            fs::create_dir(&folder).unwrap();
            let file = folder.join("subnet");
            let chosen = choose(&file, run.path()).unwrap();
            assert!(!seen.contains(&chosen), "{chosen} twice");
            assert_eq!(choose(&file, run.path()).unwrap(), chosen);
            seen.push(chosen);
        }
    }
}
