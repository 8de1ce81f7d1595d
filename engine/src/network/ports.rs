//! Choosing a port of the host.

use std::net::{IpAddr, TcpListener, UdpSocket};

use fs_err as fs;

use super::rule::Protocol;
use super::subnet::{Family, Subnet};
use crate::container::error::{Error, Result};
use crate::container::validate;

/// A port of the host that a container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The host's address; unspecified: all of its family.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub port: u16,
    /// Of both.
    pub protocol: Protocol,
}

impl Chosen {
    /// Whether it is in the way.
    pub fn collides(&self, protocol: Protocol, host: IpAddr, port: u16) -> bool {
        let same_host = self.host == host || self.host.is_unspecified() || host.is_unspecified();
        self.protocol == protocol
            && self.host_port == port
            && Family::of(self.host) == Family::of(host)
            && same_host
    }
}

/// Whether a port can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Free {
    /// Yes.
    Yes,
    /// Another process of the host has it.
    Taken,
    /// The host has no such address.
    NoAddress,
}

/// Asks the host by binding there for a moment.
pub fn probe(protocol: Protocol, host: IpAddr, port: u16) -> Free {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind((host, port)).map(drop),
        Protocol::Udp => UdpSocket::bind((host, port)).map(drop),
        // Its module may be missing on the host, and is not needed for passing packets on.
        Protocol::Sctp => Ok(()),
    };
    match bound {
        Ok(()) => Free::Yes,
        Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => Free::NoAddress,
        // `::` includes 0.0.0.0 for whoever asks for it: our own rules of the other family are not in its way.
        Err(_) => Free::Taken,
    }
}

/// `80/tcp`.
pub fn read(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = validate::parse_port(text)?;
    let protocol = match protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Udp,
    };
    Ok((port, protocol))
}

/// The host's addresses for a binding: those of all families that lead to the container if none is named.
pub fn hosts(text: &str, default: Option<IpAddr>, open: &[Family]) -> Result<Vec<IpAddr>> {
    let named: Option<IpAddr> = match text {
        "" => default.filter(|d| open.contains(&Family::of(*d))),
        text => Some(
            text.parse()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?,
        ),
    };
    match named {
        None => Ok(open.iter().map(|f| f.unspecified()).collect()),
        Some(address) if open.contains(&Family::of(address)) => Ok(vec![address]),
        Some(address) => Err(Error::invalid(format!(
            "cannot publish on {address}: the container has no {} address with a way out",
            Family::of(address)
        ))),
    }
}

/// The networks that may reach a port.
pub fn sources(wanted: Option<&[String]>) -> Result<Option<Vec<Subnet>>> {
    let read = |text: &String| {
        Subnet::parse(text)
            .ok_or_else(|| Error::invalid(format!("'{text}' is no network of addresses")))
    };
    wanted.map(|all| all.iter().map(read).collect()).transpose()
}

/// `0.0.0.0:80`, `[::]:80`.
fn shown(host: IpAddr, port: impl std::fmt::Display) -> String {
    match host {
        IpAddr::V4(host) => format!("{host}:{port}"),
        IpAddr::V6(host) => format!("[{host}]:{port}"),
    }
}

/// A host port as asked for: a number, a range, or (empty or 0) any.
pub fn choose(
    wanted: &str,
    protocol: Protocol,
    hosts: &[IpAddr],
    taken: &dyn Fn(u16) -> bool,
    free: &dyn Fn(Protocol, IpAddr, u16) -> Free,
) -> Result<u16> {
    let first = hosts.first().copied().unwrap_or(Family::V4.unspecified());
    let usable = |port: u16| -> Result<()> {
        if taken(port) {
            return Err(Error::message(format!(
                "Bind for {} failed: port is already allocated",
                shown(first, port)
            )));
        }
        for host in hosts {
            let why = match free(protocol, *host, port) {
                Free::Yes => continue,
                Free::Taken => "address already in use",
                Free::NoAddress => "cannot assign requested address",
            };
            return Err(Error::message(format!(
                "failed to bind host port {}/{protocol}: {why}",
                shown(*host, port)
            )));
        }
        Ok(())
    };
    let (low, high) = match wanted {
        "" | "0" => return any(&usable),
        range if range.contains('-') => validate::parse_range(range)?,
        one => {
            let port = one
                .parse()
                .map_err(|_| Error::invalid(format!("invalid port specification: \"{wanted}\"")))?;
            (port, port)
        }
    };
    let mut last = Ok(());
    for port in low..=high {
        last = usable(port);
        if last.is_ok() {
            return Ok(port);
        }
    }
    match last {
        Err(error) if low == high => Err(error),
        _ => Err(Error::message(format!(
            "Bind for {} failed: all ports are allocated",
            shown(first, format!("{low}-{high}"))
        ))),
    }
}

/// From the host's own range for such ports, beginning anywhere.
fn any(usable: &dyn Fn(u16) -> Result<()>) -> Result<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text
        .split_whitespace()
        .filter_map(|e| e.parse::<u16>().ok());
    let (low, high) = match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if low < high => (low, high),
        _ => (32768, 60999),
    };
    let count = u32::from(high - low) + 1;
    let start = rand::random::<u32>() % count;
    for step in 0..count {
        let port = low + ((start + step) % count) as u16;
        match usable(port) {
            Ok(()) => return Ok(port),
            Err(error) if error.message.contains("cannot assign") => return Err(error),
            Err(_) => {}
        }
    }
    Err(Error::message("all ports are allocated"))
}
