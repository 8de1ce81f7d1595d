//! nftables without the `nft` program: netlink messages in one atomic batch.
//!
//! Deliberately absent: everything that our rules do not need (sets, maps, IPv6), and which rules there are (`rules`).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};

use super::subnet::Subnet;

/// Address family `ip`.
pub const IP: u8 = 2;
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// A batch of some ten thousand rules.
const SEND_BUFFER: usize = 32 * 1024 * 1024;

/// A list of netlink attributes.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, data: &[u8]) {
        let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind | NESTED, &inner.0);
    }
}

/// Which way an interface or an address is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where a packet comes from.
    From,
    /// Where it goes.
    To,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A rule: conditions, then one verdict.
#[derive(Default)]
pub struct Rule {
    expressions: Attributes,
    comment: String,
}

impl Rule {
    /// Without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a text by which it is found again.
    pub fn commented(comment: &str) -> Self {
        Self {
            comment: comment.to_owned(),
            ..Self::default()
        }
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(1, |list| {
            list.text(1, name);
            list.nest(2, fill);
        });
        self
    }

    fn compare(self, operation: u32, value: &[u8]) -> Self {
        self.expression("cmp", |e| {
            e.number(1, 1);
            e.number(2, operation);
            e.nest(3, |data| data.put(1, value));
        })
    }

    fn masked(self, mask: [u8; 4]) -> Self {
        self.expression("bitwise", |e| {
            e.number(1, 1);
            e.number(2, 1);
            e.number(3, 4);
            e.nest(4, |data| data.put(1, &mask));
            e.nest(5, |data| data.put(1, &[0; 4]));
        })
    }

    fn named(self, side: Side, operation: u32, interface: &str) -> Self {
        let mut name = interface.as_bytes().to_vec();
        name.resize(16, 0);
        let key = if side == Side::From { 6 } else { 7 };
        self.expression("meta", |e| {
            e.number(1, 1);
            e.number(2, key);
        })
        .compare(operation, &name)
    }

    /// This interface.
    pub fn interface(self, side: Side, name: &str) -> Self {
        self.named(side, 0, name)
    }

    /// Any interface but this one.
    pub fn not_interface(self, side: Side, name: &str) -> Self {
        self.named(side, 1, name)
    }

    /// An address in this network.
    pub fn address(self, side: Side, network: Subnet) -> Self {
        let offset = if side == Side::From { 12 } else { 16 };
        let loaded = self.expression("payload", |e| {
            e.number(1, 1);
            e.number(2, 1);
            e.number(3, offset);
            e.number(4, 4);
        });
        let loaded = if network.length() < 32 {
            loaded.masked(network.mask().octets())
        } else {
            loaded
        };
        loaded.compare(0, &network.base().octets())
    }

    /// A destination port.
    pub fn port(self, protocol: Protocol, port: u16) -> Self {
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        self.expression("meta", |e| {
            e.number(1, 1);
            e.number(2, 16);
        })
        .compare(0, &[number])
        .expression("payload", |e| {
            e.number(1, 1);
            e.number(2, 2);
            e.number(3, 2);
            e.number(4, 2);
        })
        .compare(0, &port.to_be_bytes())
    }

    /// The destination is an address of this host.
    pub fn local_destination(self) -> Self {
        const LOCAL: u32 = 2;
        self.expression("fib", |e| {
            e.number(1, 1);
            e.number(2, 3);
            e.number(3, 2);
        })
        .compare(0, &LOCAL.to_ne_bytes())
    }

    fn tracked(self, key: u32, bits: u32) -> Self {
        self.expression("ct", |e| {
            e.number(1, 1);
            e.number(2, key);
        })
        .masked(bits.to_ne_bytes())
        .compare(1, &[0; 4])
    }

    /// It belongs to a known connection.
    pub fn established(self) -> Self {
        self.tracked(0, 2 | 4)
    }

