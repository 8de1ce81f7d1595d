//! A container's specification → what its shim is to do: Docker's defaults filled in, everything resolved but what only the container
//! can know (users, programs).

use std::path::PathBuf;

use windlass_engine_api::types::{HostConfig, LogConfig, Ulimit};

use super::capability;
use super::devices;
use super::log::JOURNAL;
use super::mounts;
use super::seccomp::{self, Filter};
use super::task::{
    Confinement, Isolation, Limits, LogPlan, Namespace, Place, Process, ResourceLimit, Task,
    Throttle, ThrottleKind,
};
use crate::container::error::{Error, Result};
use crate::container::log_options::bytes;
use crate::container::parts::{Netns, ProcessSpec, RunSpec};
use crate::container::security;

/// The control group that all containers lie in.
const PARENT: &str = "windlass";
const DEFAULT_PERIOD: i64 = 100_000;

/// Hidden in containers.
pub const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Not writable in containers.
pub const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// For a new container.
pub fn container(spec: &RunSpec) -> Result<Task> {
    let confinement = confinement(&spec.host)?;
    Ok(Task {
        id: spec.id.clone(),
        cgroup: cgroup_path(&spec.host.cgroup_parent, &spec.id),
        process: process(&spec.process, spec.host.init == Some(true)),
        filter: filter(&confinement),
        confinement,
        place: Place::New(Box::new(isolation(spec)?)),
        log: log(spec)?,
    })
}

/// For a further process of a container that runs as `pid`.
pub fn exec(
    id: &str,
    pid: i32,
    cgroup: &str,
    confinement: &Confinement,
    spec: &ProcessSpec,
) -> Task {
    let mut confinement = confinement.clone();
    if spec.privileged {
        confinement.capabilities = capability::ALL;
        confinement.seccomp = false;
        confinement.apparmor = None;
    }
    Task {
        id: id.to_owned(),
        cgroup: cgroup.to_owned(),
        process: process(spec, false),
        filter: filter(&confinement),
        confinement,
        place: Place::Of(pid),
        log: None,
    }
}

fn process(spec: &ProcessSpec, init: bool) -> Process {
    Process {
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: if spec.cwd.is_empty() {
            "/".to_owned()
        } else {
            spec.cwd.clone()
        },
        user: spec.user.clone(),
        groups: spec.groups.clone(),
        tty: spec.tty,
        size: spec.size,
        stdin: spec.stdin,
        init,
    }
}

fn filter(confinement: &Confinement) -> Option<Filter> {
    let own = || confinement.profile.clone();
    let default = || seccomp::default_filter(confinement.capabilities);
    confinement.seccomp.then(|| own().unwrap_or_else(default))
}

/// Of a container about which nothing else is known.
pub fn default_cgroup(id: &str) -> String {
    format!("{PARENT}/{id}")
}

fn cgroup_path(parent: &str, id: &str) -> String {
    // Nothing leads above the tree's root, as nothing does for a path of files.
    let mut parts: Vec<&str> = Vec::new();
    for part in parent.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.join("/").as_str() {
        "" => default_cgroup(id),
        parent => format!("{parent}/{id}"),
    }
}

fn confinement(host: &HostConfig) -> Result<Confinement> {
    let options = security::parse(&host.security_opt)?;
    let capabilities = if host.privileged {
        capability::ALL
    } else {
        capability::resolve(&host.cap_add, &host.cap_drop)?
    };
    let (seccomp, profile) = match options.seccomp.as_deref() {
        Some("unconfined") => (false, None),
        None | Some("builtin" | "") => (!host.privileged, None),
        Some(text) => {
            let profile = seccomp::filter(text, capabilities).map_err(Error::invalid)?;
            (true, Some(profile))
        }
    };
    Ok(Confinement {
        capabilities,
        seccomp,
        profile,
        apparmor: options
            .apparmor
            .filter(|name| name != "unconfined" && security::has_apparmor()),
        no_new_privileges: options.no_new_privileges,
        limits: host
            .ulimits
            .iter()
            .map(resource_limit)
            .collect::<Result<_>>()?,
        oom_score_adj: host.oom_score_adj,
    })
}

