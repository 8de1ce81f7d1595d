//! The kernel's rules for our networks: publishing, masquerading, keeping networks apart. What they are is a function of the state.
//!
//! Deliberately absent: IPv6, and firewalls that reject by an explicit last rule instead of a policy.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::nft::{self, Batch, Hook, Place};
use super::rule::{Protocol, Rule, Side};
use super::subnet::Subnet;

/// A bridge, for its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The interface.
    pub name: String,
    /// Its addresses.
    pub subnet: Subnet,
    /// No way out and none in.
    pub internal: bool,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The host's address; unspecified: all.
    pub host: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The container's port.
    pub port: u16,
    /// Of both.
    pub protocol: Protocol,
    /// Who may come from outside; `None`: everybody.
    pub from: Option<Vec<Subnet>>,
}

/// The table's name.
pub fn table(bridge: &str) -> String {
    format!("windlass_{bridge}")
}

fn loopback() -> Subnet {
    Subnet::around(Ipv4Addr::LOCALHOST, 8)
}

/// Puts all rules of an engine in place of the former ones.
pub fn replace(batch: &mut Batch, table: &str, bridges: &[Bridge], published: &[Published]) {
    if bridges.is_empty() {
        return batch.delete_table(table);
    }
    batch.replace_table(table);
    let hook = |kind, number, priority| {
        Some(Hook {
            kind,
            number,
            priority,
        })
    };
    batch.chain(table, "early", hook("filter", 0, -300));
    batch.chain(table, "inbound", None);
    batch.chain(table, "local", None);
    batch.chain(table, "prerouting", hook("nat", 0, -100));
    batch.chain(table, "output", hook("nat", 3, -100));
    batch.chain(table, "postrouting", hook("nat", 4, 100));
    batch.chain(table, "forward", hook("filter", 2, 0));
    for (base, chain) in [("prerouting", "inbound"), ("output", "local")] {
        batch.append(table, base, &Rule::new().local_destination().jump(chain));
    }
    for port in published {
        publish(batch, table, port);
    }
    for bridge in bridges {
        // Published ports answer on 127.0.0.1, for which the bridge must accept such addresses: from inside nobody may use them.
        let lie = Rule::new().interface(Side::From, &bridge.name);
        batch.append(table, "early", &lie.address(Side::To, loopback()).drop());
        masquerade(batch, table, bridge);
    }
    forward(batch, table, bridges);
}

fn publish(batch: &mut Batch, table: &str, port: &Published) {
    let addressed = |rule: Rule| {
        if port.host.is_unspecified() {
            rule
        } else {
            rule.address(Side::To, Subnet::around(port.host, 32))
        }
    };
    let rewritten = |rule: Rule| {
        rule.port(port.protocol, port.host_port)
            .rewrite(port.address, port.port)
    };
    // Whoever is on the host reaches the container anyway.
    batch.append(table, "local", &rewritten(addressed(Rule::new())));
    match &port.from {
        None => batch.append(table, "inbound", &rewritten(addressed(Rule::new()))),
        Some(sources) => {
            for source in sources {
                let rule = addressed(Rule::new().address(Side::From, *source));
                batch.append(table, "inbound", &rewritten(rule));
            }
        }
    }
}

fn masquerade(batch: &mut Batch, table: &str, bridge: &Bridge) {
    let inside = || Rule::new().address(Side::From, bridge.subnet);
    let mut add = |rule: Rule| batch.append(table, "postrouting", &rule.masquerade());
    // A neighbour would answer directly, and not from the address that was asked.
    add(inside().address(Side::To, bridge.subnet).rewritten());
    add(Rule::new()
        .address(Side::From, loopback())
        .interface(Side::To, &bridge.name));
    if !bridge.internal {
        add(inside().not_interface(Side::To, &bridge.name));
    }
}

