//! What is mounted into a container, in order: Docker's defaults, then what was asked for. Pure.

use std::collections::BTreeMap;

use libc::{
    MS_BIND, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY,
    MS_REC, MS_SHARED, MS_SLAVE, MS_STRICTATIME, MS_SYNCHRONOUS,
};

use super::task::MountPlan;
use crate::container::error::{Error, Result};
use crate::container::parts::{MountSpec, RunSpec};
use crate::userns::Maps;

const DEFAULT_SHM: i64 = 64 * 1024 * 1024;

/// All mounts, outer before inner; of several for one place the last.
pub fn plan(spec: &RunSpec) -> Result<Vec<MountPlan>> {
    let mut all: BTreeMap<String, (usize, MountPlan)> = BTreeMap::new();
    for (order, mount) in defaults(spec).into_iter().enumerate() {
        all.insert(mount.target.clone(), (order, mount));
    }
    let base = all.len();
    for (order, wanted) in spec.mounts.iter().enumerate() {
        let mount = wanted_mount(wanted, spec.user.as_ref())?;
        all.insert(mount.target.clone(), (base + order, mount));
    }
    let mut all: Vec<_> = all.into_values().collect();
    // Defaults first, as a wanted one may lie in one of them.
    all.sort_by_key(|(order, mount)| {
        let depth = mount.target.split('/').count();
        if *order < base {
            (0, *order)
        } else {
            (depth, *order)
        }
    });
    Ok(all.into_iter().map(|(_, mount)| mount).collect())
}

fn defaults(spec: &RunSpec) -> Vec<MountPlan> {
    let host = &spec.host;
    let read_only = if host.privileged { 0 } else { MS_RDONLY };
    let quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    let of = |kind: &str, target: &str, flags, data: &str| MountPlan {
        source: kind.to_owned(),
        target: target.to_owned(),
        kind: kind.to_owned(),
        flags,
        data: data.to_owned(),
        ..MountPlan::default()
    };
    // The group `tty` of nearly every image.
    let tty = spec.user.as_ref().and_then(|maps| maps.outside((0, 5)));
    let terminals = format!(
        "newinstance,ptmxmode=0666,mode=0620,gid={}",
        tty.map_or(5, |(_, group)| group)
    );
    let mut all = vec![
        of("proc", "/proc", quiet, ""),
        of(
            "tmpfs",
            "/dev",
            MS_NOSUID | MS_STRICTATIME,
            "mode=755,size=65536k",
        ),
        of("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, &terminals),
        of("sysfs", "/sys", quiet | read_only, ""),
        of("cgroup", "/sys/fs/cgroup", quiet | read_only, ""),
        of("mqueue", "/dev/mqueue", quiet, ""),
    ];
    match (host.ipc_mode.as_str(), spec.ipc_of) {
        ("none", _) => {}
        ("host", _) => all.push(bind("/dev/shm", "/dev/shm")),
        (_, Some(pid)) => all.push(MountPlan {
            source: format!("/proc/{pid}/ns/mnt"),
            kind: "tree".to_owned(),
            data: "/dev/shm".to_owned(),
            ..bind("", "/dev/shm")
        }),
        _ => {
            let size = if host.shm_size > 0 {
                host.shm_size
            } else {
                DEFAULT_SHM
            };
            let data = format!("mode=1777,size={size}");
            all.push(MountPlan {
                source: "shm".to_owned(),
                ..of("tmpfs", "/dev/shm", quiet, &data)
            });
        }
    }
    all
}

fn bind(source: &str, target: &str) -> MountPlan {
    MountPlan {
        source: source.to_owned(),
        target: target.to_owned(),
        kind: "bind".to_owned(),
        flags: MS_BIND | MS_REC,
        propagation: MS_PRIVATE | MS_REC,
        ..MountPlan::default()
    }
}

fn wanted_mount(wanted: &MountSpec, user: Option<&Maps>) -> Result<MountPlan> {
    let record = &wanted.record;
    let read_only = if record.rw { 0 } else { MS_RDONLY };
    if record.kind == "tmpfs" {
        let options = shifted(&record.options, user)?;
        return tmpfs(&record.destination, &options, read_only);
    }
    let recursive = if record.non_recursive { 0 } else { MS_REC };
    let propagation = match record.propagation.as_str() {
        "" => MS_PRIVATE | MS_REC,
        other => propagation(other)
            .ok_or_else(|| Error::invalid(format!("invalid propagation mode: {other}")))?,
    };
    let source = wanted.source.to_str().ok_or_else(|| {
        Error::invalid(format!(
            "mount source {} is no UTF-8",
            wanted.source.display()
        ))
    })?;
    Ok(MountPlan {
        flags: MS_BIND | recursive | read_only,
        data: record.subpath.clone(),
        propagation,
        read_only_top: record.read_only_top,
        ..bind(source, &record.destination)
    })
}

fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "rprivate" => MS_PRIVATE | MS_REC,
        "private" => MS_PRIVATE,
        "rslave" => MS_SLAVE | MS_REC,
        "slave" => MS_SLAVE,
        "rshared" => MS_SHARED | MS_REC,
        "shared" => MS_SHARED,
        _ => return None,
    })
}

