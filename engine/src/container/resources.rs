//! Whether wanted limits make sense on this machine, in Docker's words. What the kernel cannot do is left out with a warning.

use windlass_engine_api::types::{HostConfig, ThrottleDevice};

use super::error::{Error, Result};

const SMALLEST_MEMORY: i64 = 6 * 1024 * 1024;

/// What the kernel and the machine offer.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: usize,
    /// Their numbers, as `0-3,5`; empty: not known.
    pub online: String,
    /// Numbers of the memory nodes.
    pub nodes: String,
    /// Control groups are of the second version.
    pub is_v2: bool,
    /// Swap can be limited.
    pub swap: bool,
    /// Weights for block I/O.
    pub io_weight: bool,
    /// Weights by device.
    pub io_weight_device: bool,
}

impl Machine {
    /// Asks the kernel.
    pub fn look(cpus: usize) -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let there = |path: &str| std::path::Path::new(path).exists();
        let is_v2 = there("/sys/fs/cgroup/cgroup.controllers");
        let of_own_group = |file: &str| is_v2 && own_group_has(file);
        Self {
            cpus,
            online: read("/sys/devices/system/cpu/online"),
            nodes: match read("/sys/devices/system/node/online") {
                nodes if nodes.is_empty() => "0".to_owned(),
                nodes => nodes,
            },
            is_v2,
            swap: there("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
                || of_own_group("memory.swap.max"),
            io_weight: there("/sys/fs/cgroup/blkio/blkio.weight")
                || of_own_group("io.weight")
                || of_own_group("io.bfq.weight"),
            io_weight_device: there("/sys/fs/cgroup/blkio/blkio.weight_device")
                || of_own_group("io.weight"),
        }
    }
}

/// The root of v2 has no limits of its own: the engine's containers' parent, or any group, shows what there is.
fn own_group_has(file: &str) -> bool {
    let Ok(entries) = std::fs::read_dir("/sys/fs/cgroup") else {
        return false;
    };
    entries.flatten().any(|e| e.path().join(file).exists())
}

/// Whether it is a new container or a change of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// A new one.
    Creation,
    /// A change: what is not named stays as it is.
    Update,
}

/// Checks the limits; what is not possible here is taken out, with a warning.
pub fn check(host: &mut HostConfig, machine: &Machine, what: For) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    memory(host, machine, what, &mut warnings)?;
    processors(host, machine)?;
    block_io(host, machine, &mut warnings)?;
    if host.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        host.cpu_percent = 0;
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    Ok(warnings)
}

