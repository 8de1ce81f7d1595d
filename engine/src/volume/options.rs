//! Options of a local volume (`type`, `device`, `o`): checked when it is made, carried out when it is mounted.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use windlass_engine_api::types::StringMap;

use crate::container::error::{Error, Result};

const NOTHING: Option<&str> = None;

/// Docker's words of `mount -o` and what they set or clear; other words go to the file system.
const WORDS: &[(&str, MsFlags, Sense)] = &[
    ("defaults", MsFlags::empty(), Sense::Sets),
    ("ro", MsFlags::MS_RDONLY, Sense::Sets),
    ("rw", MsFlags::MS_RDONLY, Sense::Clears),
    ("suid", MsFlags::MS_NOSUID, Sense::Clears),
    ("nosuid", MsFlags::MS_NOSUID, Sense::Sets),
    ("dev", MsFlags::MS_NODEV, Sense::Clears),
    ("nodev", MsFlags::MS_NODEV, Sense::Sets),
    ("exec", MsFlags::MS_NOEXEC, Sense::Clears),
    ("noexec", MsFlags::MS_NOEXEC, Sense::Sets),
    ("sync", MsFlags::MS_SYNCHRONOUS, Sense::Sets),
    ("async", MsFlags::MS_SYNCHRONOUS, Sense::Clears),
    ("dirsync", MsFlags::MS_DIRSYNC, Sense::Sets),
    ("remount", MsFlags::MS_REMOUNT, Sense::Sets),
    ("mand", MsFlags::MS_MANDLOCK, Sense::Sets),
    ("nomand", MsFlags::MS_MANDLOCK, Sense::Clears),
    ("atime", MsFlags::MS_NOATIME, Sense::Clears),
    ("noatime", MsFlags::MS_NOATIME, Sense::Sets),
    ("diratime", MsFlags::MS_NODIRATIME, Sense::Clears),
    ("nodiratime", MsFlags::MS_NODIRATIME, Sense::Sets),
    ("relatime", MsFlags::MS_RELATIME, Sense::Sets),
    ("norelatime", MsFlags::MS_RELATIME, Sense::Clears),
    ("strictatime", MsFlags::MS_STRICTATIME, Sense::Sets),
    ("nostrictatime", MsFlags::MS_STRICTATIME, Sense::Clears),
    ("bind", MsFlags::MS_BIND, Sense::Sets),
    (
        "rbind",
        MsFlags::MS_BIND.union(MsFlags::MS_REC),
        Sense::Sets,
    ),
];

const PROPAGATIONS: &[(&str, MsFlags)] = &[
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("slave", MsFlags::MS_SLAVE),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("unbindable", MsFlags::MS_UNBINDABLE),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    Sets,
    Clears,
}

/// Whether the options are such that a volume can have them, in Docker's words.
pub fn check(options: &StringMap) -> Result<()> {
    for name in options.keys() {
        if !matches!(name.as_str(), "type" | "o" | "device" | "size") {
            return Err(Error::invalid(format!("invalid option: \"{name}\"")));
        }
    }
    for (name, needed) in [
        ("type", "device"),
        ("o", "device"),
        ("device", "type"),
        ("o", "type"),
    ] {
        if options.contains_key(name) && !options.contains_key(needed) {
            return Err(Error::invalid(format!(
                "missing required option: \"{needed}\""
            )));
        }
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    Ok(())
}

/// Whether something is mounted on the volume's folder while it is used.
pub fn needs_mount(options: &StringMap) -> bool {
    ["type", "device"]
        .iter()
        .any(|name| options.get(*name).is_some_and(|value| !value.is_empty()))
}

/// What `mount(2)` is told.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    flags: MsFlags,
    propagation: MsFlags,
    data: String,
}

fn parse(text: &str) -> Call {
    let mut call = Call {
        flags: MsFlags::empty(),
        propagation: MsFlags::empty(),
        data: String::new(),
    };
    let mut data = Vec::new();
    for word in text.split(',').filter(|w| !w.is_empty()) {
        if let Some((_, flag, sense)) = WORDS.iter().find(|(name, ..)| *name == word) {
            call.flags.set(*flag, *sense == Sense::Sets);
        } else if let Some((_, flag)) = PROPAGATIONS.iter().find(|(name, _)| *name == word) {
            call.propagation |= *flag;
        } else {
            data.push(word);
        }
    }
    call.data = data.join(",");
    call
}

