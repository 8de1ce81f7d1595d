//! What is done in other programs' tables: packets of our bridges pass chains that drop by policy, and a host that forwards packets
//! only for our sake forwards nobody else's.
//!
//! Deliberately absent: firewalls that reject by an explicit last rule instead of a policy.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::nft::{self, Batch, Hook, IP, IP6, Place, Policy, Table};
use super::rule::{Rule, Side};
use super::rules::{Bridge, USERS, has_v6};
use super::subnet::Family;

const FORWARD: Hook = Hook {
    kind: "filter",
    number: 2,
    priority: 0,
};

/// The chain that everybody's firewall uses, as iptables names it.
fn common(family: Family) -> Place<'static> {
    Place {
        family: if family == Family::V4 { IP } else { IP6 },
        table: "filter",
        chain: "FORWARD",
    }
}

fn marker(engine: &str) -> String {
    format!("windlass {engine} forwarding")
}

/// Lets our bridges' packets through chains of others that drop by policy; our own table decides about them.
/// Rules for bridges that are no more are taken away.
pub fn pass(batch: &mut Batch, engine: &str, bridges: &[Bridge]) -> anyhow::Result<()> {
    let tag = |bridge: &str, way: &str| format!("windlass {engine} {bridge} {way}");
    let ours = format!("windlass {engine} ");
    for chain in nft::dropping_chains()? {
        let place = Place {
            family: chain.family,
            table: &chain.table,
            chain: &chain.chain,
        };
        let present = nft::comments(place)?;
        let mut wanted = vec![marker(engine)];
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

/// From now on the host forwards packets, which it did not do before: those of others than us it still does not.
/// A rule without effect beside the policy tells whose it is, so that it is taken back.
pub fn shut(engine: &str, family: Family) -> anyhow::Result<()> {
    if family == Family::V4 && legacy() {
        iptables(&["-P", "FORWARD", "DROP"])?;
        let comment = marker(engine);
        let mark = ["-m", "comment", "--comment", &comment];
        iptables(&[&["-A", "FORWARD"], &mark[..]].concat())?;
        return Ok(());
    }
    let place = common(family);
    let mut batch = Batch::default();
    batch.table(Table {
        family: place.family,
        name: place.table,
    });
    batch.policy(place, FORWARD, Policy::Drop);
    batch.prepend(place, &Rule::commented(&marker(engine)));
    batch.commit().context("restrict what the host forwards")
}

/// Takes [`shut`] back; the answer is whether nobody else needs the host to forward packets.
fn open(engine: &str, family: Family) -> anyhow::Result<bool> {
    let place = common(family);
    let present = match nft::comments(place) {
        Ok(present) => present,
        Err(_) => return Ok(false),
    };
    let marks = present.iter().filter(|(c, _)| *c == marker(engine));
    let mut batch = Batch::default();
    for (_, handle) in marks {
        batch.delete_rule(place, *handle);
    }
    if batch.is_empty() {
        return Ok(false);
    }
    let others = |c: &String| c.ends_with(" forwarding") && *c != marker(engine);
    if !present.iter().any(|(c, _)| others(c)) {
        batch.policy(place, FORWARD, Policy::Accept);
    }
    batch.commit()?;
    Ok(nft::count(place)? == 0)
}

/// Takes back every rule of an engine in others' tables, and forwarding if nobody else needs it.
pub fn clear(engine: &str) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    pass(&mut batch, engine, &[])?;
    batch.commit()?;
    if legacy() {
        for flag in ["-i", "-o"] {
            // An error is that it is not there.
            iptables(&["-D", "FORWARD", flag, engine, "-j", "ACCEPT"]).ok();
        }
        let comment = marker(engine);
        let mark = ["FORWARD", "-m", "comment", "--comment", &comment];
        if iptables(&[&["-D"], &mark[..]].concat()).is_ok() {
            iptables(&["-P", "FORWARD", "ACCEPT"])?;
            if !iptables(&["-S", "FORWARD"])?.contains("-A FORWARD") {
                super::link::forwarding(Family::V4, super::link::Switch::Off)?;
            }
        }
    }
    for family in [Family::V4, Family::V6] {
        if family == Family::V6 && !has_v6() {
            continue;
        }
        if open(engine, family)? {
            super::link::forwarding(family, super::link::Switch::Off)?;
        }
    }
    Ok(())
}

/// Whether the kernel's older tables are in use, which only their own program can change.
fn legacy() -> bool {
    let tables =
        fs_err::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    tables.lines().any(|t| t == "filter")
}

/// [`pass`] for the kernel's older tables.
pub fn pass_legacy(engine: &str, bridges: &[Bridge]) -> anyhow::Result<()> {
    if !legacy() {
        return Ok(());
    }
    let present = iptables(&["-S", "FORWARD"])
        .context("the host uses iptables' legacy tables, and they could not be read")?;
    for line in present.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["-A", rule @ ..] = &words[..]
            && let ["FORWARD", "-i" | "-o", bridge, "-j", "ACCEPT"] = rule
            && (bridge.starts_with(USERS) || *bridge == engine)
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
            let shown = format!("-A {}", rule.join(" "));
            if !present.lines().any(|l| l == shown) {
                iptables(&[&["-I"], &rule[..]].concat())?;
            }
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
