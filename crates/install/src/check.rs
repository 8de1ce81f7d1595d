//! Whether an engine can run on a host: a pure function of the probe.

use crate::error::{Error, Result};
use crate::probe::{Arch, CgroupVersion, Feature, Probe, RootAccess};

const NAMESPACES: [&str; 5] = ["pid", "net", "mnt", "ipc", "uts"];
/// What an engine with nothing on it may write.
const STATE_BYTES: u64 = 16_000_000;
/// File systems never fill up to the last byte.
const SLACK_BYTES: u64 = 1_000_000;

/// Whether the host can have an engine at all; returns which.
pub(crate) fn host(probe: &Probe, user: &str) -> Result<Arch> {
    if probe.system != "Linux" {
        return Err(Error::System(probe.system.clone()));
    }
    let arch = probe
        .arch
        .ok_or_else(|| Error::Architecture(probe.machine.clone()))?;
    if let RootAccess::None(problem) = &probe.root_access {
        return Err(Error::NoRoot {
            user: user.to_owned(),
            problem: problem.clone(),
        });
    }
    let missing = missing(probe);
    if missing.is_empty() {
        return Ok(arch);
    }
    Err(Error::Kernel {
        kernel: probe.kernel.clone(),
        missing,
    })
}

fn missing(probe: &Probe) -> Vec<String> {
    let mut missing = Vec::new();
    if probe.overlayfs == Feature::No {
        missing.push("overlayfs".to_owned());
    }
    if probe.nftables == Feature::No {
        missing.push("nftables".to_owned());
    }
    for name in NAMESPACES {
        if !probe.namespaces.iter().any(|there| there == name) {
            missing.push(format!("{name} namespaces"));
        }
    }
    if probe.cgroup == CgroupVersion::None {
        missing.push("control groups".to_owned());
    }
    missing
}

/// Whether a new program of this size fits beside the old one.
pub(crate) fn room(probe: &Probe, binary_folder: &str, state: &str, size: u64) -> Result<()> {
    let wanted = [
        (binary_folder, probe.free_binary_bytes, size + SLACK_BYTES),
        (state, probe.free_state_bytes, STATE_BYTES),
    ];
    for (path, free, needed) in wanted {
        if let Some(free) = free.filter(|free| *free < needed) {
            return Err(Error::DiskFull {
                path: path.to_owned(),
                free,
                needed,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::parse_probe;

    fn probe(changes: &[(&str, &str)]) -> Probe {
        let mut facts = vec![
            ("system", "Linux"),
            ("arch", "x86_64"),
            ("kernel", "6.1"),
            ("root", "root"),
            ("overlayfs", "yes"),
            ("nftables", "unknown"),
            ("namespaces", "pid net mnt ipc uts"),
            ("cgroup", "v2"),
            ("free_binary", "9000000"),
            ("free_state", "90000000"),
            ("end", "yes"),
        ];
        facts.extend(changes);
        let text: String = facts.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        parse_probe(&text).unwrap()
    }

    #[test]
    fn a_good_host_passes() {
        assert_eq!(host(&probe(&[]), "root").unwrap(), Arch::X86_64);
    }

    #[test]
    fn each_lack_is_one_clear_error() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("system", "FreeBSD")], "runs FreeBSD"),
            (&[("arch", "riscv64")], "riscv64"),
            (
                &[
                    ("root", "none"),
                    ("root_problem", "sudo: a password is required"),
                ],
                "user ann is neither root nor may use sudo without a password (sudo: a password is required)",
            ),
            (&[("overlayfs", "no")], "kernel 6.1 lacks overlayfs"),
            (
                &[("namespaces", "pid mnt ipc uts"), ("nftables", "no")],
                "lacks nftables, net namespaces",
            ),
            (&[("cgroup", "none")], "control groups"),
        ];
        for (changes, part) in cases {
            let error = host(&probe(changes), "ann").unwrap_err().to_string();
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn a_full_disk_says_how_much_is_needed() {
        let good = probe(&[]);
        room(
            &good,
            "/usr/local/lib/windlass",
            "/var/lib/windlass",
            7_000_000,
        )
        .unwrap();
        let error = room(
            &good,
            "/usr/local/lib/windlass",
            "/var/lib/windlass",
            9_500_000,
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "the file system of /usr/local/lib/windlass on the host is full: 9 MB are free and 11 MB are needed"
        );
        let full = probe(&[("free_state", "1000")]);
        assert!(room(&full, "/usr/local/lib/windlass", "/var/lib/windlass", 1).is_err());
    }
}