fn resource_limit(limit: &Ulimit) -> Result<ResourceLimit> {
    // The numbers are the same on x86_64 and aarch64.
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    let resource = NAMES
        .iter()
        .position(|n| *n == limit.name)
        .ok_or_else(|| Error::invalid(format!("invalid ulimit type: {}", limit.name)))?;
    let value = |v: i64| u64::try_from(v).unwrap_or(u64::MAX);
    if value(limit.soft) > value(limit.hard) {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    Ok(ResourceLimit {
        resource: resource as u32,
        soft: value(limit.soft),
        hard: value(limit.hard),
    })
}

fn isolation(spec: &RunSpec) -> Result<Isolation> {
    let host = &spec.host;
    let joined = |pid: Option<i32>, kind: &str| {
        pid.map(|pid| Namespace::Join(PathBuf::from(format!("/proc/{pid}/ns/{kind}"))))
    };
    let own_or_host = |mode: &str| match mode {
        "host" => Namespace::Host,
        _ => Namespace::New,
    };
    let paths = |wanted: &Option<Vec<String>>, default: &[&str]| match wanted {
        Some(paths) => paths.clone(),
        None if host.privileged => Vec::new(),
        None => default.iter().map(|p| (*p).to_owned()).collect(),
    };
    let uts = if spec.hostname.is_empty() {
        Namespace::Host
    } else {
        own_or_host(&host.uts_mode)
    };
    let mut devices = devices::plan(host)?;
    if let Some(maps) = &spec.user {
        devices.give_own(maps.root());
    }
    Ok(Isolation {
        rootfs: spec.rootfs.clone(),
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        pid: joined(spec.pid_of, "pid").unwrap_or_else(|| own_or_host(&host.pid_mode)),
        ipc: joined(spec.ipc_of, "ipc").unwrap_or_else(|| own_or_host(&host.ipc_mode)),
        net: match &spec.netns {
            Netns::None => Namespace::New,
            Netns::Host => Namespace::Host,
            Netns::Path(path) => Namespace::Join(path.clone()),
        },
        uts,
        cgroup: own_or_host(&host.cgroupns_mode),
        mounts: mounts::plan(spec)?,
        devices: devices.files,
        all_devices: host.privileged,
        masked: paths(&host.masked_paths, &MASKED),
        readonly: paths(&host.readonly_paths, &READONLY),
        readonly_rootfs: host.readonly_rootfs,
        open_network: !matches!(spec.netns, Netns::Host)
            && !host.network_mode.starts_with("container:"),
        sysctls: host.sysctls.clone(),
        limits: limits(host)?,
        device_rules: devices.rules,
        user: spec.user.clone(),
    })
}

/// Zeros mean unset.
pub fn limits(host: &HostConfig) -> Result<Limits> {
    let positive = |v: i64| (v > 0).then_some(v);
    let period = positive(host.cpu_period).unwrap_or(DEFAULT_PERIOD);
    let cpu = if host.nano_cpus > 0 {
        Some(((host.nano_cpus / 10_000).max(1000), DEFAULT_PERIOD as u64))
    } else if host.cpu_quota != 0 || host.cpu_period > 0 {
        let quota = if host.cpu_quota == 0 {
            -1
        } else {
            host.cpu_quota
        };
        Some((quota, period as u64))
    } else {
        None
    };
    let weights = host.blkio_weight_device.iter();
    Ok(Limits {
        io_weight: Some(host.blkio_weight).filter(|w| *w > 0),
        io_weights: weights
            .map(|d| Ok((block_device(&d.path)?, d.weight)))
            .collect::<Result<_>>()?,
        io_throttles: throttles(host)?,
        memory: positive(host.memory),
        memory_swap: (host.memory_swap != 0).then_some(host.memory_swap),
        memory_reservation: positive(host.memory_reservation),
        swappiness: host.memory_swappiness.filter(|v| (0..=100).contains(v)),
        oom_kill_disable: host.oom_kill_disable == Some(true),
        cpu_shares: u64::try_from(host.cpu_shares).ok().filter(|v| *v > 0),
        cpu,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids: host.pids_limit.filter(|v| *v != 0),
    })
}

fn throttles(host: &HostConfig) -> Result<Vec<Throttle>> {
    let kinds = [
        (ThrottleKind::ReadBytes, &host.blkio_device_read_bps),
        (ThrottleKind::WriteBytes, &host.blkio_device_write_bps),
        (ThrottleKind::Reads, &host.blkio_device_read_iops),
        (ThrottleKind::Writes, &host.blkio_device_write_iops),
    ];
    let mut all = Vec::new();
    for (kind, devices) in kinds {
        for device in devices {
            all.push(Throttle {
                kind,
                device: block_device(&device.path)?,
                rate: device.rate,
            });
        }
    }
    Ok(all)
}

/// `major:minor`.
fn block_device(path: &str) -> Result<String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = std::fs::metadata(path)
        .map_err(|_| Error::invalid(format!("no such file or directory: {path}")))?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::invalid(format!("{path} is no block device")));
    }
    let number = metadata.rdev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
}

