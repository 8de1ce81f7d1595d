//! A driver's options: what they are called, and what they mean.

use std::net::{IpAddr, Ipv4Addr};

use windlass_engine_api::types::StringMap;

use super::subnet::Family;
use crate::container::error::{Error, Result};

const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const MODES: [&str; 2] = [
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
];

/// How packets leave and enter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Addresses are rewritten.
    #[default]
    Nat,
    /// Addresses are rewritten; who has a route to the container may use it, too, on any port.
    Unprotected,
    /// No address is rewritten: published ports are those that may be reached at the container's own address.
    Routed,
    /// The host has no address on the bridge.
    Isolated,
}

/// What a network's options say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The interface's name.
    pub name: Option<String>,
    /// Containers may reach each other.
    pub among_each_other: bool,
    /// The way out is masqueraded.
    pub masquerade: bool,
    /// Where ports are published without an address.
    pub binding: Option<IpAddr>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// What containers' interfaces are called.
    pub prefix: String,
    /// For IPv4 and IPv6.
    pub modes: [Mode; 2],
    /// The interface that a macvlan or ipvlan network lies beside.
    pub parent: Option<String>,
    /// How its interfaces see each other.
    pub kind: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            among_each_other: true,
            masquerade: true,
            binding: None,
            mtu: None,
            prefix: "eth".to_owned(),
            modes: [Mode::Nat; 2],
            parent: None,
            kind: None,
        }
    }
}

impl Options {
    /// How packets of a family leave and enter.
    pub fn mode(&self, family: Family) -> Mode {
        match family {
            Family::V4 => self.modes[0],
            Family::V6 => self.modes[1],
        }
    }
}

/// Reads them; those of other drivers and of other engines are kept by the record, and mean nothing here.
pub fn read(options: &StringMap) -> Result<Options> {
    let mut read = Options::default();
    for (name, value) in options {
        match name.as_str() {
            NAME => read.name = (!value.is_empty()).then(|| value.clone()),
            ICC => read.among_each_other = truth(name, value)?,
            MASQUERADE => read.masquerade = truth(name, value)?,
            BINDING => {
                let address: Ipv4Addr = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid value for {name}: {value}")))?;
                read.binding = (!address.is_unspecified()).then_some(address.into());
            }
            MTU | "mtu" => {
                let mtu = value.parse().ok().filter(|m| *m <= 65536);
                read.mtu = mtu.ok_or_else(|| bad(name, value)).map(Some)?;
                read.mtu = read.mtu.filter(|m| *m > 0);
            }
            PREFIX => {
                super::defaults::interface(value)
                    .map_err(|_| Error::invalid(format!("invalid interface prefix: {value}")))?;
                read.prefix.clone_from(value);
            }
            "parent" => read.parent = (!value.is_empty()).then(|| value.clone()),
            "macvlan_mode" | "ipvlan_mode" => read.kind = Some(value.clone()),
            _ => {
                if let Some(at) = MODES.iter().position(|m| m == name) {
                    read.modes[at] = mode(name, value)?;
                }
            }
        }
    }
    Ok(read)
}

fn bad(name: &str, value: &str) -> Error {
    Error::invalid(format!("invalid value for option {name}: '{value}'"))
}

fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(bad(name, value)),
    }
}

fn mode(name: &str, value: &str) -> Result<Mode> {
    match value {
        "" | "nat" => Ok(Mode::Nat),
        "nat-unprotected" => Ok(Mode::Unprotected),
        "routed" => Ok(Mode::Routed),
        "isolated" => Ok(Mode::Isolated),
        other => Err(Error::invalid(format!(
            "unknown gateway mode {other} for {name}"
        ))),
    }
}

/// How the default network is shown.
pub fn of_default(bridge: &str) -> StringMap {
    [
        (DEFAULT, "true"),
        (ICC, "true"),
        (MASQUERADE, "true"),
        (BINDING, "0.0.0.0"),
        (NAME, bridge),
        (MTU, "1500"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        assert_eq!(read(&map(&[])).unwrap(), Options::default());
        let options = read(&map(&[
            (ICC, "false"),
            (MTU, "1400"),
            (BINDING, "127.0.0.1"),
            (MODES[0], "routed"),
            ("other", "x"),
        ]));
        let options = options.unwrap();
        assert!(!options.among_each_other && options.mtu == Some(1400));
        assert_eq!(options.binding, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(options.mode(Family::V4), Mode::Routed);
        assert_eq!(options.mode(Family::V6), Mode::Nat);
        for (name, value) in [
            (ICC, "perhaps"),
            (MTU, "large"),
            (BINDING, "localhost"),
            (MODES[1], "magic"),
            (PREFIX, "a/b"),
        ] {
            assert!(read(&map(&[(name, value)])).is_err(), "{name}");
        }
        assert_eq!(
            read(&of_default("wl0")).unwrap().name.as_deref(),
            Some("wl0")
        );
    }
}
