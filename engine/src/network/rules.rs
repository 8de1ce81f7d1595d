//! The kernel's rules for our networks: publishing, masquerading, keeping networks apart. What they are is a function of the state.
//!
//! Deliberately absent: what is done in others' tables (`others`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft::{Batch, Hook, IP, IP6, Table};
use super::options::Mode;
use super::rule::{Protocol, Rule, Side};
use super::subnet::{Family, Subnet};

/// Bridges of users' networks begin so.
pub const USERS: &str = "wl-";

/// A bridge's addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// All of them.
    pub subnet: Subnet,
    /// The host's own.
    pub gateway: Option<IpAddr>,
    /// How packets leave and enter.
    pub mode: Mode,
}

/// A bridge, for its rules and its making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The interface.
    pub name: String,
    /// Its IPv4 addresses.
    pub v4: Option<Span>,
    /// Its IPv6 addresses.
    pub v6: Option<Span>,
    /// No way out and none in.
    pub internal: bool,
    /// Containers may reach each other.
    pub among_each_other: bool,
    /// The way out is masqueraded.
    pub masquerade: bool,
    /// The largest packet.
    pub mtu: Option<u32>,
}

impl Bridge {
    /// The addresses of a family.
    pub fn span(&self, family: Family) -> Option<&Span> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The host's address; unspecified: all.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's address.
    pub address: IpAddr,
    /// The container's port.
    pub port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// Who may come from outside; `None`: everybody.
    pub from: Option<Vec<Subnet>>,
    /// The container's bridge.
    pub bridge: String,
    /// How packets enter it.
    pub mode: Mode,
}

/// The tables' name.
pub fn table(bridge: &str) -> String {
    format!("windlass_{bridge}")
}

/// Whether this host's kernel has IPv6.
pub fn has_v6() -> bool {
    std::path::Path::new("/proc/thread-self/net/if_inet6").exists()
}

fn loopback(family: Family) -> Subnet {
    match family {
        Family::V4 => Subnet::around(Ipv4Addr::LOCALHOST, 8),
        Family::V6 => Subnet::around(Ipv6Addr::LOCALHOST, 128),
    }
}

fn alone(address: IpAddr) -> Subnet {
    Subnet::around(address, Family::of(address).bits())
}

/// Puts all rules of an engine in place of the former ones.
pub fn replace(batch: &mut Batch, name: &str, bridges: &[Bridge], published: &[Published]) {
    for family in [Family::V4, Family::V6] {
        let number = if family == Family::V4 { IP } else { IP6 };
        let table = Table {
            family: number,
            name,
        };
        if family == Family::V6 && !has_v6() {
            continue;
        }
        // Every bridge is in both: what has no IPv6 addresses gets no IPv6 packets either.
        if bridges.is_empty() {
            batch.delete_table(table);
            continue;
        }
        batch.replace_table(table);
        let here = published.iter();
        let here: Vec<_> = here.filter(|p| Family::of(p.address) == family).collect();
        Filling {
            batch,
            table,
            family,
        }
        .fill(bridges, &here);
    }
}

/// The rules of one family.
struct Filling<'a, 'b> {
    batch: &'a mut Batch,
    table: Table<'b>,
    family: Family,
}

impl Filling<'_, '_> {
    fn add(&mut self, chain: &str, rule: &Rule) {
        self.batch.append(self.table, chain, rule);
    }