fn memory(
    host: &mut HostConfig,
    machine: &Machine,
    what: For,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let invalid = |words: &str| Err(Error::invalid(words));
    host.memory_swappiness = host.memory_swappiness.filter(|v| *v != -1);
    if host.memory != 0 && host.memory < SMALLEST_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap != -1 && !machine.swap {
        warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".to_owned());
        host.memory_swap = -1;
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 && what == For::Creation {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(value) = host.memory_swappiness.filter(|v| !(0..=100).contains(v)) {
        return Err(Error::invalid(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )));
    }
    if host.memory_swappiness.is_some() && machine.is_v2 {
        warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".to_owned());
        host.memory_swappiness = None;
    }
    if host.memory_reservation > 0 && host.memory_reservation < SMALLEST_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory_reservation > 0 && host.memory > 0 && host.memory < host.memory_reservation {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if host.oom_kill_disable == Some(true) {
        if machine.is_v2 {
            warnings.push(
                "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
            );
            host.oom_kill_disable = None;
        } else if host.memory == 0 {
            warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
        }
    }
    Ok(())
}

fn processors(host: &HostConfig, machine: &Machine) -> Result<()> {
    let invalid = |words: String| Err(Error::invalid(words));
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set".into());
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set".into());
    }
    let cpus = machine.cpus;
    if host.nano_cpus < 0 || host.nano_cpus > cpus as i64 * 1_000_000_000 {
        return invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .into(),
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return invalid("kernel does not support CPU real-time scheduler".into());
    }
    for (wanted, there, kind, things) in [
        (&host.cpuset_cpus, &machine.online, "cpus", "CPUs"),
        (&host.cpuset_mems, &machine.nodes, "mems", "memory nodes"),
    ] {
        let Some(numbers) = set(wanted) else {
            return invalid(format!(
                "Invalid value {wanted} for cpuset {kind}: invalid format: {wanted}"
            ));
        };
        let available = set(there).unwrap_or_default();
        if !available.is_empty() && !numbers.iter().all(|n| available.contains(n)) {
            return invalid(format!(
                "Requested {things} are not available - requested {wanted}, available: {there}"
            ));
        }
    }
    Ok(())
}

/// `0-2,4` → its numbers; `None`: it is no such list.
fn set(text: &str) -> Option<Vec<u32>> {
    const HIGHEST: u32 = 8192;
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn block_io(host: &mut HostConfig, machine: &Machine, warnings: &mut Vec<String>) -> Result<()> {
    if host.blkio_weight > 0 && !machine.io_weight {
        warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned());
        host.blkio_weight = 0;
    }
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if host.io_maximum_bandwidth != 0 || host.io_maximum_iops != 0 {
        return Err(Error::invalid(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        ));
    }
    if !host.blkio_weight_device.is_empty() && !machine.io_weight_device {
        warnings.push("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".to_owned());
        host.blkio_weight_device.clear();
    }
    if let Some(device) = host
        .blkio_weight_device
        .iter()
        .find(|d| !(10..=1000).contains(&d.weight))
    {
        return Err(Error::invalid(format!(
            "Range of blkio weight is from 10 to 1000, and not {}",
            device.weight
        )));
    }
    let throttles = [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ];
    match throttles.into_iter().flatten().find(|d| d.path.is_empty()) {
        Some(ThrottleDevice { rate, .. }) => Err(Error::invalid(format!(
            "a block I/O limit of {rate} names no device"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 2,
            online: "0-1".to_owned(),
            nodes: "0".to_owned(),
            swap: true,
            ..Machine::default()
        }
    }

    #[test]
    fn refusals() {
        let host = |change: fn(&mut HostConfig)| {
            let mut host = HostConfig::default();
            change(&mut host);
            host
        };
        for (mut host, words) in [
            (host(|h| h.memory = 1024), "6MB"),
            (host(|h| h.memory = -1), "6MB"),
            (
                host(|h| h.memory_reservation = 1024),
                "Minimum memory reservation",
            ),
            (
                host(|h| h.memory_swappiness = Some(101)),
                "Invalid value: 101",
            ),
            (
                host(|h| h.nano_cpus = 3_000_000_000),
                "range of CPUs is from 0.01 to 2.00",
            ),
            (
                host(|h| {
                    h.nano_cpus = 1;
                    h.cpu_quota = 1;
                }),
                "Nano CPUs and CPU Quota",
            ),
            (
                host(|h| h.cpuset_cpus = "0-100".into()),
                "Requested CPUs are not available - requested 0-100, available: 0-1",
            ),
            (
                host(|h| h.cpuset_cpus = "x".into()),
                "Invalid value x for cpuset cpus",
            ),
            (
                host(|h| h.cpuset_mems = "7".into()),
                "Requested memory nodes",
            ),
            (host(|h| h.io_maximum_iops = 3), "Invalid QoS settings"),
        ] {
            let error = check(&mut host, &machine(), For::Creation).unwrap_err();
            assert!(error.message.contains(words), "{} / {words}", error.message);
        }
        let mut swap = host(|h| h.memory_swap = 1 << 30);
        assert!(check(&mut swap.clone(), &machine(), For::Creation).is_err());
        assert!(
            check(&mut swap, &machine(), For::Update)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn what_the_kernel_lacks_is_left_out() {
        let mut host = HostConfig {
            blkio_weight: 300,
            oom_kill_disable: Some(true),
            memory_swappiness: Some(5),
            memory: 1 << 30,
            ..HostConfig::default()
        };
        let v2 = Machine {
            is_v2: true,
            swap: false,
            ..machine()
        };
        let warnings = check(&mut host, &v2, For::Creation).unwrap();
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        assert_eq!((host.blkio_weight, host.memory_swap), (0, -1));
        assert_eq!(
            (host.oom_kill_disable, host.memory_swappiness),
            (None, None)
        );
        assert_eq!(set("0-2,4"), Some(vec![0, 1, 2, 4]));
        assert_eq!((set(""), set("2-1"), set(",")), (Some(vec![]), None, None));
    }
}