    /// Its destination was rewritten.
    pub fn rewritten(self) -> Self {
        self.tracked(2, 1 << 5)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.expression("immediate", |e| {
            e.number(1, 0);
            e.nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.number(1, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        })
    }

    /// Lets it pass.
    pub fn accept(self) -> Self {
        self.verdict(1, None)
    }

    /// Throws it away.
    pub fn drop(self) -> Self {
        self.verdict(0, None)
    }

    /// Goes on in another chain.
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    /// Rewrites the source to the address of the interface it leaves by.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Rewrites the destination.
    pub fn rewrite(self, address: Ipv4Addr, port: u16) -> Self {
        let load = |register: u32, value: Vec<u8>| {
            move |e: &mut Attributes| {
                e.number(1, register);
                e.nest(2, |data| data.put(1, &value));
            }
        };
        self.expression("immediate", load(1, address.octets().to_vec()))
            .expression("immediate", load(2, port.to_be_bytes().to_vec()))
            .expression("nat", |e| {
                e.number(1, 1);
                e.number(2, u32::from(IP));
                e.number(3, 1);
                e.number(5, 2);
            })
    }
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// 0 before routing, 2 forwarding, 3 output, 4 after routing.
    pub number: u32,
    /// Lower is earlier.
    pub priority: i32,
}

/// A chain's full name.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// [`IP`], or 1 for `inet`.
    pub family: u8,
    /// Table.
    pub table: &'a str,
    /// Chain.
    pub chain: &'a str,
}

/// Changes that take effect together or not at all.
pub struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    last: usize,
}

impl Default for Batch {
    fn default() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            sequence: 0,
            last: 0,
        };
        batch.edge(0x10);
        batch
    }
}

impl Batch {
    fn edge(&mut self, kind: u16) {
        self.sequence += 1;
        let body = general(0, 10);
        message(
            &mut self.bytes,
            (kind, REQUEST, self.sequence),
            &body,
            &Attributes::default(),
        );
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, attributes: &Attributes) {
        self.sequence += 1;
        self.last = self.bytes.len();
        message(
            &mut self.bytes,
            (SUBSYSTEM | kind, REQUEST | flags, self.sequence),
            &general(family, 0),
            attributes,
        );
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.last == 0
    }

    /// A new empty table, whatever was there.
    pub fn replace_table(&mut self, name: &str) {
        self.delete_table(name);
        let mut attributes = Attributes::default();
        attributes.text(1, name);
        self.push(NEW_TABLE, CREATE, IP, &attributes);
    }

    /// No such table, whether it was there or not.
    pub fn delete_table(&mut self, name: &str) {
        let mut attributes = Attributes::default();
        attributes.text(1, name);
        self.push(NEW_TABLE, CREATE, IP, &attributes);
        self.push(DELETE_TABLE, 0, IP, &attributes);
    }

    /// A chain, called by the kernel or (without a hook) by other chains.
    pub fn chain(&mut self, table: &str, name: &str, hook: Option<Hook>) {
        let mut attributes = Attributes::default();
        attributes.text(1, table);
        attributes.text(3, name);
        if let Some(hook) = hook {
            attributes.nest(4, |h| {
                h.number(1, hook.number);
                h.number(2, hook.priority as u32);
            });
            attributes.text(7, hook.kind);
        }
        self.push(NEW_CHAIN, CREATE, IP, &attributes);
    }

    fn rule(&mut self, place: Place<'_>, rule: &Rule, flags: u16) {
        let mut attributes = Attributes::default();
        attributes.text(1, place.table);
        attributes.text(2, place.chain);
        attributes.put(4 | NESTED, &rule.expressions.0);
        if !rule.comment.is_empty() {
            let mut data = vec![0, rule.comment.len() as u8 + 1];
            data.extend_from_slice(rule.comment.as_bytes());
            data.push(0);
            attributes.put(7, &data);
        }
        self.push(NEW_RULE, CREATE | flags, place.family, &attributes);
    }

    /// A rule after the others.
    pub fn append(&mut self, table: &str, chain: &str, rule: &Rule) {
        let family = IP;
        let place = Place {
            family,
            table,
            chain,
        };
        self.rule(place, rule, APPEND);
    }

    /// A rule before the others, in any table.
    pub fn prepend(&mut self, place: Place<'_>, rule: &Rule) {
        self.rule(place, rule, 0);
    }

    /// Takes a rule away.
    pub fn delete_rule(&mut self, place: Place<'_>, handle: u64) {
        let mut attributes = Attributes::default();
        attributes.text(1, place.table);
        attributes.text(2, place.chain);
        attributes.put(3, &handle.to_be_bytes());
        self.push(DELETE_RULE, 0, place.family, &attributes);
    }

