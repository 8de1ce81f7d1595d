//! nftables without the `nft` program: netlink messages in one atomic batch.
//!
//! Deliberately absent: what a rule is (`rule`), and which rules there are (`rules`).

use anyhow::{Context as _, bail};
use nix::sys::socket::MsgFlags;

use super::netlink::{
    ACKNOWLEDGE, Attributes, NESTED, REQUEST, attribute, dump, general, message, number_of, open,
    parts, receive, send, text_of,
};
use super::rule::Rule;

/// Address family `ip`.
pub const IP: u8 = 2;
/// Address family `ip6`.
pub const IP6: u8 = 10;
const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

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

/// What happens to a packet at the end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is thrown away.
    Drop = 0,
    /// It passes.
    Accept = 1,
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

/// A table's full name.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// [`IP`] or [`IP6`].
    pub family: u8,
    /// Name.
    pub name: &'a str,
}

impl<'a> Table<'a> {
    /// Of family `ip`.
    pub fn ip(name: &'a str) -> Self {
        Self { family: IP, name }
    }
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
    pub fn replace_table(&mut self, table: Table<'_>) {
        self.delete_table(table);
        self.table(table);
    }

    /// A table, if it is not there.
    pub fn table(&mut self, table: Table<'_>) {
        let mut attributes = Attributes::default();
        attributes.text(1, table.name);
        self.push(NEW_TABLE, CREATE, table.family, &attributes);
    }

    /// No such table, whether it was there or not.
    pub fn delete_table(&mut self, table: Table<'_>) {
        let mut attributes = Attributes::default();
        attributes.text(1, table.name);
        self.push(NEW_TABLE, CREATE, table.family, &attributes);
        self.push(DELETE_TABLE, 0, table.family, &attributes);
    }

    /// A chain, called by the kernel or (without a hook) by other chains.
    pub fn chain(&mut self, table: Table<'_>, name: &str, hook: Option<Hook>) {
        self.new_chain(table, name, hook, None);
    }

    /// What a chain that the kernel calls does with packets that no rule has decided about; it is made if it is not there.
    pub fn policy(&mut self, place: Place<'_>, hook: Hook, policy: Policy) {
        let table = Table {
            family: place.family,
            name: place.table,
        };
        self.new_chain(table, place.chain, Some(hook), Some(policy));
    }

    fn new_chain(
        &mut self,
        table: Table<'_>,
        name: &str,
        hook: Option<Hook>,
        policy: Option<Policy>,
    ) {
        let mut attributes = Attributes::default();
        attributes.text(1, table.name);
        attributes.text(3, name);
        if let Some(hook) = hook {
            attributes.nest(4, |h| {
                h.number(1, hook.number);
                h.number(2, hook.priority as u32);
            });
            if let Some(policy) = policy {
                attributes.number(5, policy as u32);
            }
            attributes.text(7, hook.kind);
        }
        self.push(NEW_CHAIN, CREATE, table.family, &attributes);
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
    pub fn append(&mut self, table: Table<'_>, chain: &str, rule: &Rule) {
        let place = Place {
            family: table.family,
            table: table.name,
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
    let all = dump(SUBSYSTEM | GET_CHAIN, 0, &Attributes::default())?;
    let dropping = all.iter().filter_map(|(family, body)| {
        let hook = attribute(body, 4)?;
        let forward = number_of(attribute(hook, 1)?)? == 2;
        let drops = number_of(attribute(body, 5)?)? == 0;
        let routed = matches!(*family, IP | IP6 | 1);
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

/// The names of all tables.
pub fn tables() -> anyhow::Result<Vec<String>> {
    let all = dump(SUBSYSTEM | GET_TABLE, 0, &Attributes::default())?;
    let names = all.iter().filter_map(|(_, body)| attribute(body, 1));
    Ok(names.map(text_of).collect())
}

/// How many rules a chain has.
pub fn count(place: Place<'_>) -> anyhow::Result<usize> {
    let mut which = Attributes::default();
    which.text(1, place.table);
    which.text(2, place.chain);
    let all = dump(SUBSYSTEM | GET_RULE, place.family, &which)?;
    Ok(all.len())
}

/// Comments and handles of a chain's commented rules.
pub fn comments(place: Place<'_>) -> anyhow::Result<Vec<(String, u64)>> {
    let mut which = Attributes::default();
    which.text(1, place.table);
    which.text(2, place.chain);
    let all = dump(SUBSYSTEM | GET_RULE, place.family, &which)?;
    let commented = all.iter().filter_map(|(_, body)| {
        let data = attribute(body, 7)?;
        let handle = u64::from_be_bytes(attribute(body, 3)?.get(..8)?.try_into().ok()?);
        let length = usize::from(*data.get(1)?);
        let comment = data.get(2..2 + length).filter(|_| data[0] == 0)?;
        Some((text_of(comment), handle))
    });
    Ok(commented.collect())
}
