//! Writes a container's limits into its control group, in the words of v1 or v2.

use std::io::Result;
use std::path::Path;

use fs_err as fs;

use super::cgroup::Group;
use super::task::{Limits, ThrottleKind};

/// Writes all that are set.
pub fn apply(group: &Group, limits: &Limits) -> Result<()> {
    if group.is_v2() {
        v2(group, limits)
    } else {
        v1(group, limits)
    }
}

/// The file's name is part of a failure.
fn write(group: &Group, controller: &str, file: &str, value: impl ToString) -> Result<()> {
    let folder = group.controller(controller).ok_or_else(|| {
        std::io::Error::other(format!(
            "the kernel has no control group controller '{controller}'"
        ))
    })?;
    let path = folder.join(file);
    if !path.exists() {
        return Err(std::io::Error::other(format!(
            "this host does not offer {file}: its control groups have no controller '{controller}' here"
        )));
    }
    fs::write(path, value.to_string())
}

/// Some kernels do not count swap.
fn write_if_there(folder: &Path, file: &str, value: String) -> Result<()> {
    let path = folder.join(file);
    if path.exists() {
        fs::write(path, value)
    } else {
        Ok(())
    }
}

fn v1(group: &Group, limits: &Limits) -> Result<()> {
    memory_v1(group, limits)?;
    if let Some(value) = limits.memory_reservation {
        write(group, "memory", "memory.soft_limit_in_bytes", value)?;
    }
    if let Some(value) = limits.swappiness {
        write(group, "memory", "memory.swappiness", value)?;
    }
    if limits.oom_kill_disable {
        write(group, "memory", "memory.oom_control", 1)?;
    }
    if let Some(shares) = limits.cpu_shares {
        write(group, "cpu", "cpu.shares", shares)?;
        shares_taken(group, shares)?;
    }
    if let Some((quota, period)) = limits.cpu {
        write(group, "cpu", "cpu.cfs_period_us", period)?;
        write(group, "cpu", "cpu.cfs_quota_us", quota)?;
    }
    cpuset(group, limits)?;
    if let Some(pids) = limits.pids {
        write(group, "pids", "pids.max", none_is_max(pids))?;
    }
    if let Some(weight) = limits.io_weight {
        write(group, "blkio", "blkio.weight", weight)?;
    }
    for (device, weight) in &limits.io_weights {
        write(
            group,
            "blkio",
            "blkio.weight_device",
            format!("{device} {weight}"),
        )?;
    }
    for throttle in &limits.io_throttles {
        let file = match throttle.kind {
            ThrottleKind::ReadBytes => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBytes => "blkio.throttle.write_bps_device",
            ThrottleKind::Reads => "blkio.throttle.read_iops_device",
            ThrottleKind::Writes => "blkio.throttle.write_iops_device",
        };
        write(
            group,
            "blkio",
            file,
            format!("{} {}", throttle.device, throttle.rate),
        )?;
    }
    Ok(())
}

/// The kernel takes what is out of its range for the nearest that is in it, without a word.
fn shares_taken(group: &Group, wanted: u64) -> Result<()> {
    let folder = group.controller("cpu");
    let text = folder.and_then(|f| fs::read_to_string(f.join("cpu.shares")).ok());
    let bound = match text.and_then(|t| t.trim().parse::<u64>().ok()) {
        Some(taken) if wanted > taken => ("maximum", taken),
        Some(taken) if wanted < taken => ("minimum", taken),
        _ => return Ok(()),
    };
    Err(std::io::Error::other(format!(
        "the {} allowed cpu-shares is {}",
        bound.0, bound.1
    )))
}

/// Memory alone can never be more than memory and swap: which of the two is written first depends on what is there.
fn memory_v1(group: &Group, limits: &Limits) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let Some(folder) = group.controller("memory") else {
        return match limits.memory {
            Some(memory) => write(group, "memory", MEMORY, memory),
            None => Ok(()),
        };
    };
    let both = limits
        .memory_swap
        .or(limits.memory.map(|m| m.saturating_mul(2)));
    let now = fs::read_to_string(folder.join(MEMORY)).unwrap_or_default();
    let now: i64 = now.trim().parse().unwrap_or(i64::MAX);
    let grows = both.is_some_and(|both| both < 0 || both > now);
    let write_both = || match both {
        Some(both) => write_if_there(&folder, BOTH, both.to_string()),
        None => Ok(()),
    };
    if grows {
        // Above the former sum only now, and what is new may still be too little for it.
        write_both().ok();
    }
    if let Some(memory) = limits.memory {
        write(group, "memory", MEMORY, memory)?;
    }
    write_both()
}

fn v2(group: &Group, limits: &Limits) -> Result<()> {
    if let Some(memory) = limits.memory {
        write(group, "memory", "memory.max", memory)?;
        let swap = match limits.memory_swap {
            None => memory.to_string(),
            Some(-1) => "max".to_owned(),
            Some(both) => (both - memory).max(0).to_string(),
        };
        if let Some(folder) = group.controller("memory") {
            write_if_there(&folder, "memory.swap.max", swap)?;
        }
    }
    if let Some(value) = limits.memory_reservation {
        write(group, "memory", "memory.low", value)?;
    }
    if let Some(shares) = limits.cpu_shares {
        write(group, "cpu", "cpu.weight", weight(shares))?;
    }
    if let Some((quota, period)) = limits.cpu {
        let quota = none_is_max(quota);
        write(group, "cpu", "cpu.max", format!("{quota} {period}"))?;
    }
    cpuset(group, limits)?;
    if let Some(pids) = limits.pids {
        write(group, "pids", "pids.max", none_is_max(pids))?;
    }
    io_v2(group, limits)
}

fn io_v2(group: &Group, limits: &Limits) -> Result<()> {
    let bfq = group
        .controller("io")
        .is_some_and(|folder| folder.join("io.bfq.weight").exists());
    let (file, scale): (_, fn(u16) -> u64) = if bfq {
        ("io.bfq.weight", u64::from)
    } else {
        ("io.weight", io_weight)
    };
    if let Some(weight) = limits.io_weight {
        write(group, "io", file, scale(weight))?;
    }
    for (device, weight) in &limits.io_weights {
        write(group, "io", file, format!("{device} {}", scale(*weight)))?;
    }
    for throttle in &limits.io_throttles {
        let key = match throttle.kind {
            ThrottleKind::ReadBytes => "rbps",
            ThrottleKind::WriteBytes => "wbps",
            ThrottleKind::Reads => "riops",
            ThrottleKind::Writes => "wiops",
        };
        write(
            group,
            "io",
            "io.max",
            format!("{} {key}={}", throttle.device, throttle.rate),
        )?;
    }
    Ok(())
}

/// 10–1000 → 1–10000, as runc does it.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn cpuset(group: &Group, limits: &Limits) -> Result<()> {
    if !limits.cpuset_cpus.is_empty() {
        write(group, "cpuset", "cpuset.cpus", &limits.cpuset_cpus)?;
    }
    if !limits.cpuset_mems.is_empty() {
        write(group, "cpuset", "cpuset.mems", &limits.cpuset_mems)?;
    }
    Ok(())
}

fn none_is_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// 2–262144 → 1–10000, as runc and systemd do it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert_eq!(
            (none_is_max(-1), none_is_max(7)),
            ("max".into(), "7".into())
        );
    }
}