    fn fill(&mut self, bridges: &[Bridge], published: &[&Published]) {
        let hook = |kind, number, priority| {
            Some(Hook {
                kind,
                number,
                priority,
            })
        };
        for (name, hook) in [
            ("early", hook("filter", 0, -300)),
            ("inbound", None),
            ("local", None),
            ("outside", None),
            ("prerouting", hook("nat", 0, -100)),
            ("output", hook("nat", 3, -100)),
            ("postrouting", hook("nat", 4, 100)),
            ("forward", hook("filter", 2, 0)),
        ] {
            self.batch.chain(self.table, name, hook);
        }
        for (base, chain) in [("prerouting", "inbound"), ("output", "local")] {
            self.add(base, &Rule::new().local_destination().jump(chain));
        }
        if self.family == Family::V6 {
            // The kernel has no way out of ::1; who tries it shall hear at once that nobody is there, and take 127.0.0.1.
            let own = Rule::new().address(Side::To, loopback(self.family));
            self.add("local", &own.back());
        }
        for port in published.iter().filter(|p| p.mode != Mode::Routed) {
            self.publish(port);
        }
        for bridge in bridges {
            if self.family == Family::V4 {
                // Published ports answer on 127.0.0.1, for which the bridge must accept such addresses: from inside nobody may use them.
                let lie = Rule::new().interface(Side::From, &bridge.name);
                let lie = lie.address(Side::To, loopback(self.family));
                self.add("early", &lie.drop());
            }
            self.masquerade(bridge);
        }
        self.forward(bridges, published);
    }

    fn publish(&mut self, port: &Published) {
        let addressed = |rule: Rule| {
            if port.host.is_unspecified() {
                rule
            } else {
                rule.address(Side::To, alone(port.host))
            }
        };
        let rewritten = |rule: Rule| {
            rule.port(port.protocol, port.host_port)
                .rewrite(port.address, port.port)
        };
        // Whoever is on the host reaches the container anyway.
        self.add("local", &rewritten(addressed(Rule::new())));
        match &port.from {
            None => self.add("inbound", &rewritten(addressed(Rule::new()))),
            Some(sources) => {
                let family = self.family;
                let sources = sources.iter().filter(|s| s.family() == family);
                for source in sources {
                    let rule = addressed(Rule::new().address(Side::From, *source));
                    self.add("inbound", &rewritten(rule));
                }
            }
        }
    }

    fn masquerade(&mut self, bridge: &Bridge) {
        let Some(span) = bridge.span(self.family) else {
            return;
        };
        let inside = || Rule::new().address(Side::From, span.subnet);
        // A neighbour would answer directly, and not from the address that was asked.
        let near = inside().address(Side::To, span.subnet).rewritten();
        self.add("postrouting", &near.masquerade());
        if self.family == Family::V4 {
            let own = Rule::new().address(Side::From, loopback(self.family));
            let own = own.interface(Side::To, &bridge.name);
            self.add("postrouting", &own.masquerade());
        }
        let rewrites = matches!(span.mode, Mode::Nat | Mode::Unprotected);
        if !bridge.internal && bridge.masquerade && rewrites {
            let out = inside().not_interface(Side::To, &bridge.name);
            self.add("postrouting", &out.masquerade());
        }
    }

    fn forward(&mut self, bridges: &[Bridge], published: &[&Published]) {
        self.add("forward", &Rule::new().established().accept());
        for bridge in bridges {
            let from = || Rule::new().interface(Side::From, &bridge.name);
            let to = || Rule::new().interface(Side::To, &bridge.name);
            let near = || from().interface(Side::To, &bridge.name);
            if bridge.among_each_other {
                self.add("forward", &near().accept());
            } else {
                self.add("forward", &near().rewritten().accept());
                self.add("forward", &near().drop());
            }
            if bridge.internal {
                self.add("forward", &from().drop());
                self.add("forward", &to().drop());
            }
            self.add("outside", &from().drop());
        }
        self.add("outside", &Rule::new().accept());
        for port in published.iter().filter(|p| p.mode == Mode::Routed) {
            let rule = Rule::new().interface(Side::To, &port.bridge);
            let rule = rule.address(Side::To, alone(port.address));
            self.add("forward", &rule.port(port.protocol, port.port).accept());
        }
        for bridge in bridges {
            // Nobody comes in but through a published port: not from other networks, not by a route through this host.
            let to = || Rule::new().interface(Side::To, &bridge.name);
            self.add("forward", &to().rewritten().accept());
            let mode = bridge.span(self.family).map(|s| s.mode);
            match mode {
                Some(Mode::Unprotected) => self.add("forward", &to().jump("outside")),
                _ => self.add("forward", &to().drop()),
            }
        }
    }
}