fn forward(batch: &mut Batch, table: &str, bridges: &[Bridge]) {
    let mut add = |rule: Rule| batch.append(table, "forward", &rule);
    add(Rule::new().established().accept());
    for bridge in bridges {
        let from = || Rule::new().interface(Side::From, &bridge.name);
        let to = || Rule::new().interface(Side::To, &bridge.name);
        add(from().interface(Side::To, &bridge.name).accept());
        if bridge.internal {
            add(from().drop());
            add(to().drop());
        }
    }
    for bridge in bridges {
        // Nobody comes in but through a published port: not from other networks, not by a route through this host.
        add(Rule::new()
            .interface(Side::To, &bridge.name)
            .rewritten()
            .accept());
        add(Rule::new().interface(Side::To, &bridge.name).drop());
    }
}

/// Lets our bridges' packets through chains of others that drop by policy; our own table decides about them.
/// Rules for bridges that are no more are taken away.
pub fn pass_others(batch: &mut Batch, engine: &str, bridges: &[Bridge]) -> anyhow::Result<()> {
    let tag = |bridge: &str, way: &str| format!("windlass {engine} {bridge} {way}");
    let ours = format!("windlass {engine} ");
    for chain in nft::dropping_chains()? {
        let place = Place {
            family: chain.family,
            table: &chain.table,
            chain: &chain.chain,
        };
        let present = nft::comments(place)?;
        let mut wanted = Vec::new();
        for bridge in bridges {
            for (way, side) in [("from", Side::From), ("to", Side::To)] {
                let comment = tag(&bridge.name, way);
                if !present.iter().any(|(c, _)| *c == comment) {
                    let rule = Rule::commented(&comment).interface(side, &bridge.name);
                    batch.prepend(place, &rule.accept());
                }
                wanted.push(comment);
            }
        }
        for (comment, handle) in present {
            if comment.starts_with(&ours) && !wanted.contains(&comment) {
                batch.delete_rule(place, handle);
            }
        }
    }
    Ok(())
}

/// Bridges of users' networks begin so.
pub const USERS: &str = "wl-";

/// The same for the kernel's older tables, which only their own program can change.
pub fn pass_legacy(bridges: &[Bridge]) -> anyhow::Result<()> {
    let tables =
        fs_err::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if !tables.lines().any(|t| t == "filter") {
        return Ok(());
    }
    let present = iptables(&["-S", "FORWARD"])
        .context("the host uses iptables' legacy tables, and they could not be read")?;
    for line in present.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["-A", rule @ ..] = &words[..]
            && let ["FORWARD", "-i" | "-o", bridge, "-j", "ACCEPT"] = rule
            && bridge.starts_with(USERS)
            && nix::net::if_::if_nametoindex(*bridge).is_err()
        {
            iptables(&[&["-D"], rule].concat())?;
        }
    }
    if !present.lines().any(|l| l == "-P FORWARD DROP") {
        return Ok(());
    }
    for bridge in bridges {
        for flag in ["-i", "-o"] {
            let rule = ["FORWARD", flag, &bridge.name, "-j", "ACCEPT"];
            if iptables(&[&["-C"], &rule[..]].concat()).is_err() {
                iptables(&[&["-I"], &rule[..]].concat())?;
            }
        }
    }
    Ok(())
}

/// Takes every rule of an engine away, in our table and in those of others.
pub fn clear(engine: &str) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    replace(&mut batch, &table(engine), &[], &[]);
    pass_others(&mut batch, engine, &[])?;
    batch.commit()?;
    let tables =
        fs_err::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if tables.lines().any(|t| t == "filter") {
        for flag in ["-i", "-o"] {
            // An error is that it is not there.
            iptables(&["-D", "FORWARD", flag, engine, "-j", "ACCEPT"]).ok();
        }
    }
    Ok(())
}

fn iptables(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("iptables-legacy")
        .args(["-w", "5"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("iptables-legacy")?;
    anyhow::ensure!(
        output.status.success(),
        "iptables-legacy: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