/// Mounts what the options say on `at`. May wait for a name server or a file server.
pub fn mount_on(at: &Path, options: &StringMap) -> Result<()> {
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let mut text = option("o").to_owned();
    if matches!(kind, "nfs" | "nfs4" | "cifs") {
        text = resolved(&text)?;
    }
    let call = parse(&text);
    let failed = |errno: nix::Error| {
        let flags = match call.flags.bits() {
            0 => String::new(),
            bits => format!(", flags: 0x{bits:x}"),
        };
        let data = match call.data.as_str() {
            "" => String::new(),
            data => format!(", data: {}", without_secrets(data)),
        };
        Error::message(format!(
            "failed to mount local volume: mount {device}:{}{flags}{data}: {}",
            at.display(),
            errno.desc().to_lowercase()
        ))
    };
    let data = Some(call.data.as_str()).filter(|d| !d.is_empty());
    mount(Some(device), at, Some(kind), call.flags, data).map_err(failed)?;
    let settled = settle(at, &call);
    if settled.is_err() {
        super::mounted::unmount_all(at).ok();
    }
    settled.map_err(failed)
}

/// What a second call is needed for: a read-only bind, and how mounts spread.
fn settle(at: &Path, call: &Call) -> nix::Result<()> {
    let read_only_bind = MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    if call.flags.contains(read_only_bind) {
        let flags = call.flags | MsFlags::MS_REMOUNT;
        mount(NOTHING, at, NOTHING, flags, NOTHING)?;
    }
    if !call.propagation.is_empty() {
        mount(NOTHING, at, NOTHING, call.propagation, NOTHING)?;
    }
    Ok(())
}

/// The kernel takes addresses, users write names.
fn resolved(text: &str) -> Result<String> {
    let Some(host) = text.split(',').find_map(|word| word.strip_prefix("addr=")) else {
        return Ok(text.to_owned());
    };
    if host.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let refused = |why: &str| {
        Error::message(format!(
            "error resolving passed in network volume address: lookup {host}: {why}"
        ))
    };
    let mut found = (host, 0)
        .to_socket_addrs()
        .map_err(|_| refused("no such host"))?;
    let address = found.next().ok_or_else(|| refused("no such host"))?;
    Ok(text.replacen(
        &format!("addr={host}"),
        &format!("addr={}", address.ip()),
        1,
    ))
}

fn without_secrets(data: &str) -> String {
    let words = data.split(',').map(|word| match word.split_once('=') {
        Some((name @ ("password" | "pass" | "passwd"), _)) => format!("{name}=********"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> StringMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_volume_can_have() {
        let good = options(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=1.2.3.4")]);
        assert!(check(&good).is_ok() && needs_mount(&good));
        assert!(!needs_mount(&StringMap::new()));
        for (given, words) in [
            (options(&[("foo", "x")]), "invalid option: \"foo\""),
            (
                options(&[("type", "x")]),
                "missing required option: \"device\"",
            ),
            (
                options(&[("o", "x")]),
                "missing required option: \"device\"",
            ),
            (
                options(&[("device", "x")]),
                "missing required option: \"type\"",
            ),
            (
                options(&[("size", "1m")]),
                "quota size requested but no quota support",
            ),
        ] {
            assert_eq!(check(&given).unwrap_err().message, words);
        }
    }

    #[test]
    fn words_become_flags_and_the_rest_is_data() {
        let call = parse("ro,noexec,exec,bind,size=1m,uid=5,rslave");
        assert_eq!(call.flags, MsFlags::MS_RDONLY | MsFlags::MS_BIND);
        assert_eq!(call.propagation, MsFlags::MS_SLAVE | MsFlags::MS_REC);
        assert_eq!(call.data, "size=1m,uid=5");
        assert_eq!(resolved("addr=10.0.0.1,rw").unwrap(), "addr=10.0.0.1,rw");
        assert_eq!(
            resolved("rw,addr=localhost").unwrap().split('.').count(),
            4,
            "a name becomes an address"
        );
        assert!(
            resolved("addr=no.such.host.invalid")
                .unwrap_err()
                .message
                .starts_with("error resolving passed in network volume address: ")
        );
        assert_eq!(
            without_secrets("username=a,password=b"),
            "username=a,password=********"
        );
    }
}