/// Owners are a container's; the file system is made outside of it.
fn shifted(options: &[String], user: Option<&Maps>) -> Result<Vec<String>> {
    let Some(maps) = user else {
        return Ok(options.to_vec());
    };
    let one = |option: &String| {
        let (name, id) = match option.split_once('=') {
            Some((name @ ("uid" | "gid"), id)) => (name, id),
            _ => return Ok(option.clone()),
        };
        let outside = id.parse().ok().and_then(|id| match name {
            "uid" => maps.outside((id, 0)).map(|(user, _)| user),
            _ => maps.outside((0, id)).map(|(_, group)| group),
        });
        let unknown = || {
            Error::invalid(format!(
                "invalid tmpfs option {option}: there is no such id in the user namespace"
            ))
        };
        Ok(format!("{name}={}", outside.ok_or_else(unknown)?))
    };
    options.iter().map(one).collect()
}

/// Words that set a flag of a tmpfs, and words that clear it.
const TMPFS_WORDS: [(u64, &str, &str); 7] = [
    (MS_RDONLY, "ro", "rw"),
    (MS_NOEXEC, "noexec", "exec"),
    (MS_NOSUID, "nosuid", "suid"),
    (MS_NODEV, "nodev", "dev"),
    (MS_SYNCHRONOUS, "sync", "async"),
    (MS_NOATIME, "noatime", "atime"),
    (MS_NODIRATIME, "nodiratime", "diratime"),
];

fn tmpfs(target: &str, options: &[String], read_only: u64) -> Result<MountPlan> {
    let mut flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | read_only;
    let mut data = Vec::new();
    let mut spread = 0;
    for option in options.iter().map(String::as_str) {
        let name = option.split_once('=').map(|(name, _)| name);
        let set = TMPFS_WORDS.iter().find(|(_, set, _)| *set == option);
        let cleared = TMPFS_WORDS.iter().find(|(.., clear)| *clear == option);
        match (set, cleared, name) {
            (Some((flag, ..)), ..) => flags |= flag,
            (_, Some((flag, ..)), _) => flags &= !flag,
            (.., Some("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol")) => {
                data.push(option)
            }
            _ if matches!(
                option,
                "defaults" | "relatime" | "strictatime" | "norelatime"
            ) => {}
            _ if propagation(option).is_some() => spread = propagation(option).unwrap_or(0),
            _ => {
                let words: Vec<&str> = option.splitn(2, '=').collect();
                return Err(Error::invalid(format!(
                    "invalid tmpfs option [{}]",
                    words
                        .iter()
                        .map(|w| format!("\"{w}\""))
                        .collect::<Vec<_>>()
                        .join(" ")
                )));
            }
        }
    }
    Ok(MountPlan {
        source: "tmpfs".to_owned(),
        target: target.to_owned(),
        kind: "tmpfs".to_owned(),
        flags,
        data: data.join(","),
        propagation: spread,
        ..MountPlan::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::MountRecord;

    #[test]
    fn order_and_defaults() {
        let record = |kind: &str, destination: &str| MountSpec {
            record: MountRecord {
                kind: kind.to_owned(),
                destination: destination.to_owned(),
                rw: destination != "/etc",
                options: vec!["size=1m".to_owned(), "exec".to_owned()],
                ..MountRecord::default()
            },
            source: "/srv".into(),
        };
        let mut spec = RunSpec {
            mounts: vec![
                record("bind", "/etc/hosts"),
                record("volume", "/etc"),
                record("tmpfs", "/dev/shm"),
            ],
            ..RunSpec::default()
        };
        let planned = plan(&spec).unwrap();
        let targets: Vec<&str> = planned.iter().map(|m| m.target.as_str()).collect();
        assert_eq!(
            targets,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/etc",
                "/etc/hosts",
                "/dev/shm"
            ]
        );
        assert_ne!(planned[3].flags & MS_RDONLY, 0);
        assert_ne!(planned[6].flags & MS_RDONLY, 0);
        assert_eq!(planned[8].data, "size=1m");
        assert_eq!(planned[8].flags & MS_NOEXEC, 0);
        spec.mounts[2].record.options = vec!["wat".to_owned()];
        assert_eq!(
            plan(&spec).unwrap_err().message,
            "invalid tmpfs option [\"wat\"]"
        );
        spec.mounts[2].record.options = vec!["exec".to_owned(), "noexec".to_owned()];
        assert_ne!(
            plan(&spec).unwrap()[8].flags & MS_NOEXEC,
            0,
            "the last wins"
        );
        spec.host.privileged = true;
        assert_eq!(plan(&spec).unwrap()[3].flags & MS_RDONLY, 0);
    }
}