    /// Makes it so.
    pub fn commit(mut self) -> anyhow::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let flags = self.last + 6;
        let asked = (REQUEST | ACKNOWLEDGE)
            | u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]);
        self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        let awaited = self.sequence;
        self.edge(0x11);
        let socket = open().context("open a netfilter socket")?;
        send(&socket, &self.bytes).context("send rules to the kernel")?;
        // The kernel has worked on the whole batch when `send` returns: its answers are there.
        let mut confirmed = false;
        while let Some(answer) = receive(&socket, MsgFlags::MSG_DONTWAIT)? {
            for part in parts(&answer) {
                match part.error() {
                    Some(0) => confirmed |= part.sequence == awaited,
                    Some(code) => bail!(
                        "nftables refuses step {} of {awaited}: {}",
                        part.sequence,
                        std::io::Error::from_raw_os_error(code)
                    ),
                    None => {}
                }
            }
        }
        if !confirmed {
            bail!("nftables did not confirm the rules");
        }
        Ok(())
    }
}

fn general(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(
    into: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    body: &[u8; 4],
    attributes: &Attributes,
) {
    let length = (HEADER + body.len() + attributes.0.len()) as u32;
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(&flags.to_ne_bytes());
    into.extend_from_slice(&sequence.to_ne_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(body);
    into.extend_from_slice(&attributes.0);
}

fn open() -> anyhow::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // In a user namespace only the ordinary limit is allowed, which is enough for some thousand rules.
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
    }
    Ok(socket)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> nix::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty()).map(drop)
}

/// One datagram; nothing there is `None`.
fn receive(socket: &OwnedFd, flags: MsgFlags) -> anyhow::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error).context("read nftables' answer"),
        }
    }
}

/// One message of an answer.
struct Part<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// The code of an error message; 0 is a confirmation.
    fn error(&self) -> Option<i32> {
        let code = self.body.get(..4)?;
        (self.kind == 2).then(|| -i32::from_ne_bytes([code[0], code[1], code[2], code[3]]))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let part = Part {
            kind: half(bytes, 4)?,
            sequence: word(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(part)
    })
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let data = bytes.get(4..length)?;
        if half(bytes, 2)? & 0x3fff == wanted {
            return Some(data);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn text_of(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

fn number_of(data: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?))
}

/// Everything of one kind; each with its family and attributes.
fn dump(kind: u16, family: u8, attributes: &Attributes) -> anyhow::Result<Vec<(u8, Vec<u8>)>> {
    let socket = open()?;
    let mut request = Vec::new();
    message(
        &mut request,
        (SUBSYSTEM | kind, REQUEST | DUMP, 1),
        &general(family, 0),
        attributes,
    );
    send(&socket, &request).context("ask nftables")?;
    let mut found = Vec::new();
    loop {
        let Some(answer) = receive(&socket, MsgFlags::empty())? else {
            continue;
        };
        for part in parts(&answer) {
            match part.kind {
                2 => match part.error() {
                    Some(0) | None => {}
                    Some(code) => {
                        return Err(std::io::Error::from_raw_os_error(code))
                            .context("ask nftables");
                    }
                },
                3 => return Ok(found),
                _ => {
                    if let Some((head, body)) = part.body.split_first_chunk::<4>() {
                        found.push((head[0], body.to_vec()));
                    }
                }
            }
        }
    }
}

/// A chain that forwarded packets pass, and that drops what no rule accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropping {
    /// Family.
    pub family: u8,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
}

/// Chains in others' tables that would drop forwarded packets.
pub fn dropping_chains() -> anyhow::Result<Vec<Dropping>> {
    let all = dump(GET_CHAIN, 0, &Attributes::default())?;
    let dropping = all.iter().filter_map(|(family, body)| {
        let hook = attribute(body, 4)?;
        let forward = number_of(attribute(hook, 1)?)? == 2;
        let drops = number_of(attribute(body, 5)?)? == 0;
        let routed = *family == IP || *family == 1;
        (forward && drops && routed).then(|| {
            Some(Dropping {
                family: *family,
                table: text_of(attribute(body, 1)?),
                chain: text_of(attribute(body, 3)?),
            })
        })?
    });
    Ok(dropping.collect())
}

/// Comments and handles of a chain's commented rules.
pub fn comments(place: Place<'_>) -> anyhow::Result<Vec<(String, u64)>> {
    let mut which = Attributes::default();
    which.text(1, place.table);
    which.text(2, place.chain);
    let all = dump(GET_RULE, place.family, &which)?;
    let commented = all.iter().filter_map(|(_, body)| {
        let data = attribute(body, 7)?;
        let handle = u64::from_be_bytes(attribute(body, 3)?.get(..8)?.try_into().ok()?);
        let length = usize::from(*data.get(1)?);
        let comment = data.get(2..2 + length).filter(|_| data[0] == 0)?;
        Some((text_of(comment), handle))
    });
    Ok(commented.collect())
}
