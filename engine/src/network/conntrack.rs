//! Connections that the kernel remembers: those of a published UDP port are forgotten when it changes hands, or a client
//! that keeps sending would reach the former container, or nobody, for as long as it sends.
//!
//! Deliberately absent: TCP, whose connections end with the container.

use anyhow::{Context as _, bail};
use nix::sys::socket::MsgFlags;

use super::netlink::{
    ACKNOWLEDGE, Attributes, NESTED, REQUEST, attribute, dump, general, message, open, parts,
    receive, send,
};
use super::nft::{IP, IP6};
use super::rules::has_v6;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const UDP: u8 = 17;

/// Forgets what was sent to these UDP ports of the host.
pub fn forget(ports: &[u16]) -> anyhow::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    for family in [IP, IP6] {
        if family == IP6 && !has_v6() {
            continue;
        }
        let all = dump(SUBSYSTEM | GET, family, &Attributes::default());
        let all = all.context("list connections")?;
        let originals = all.iter().filter_map(|(_, body)| attribute(body, ORIGINAL));
        for original in originals.filter(|o| udp_port(o).is_some_and(|p| ports.contains(&p))) {
            delete(family, original).context("forget a connection")?;
        }
    }
    Ok(())
}

/// The destination of a connection's first packet, if that is UDP.
fn udp_port(original: &[u8]) -> Option<u16> {
    let transport = attribute(original, 2)?;
    let port: [u8; 2] = attribute(transport, 3)?.get(..2)?.try_into().ok()?;
    (attribute(transport, 1)? == [UDP]).then(|| u16::from_be_bytes(port))
}

fn delete(family: u8, original: &[u8]) -> anyhow::Result<()> {
    let socket = open()?;
    let mut which = Attributes::default();
    which.put(ORIGINAL | NESTED, original);
    let mut request = Vec::new();
    let head = (SUBSYSTEM | DELETE, REQUEST | ACKNOWLEDGE, 1);
    message(&mut request, head, &general(family, 0), &which);
    send(&socket, &request)?;
    while let Some(answer) = receive(&socket, MsgFlags::MSG_DONTWAIT)? {
        for code in parts(&answer).filter_map(|p| p.error()) {
            // It may have ended by itself.
            if code != 0 && code != libc::ENOENT {
                bail!(std::io::Error::from_raw_os_error(code));
            }
        }
    }
    Ok(())
}
