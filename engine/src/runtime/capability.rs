//! Capabilities: names, Docker's default set, and what is asked for.

use crate::container::error::{Error, Result};

/// By number.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All of them.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// Docker's default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
/// AUDIT_WRITE, SETFCAP.
pub const DEFAULT: u64 = 0x0000_0000_a804_25fb;

/// Whether the set has the named one.
pub fn has(set: u64, name: &str) -> bool {
    NAMES
        .iter()
        .position(|n| *n == name)
        .is_some_and(|bit| set & (1 << bit) != 0)
}

/// The set after `--cap-add` and `--cap-drop`.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64> {
    let add = bits(add)?;
    let drop = bits(drop)?;
    // What is named wins over ALL on the other side, as in Docker.
    let base = if add & !ALL != 0 { ALL } else { DEFAULT };
    let base = if drop & !ALL != 0 {
        if base == ALL { ALL } else { 0 }
    } else {
        base & !drop
    };
    Ok((base | (add & ALL)) & !(drop & ALL & !(add & ALL)))
}

/// Named bits; a bit beyond [`ALL`] means `ALL` was named.
fn bits(names: &[String]) -> Result<u64> {
    let mut set = 0;
    for name in names {
        let upper = name.to_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            set |= 1 << 63;
            continue;
        }
        let bit = NAMES.iter().position(|n| *n == short).ok_or_else(|| {
            Error::invalid(format!(
                "invalid capability: \"{name}\" (see capabilities(7))"
            ))
        })?;
        set |= 1 << bit;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(resolve(&[], &[]).unwrap(), DEFAULT);
        assert!(has(DEFAULT, "CHOWN") && has(DEFAULT, "SETFCAP") && !has(DEFAULT, "SYS_ADMIN"));
        assert_eq!(resolve(&words(&["ALL"]), &[]).unwrap(), ALL);
        assert_eq!(resolve(&[], &words(&["all"])).unwrap(), 0);
        let one = resolve(&words(&["CAP_NET_ADMIN"]), &words(&["ALL"])).unwrap();
        assert_eq!(one, 1 << 12);
        let without = resolve(&words(&["ALL"]), &words(&["sys_admin"])).unwrap();
        assert_eq!(without, ALL & !(1 << 21));
        assert!(!has(resolve(&[], &words(&["NET_RAW"])).unwrap(), "NET_RAW"));
        assert!(resolve(&words(&["FLY"]), &[]).is_err());
    }
}
