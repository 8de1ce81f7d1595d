//! A rule of nftables: conditions, then one verdict.
//!
//! Deliberately absent: everything that our rules do not need (sets, maps).

use std::fmt;
use std::net::IpAddr;

use super::netlink::Attributes;
use super::nft::{IP, IP6};
use super::subnet::{Family, Subnet, octets};

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
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A rule: conditions, then one verdict.
#[derive(Default)]
pub struct Rule {
    pub(super) expressions: Attributes,
    pub(super) comment: String,
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

    fn masked(self, mask: &[u8]) -> Self {
        self.expression("bitwise", |e| {
            e.number(1, 1);
            e.number(2, 1);
            e.number(3, mask.len() as u32);
            e.nest(4, |data| data.put(1, mask));
            e.nest(5, |data| data.put(1, &vec![0; mask.len()]));
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

    /// An address in this network, in a table of its family.
    pub fn address(self, side: Side, network: Subnet) -> Self {
        let v4 = network.family() == Family::V4;
        let (from, to, length) = if v4 { (12, 16, 4) } else { (8, 24, 16) };
        let loaded = self.expression("payload", |e| {
            e.number(1, 1);
            e.number(2, 1);
            e.number(3, if side == Side::From { from } else { to });
            e.number(4, length);
        });
        let loaded = if network.length() < network.family().bits() {
            loaded.masked(&network.mask())
        } else {
            loaded
        };
        loaded.compare(0, &octets(network.base()))
    }

    /// A destination port.
    pub fn port(self, protocol: Protocol, port: u16) -> Self {
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
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
        .masked(&bits.to_ne_bytes())
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

    /// Goes on where this chain was called.
    pub fn back(self) -> Self {
        self.verdict(-5, None)
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
    pub fn rewrite(self, address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        let family = if address.is_ipv4() { IP } else { IP6 };
        let load = |register: u32, value: Vec<u8>| {
            move |e: &mut Attributes| {
                e.number(1, register);
                e.nest(2, |data| data.put(1, &value));
            }
        };
        self.expression("immediate", load(1, octets(address)))
            .expression("immediate", load(2, port.to_be_bytes().to_vec()))
            .expression("nat", |e| {
                e.number(1, 1);
                e.number(2, u32::from(family));
                e.number(3, 1);
                e.number(5, 2);
            })
    }
}
