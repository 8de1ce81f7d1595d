//! Choosing a port of the host.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use fs_err as fs;

use super::rule::Protocol;
use super::rules::Published;
use super::subnet::Subnet;
use crate::container::error::{Error, Result};
use crate::container::validate;

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
pub fn probe(protocol: Protocol, host: Ipv4Addr, port: u16) -> Free {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind((host, port)).map(drop),
        Protocol::Udp => UdpSocket::bind((host, port)).map(drop),
    };
    match bound {
        Ok(()) => Free::Yes,
        Err(e) if e.kind() == std::io::ErrorKind::AddrNotAvailable => Free::NoAddress,
        Err(_) => Free::Taken,
    }
}

/// `80/tcp`.
pub fn read(text: &str) -> Result<(u16, Protocol)> {
    let (port, protocol) = validate::parse_port(text)?;
    let protocol = match protocol.as_str() {
        "tcp" => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    Ok((port, protocol))
}

/// Empty: all addresses.
pub fn host_address(text: &str) -> Result<Ipv4Addr> {
    match text.parse() {
        _ if text.is_empty() => Ok(Ipv4Addr::UNSPECIFIED),
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err(Error::invalid(format!(
            "windlassd publishes ports on IPv4 addresses only, and {text} is an IPv6 address"
        ))),
        Err(_) => Err(Error::invalid(format!("invalid IP address: {text}"))),
    }
}

/// The networks that may reach a port.
pub fn sources(wanted: Option<&[String]>) -> Result<Option<Vec<Subnet>>> {
    let read = |text: &String| {
        Subnet::parse(text).ok_or_else(|| Error::invalid(format!("'{text}' is no IPv4 network")))
    };
    wanted.map(|all| all.iter().map(read).collect()).transpose()
}

/// Whether a published port is in the way.
pub fn collides(other: &Published, protocol: Protocol, host: Ipv4Addr, port: u16) -> bool {
    let same_host = other.host == host || other.host.is_unspecified() || host.is_unspecified();
    other.protocol == protocol && other.host_port == port && same_host
}

/// A host port as asked for: a number, a range, or (empty or 0) any.
pub fn choose(
    wanted: &str,
    protocol: Protocol,
    host: Ipv4Addr,
    taken: &dyn Fn(u16) -> bool,
    free: &dyn Fn(Protocol, Ipv4Addr, u16) -> Free,
) -> Result<u16> {
    let usable = |port: u16| -> Result<bool> {
        if taken(port) {
            return Ok(false);
        }
        match free(protocol, host, port) {
            Free::Yes => Ok(true),
            Free::Taken => Ok(false),
            Free::NoAddress => Err(Error::message(format!(
                "Bind for {host}:{port} failed: cannot assign requested address"
            ))),
        }
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
    for port in low..=high {
        if usable(port)? {
            return Ok(port);
        }
    }
    Err(Error::message(if low == high {
        format!("Bind for {host}:{low} failed: port is already allocated")
    } else {
        format!("Bind for {host}:{low}-{high} failed: all ports are already allocated")
    }))
}

/// From the host's own range for such ports, beginning anywhere.
fn any(usable: &dyn Fn(u16) -> Result<bool>) -> Result<u16> {
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
        if usable(port)? {
            return Ok(port);
        }
    }
    Err(Error::message("all ports are allocated"))
}