fn log(spec: &RunSpec) -> Result<Option<LogPlan>> {
    let LogConfig { kind, config } = &spec.host.log_config;
    if kind == "none" || spec.log_path.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed =
        |why: String| Error::message(format!("failed to initialize logging driver: {why}"));
    let option = |name: &str| config.get(name).map(String::as_str);
    if spec.journal.is_some() && !std::path::Path::new(JOURNAL).exists() {
        return Err(failed("journald is not enabled on this host".to_owned()));
    }
    // What goes to the journal is kept here too, for `docker logs`.
    let (size, files, compress) = match kind.as_str() {
        "local" | "journald" => (20 << 20, 5, true),
        _ => (0, 1, false),
    };
    let max_bytes = match option("max-size") {
        Some(text) => match bytes(text) {
            Some(0) if text != "-1" => {
                return Err(failed("max-size must be a positive number".to_owned()));
            }
            Some(size) => size,
            None => return Err(failed(format!("invalid size: '{text}'"))),
        },
        None => size,
    };
    let max_files = match option("max-file").map(|text| (text, text.parse::<i64>())) {
        Some((_, Ok(number))) if number < 1 => {
            return Err(failed("max-file cannot be less than 1".to_owned()));
        }
        Some((text, Err(_))) => {
            let why = format!("strconv.Atoi: parsing \"{text}\": invalid syntax");
            return Err(failed(why));
        }
        Some((_, Ok(number))) => u32::try_from(number).unwrap_or(u32::MAX),
        None => files,
    };
    let compress = match option("compress") {
        Some(text) => is_true(text).ok_or_else(|| {
            failed(format!(
                "strconv.ParseBool: parsing \"{text}\": invalid syntax"
            ))
        })?,
        None => compress && max_files > 1,
    };
    if compress && (max_files < 2 || max_bytes == 0) {
        let why = "compress cannot be true when max-file is less than 2 or max-size is not set";
        return Err(failed(why.to_owned()));
    }
    Ok(Some(LogPlan {
        path: spec.log_path.clone(),
        max_bytes,
        max_files,
        compress,
        attributes: spec.log_attributes.clone(),
        journal: spec.journal.clone(),
    }))
}

/// Go's words for yes and no.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(change: impl FnOnce(&mut HostConfig)) -> HostConfig {
        let mut host = HostConfig::default();
        change(&mut host);
        host
    }

    #[test]
    fn resources() {
        let none = limits(&host(|h| {
            h.memory_swappiness = Some(-1);
            h.pids_limit = Some(0);
        }))
        .unwrap();
        assert_eq!(none, Limits::default());
        let half = limits(&host(|h| h.nano_cpus = 500_000_000)).unwrap();
        assert_eq!(half.cpu, Some((50_000, 100_000)));
        let quota = limits(&host(|h| h.cpu_quota = 20_000)).unwrap();
        assert_eq!(quota.cpu, Some((20_000, 100_000)));
    }

    #[test]
    fn logs() {
        let plan = |kind: &str, options: &[(&str, &str)]| {
            let mut spec = RunSpec {
                log_path: "/x".into(),
                ..RunSpec::default()
            };
            spec.host.log_config.kind = kind.to_owned();
            let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            spec.host.log_config.config = options.collect();
            log(&spec).map_err(|e| e.message)
        };
        assert!(plan("none", &[]).unwrap().is_none());
        let local = plan("local", &[]).unwrap().unwrap();
        assert!(local.compress && local.max_files == 5);
        let packed = [("max-size", "1k"), ("max-file", "2"), ("compress", "true")];
        assert!(plan("json-file", &packed).unwrap().unwrap().compress);
        for (option, value, words) in [
            ("max-size", "abc", "invalid size: 'abc'"),
            ("max-size", "0", "max-size must be a positive number"),
            ("max-file", "0", "max-file cannot be less than 1"),
            ("max-file", "x", "parsing \"x\": invalid syntax"),
            ("compress", "true", "compress cannot be true when"),
        ] {
            let error = plan("json-file", &[(option, value)]).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn confinements() {
        let plain = confinement(&host(|_| {})).unwrap();
        assert!(plain.seccomp && plain.capabilities == capability::DEFAULT);
        let open = confinement(&host(|h| h.privileged = true)).unwrap();
        assert!(!open.seccomp && open.capabilities == capability::ALL);
        let own = |text: &str| host(|h| h.security_opt = vec![format!("seccomp={text}")]);
        let error = confinement(&own("{\"secret\":1}")).unwrap_err().message;
        assert!(!error.contains("secret"), "{error}");
        let allowing = confinement(&own("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}")).unwrap();
        assert!(allowing.seccomp && filter(&allowing) == allowing.profile);
        let limited = host(|h| {
            h.ulimits = vec![Ulimit {
                name: "nofile".to_owned(),
                soft: 10,
                hard: -1,
            }]
        });
        let limit = &confinement(&limited).unwrap().limits[0];
        assert_eq!((limit.resource, limit.soft, limit.hard), (7, 10, u64::MAX));
        assert_eq!(cgroup_path("../../b/../x", "1"), "x/1");
        assert_eq!(cgroup_path("/a/", "1"), "a/1");
    }
}
