//! Resource usage, read from the kernel's control groups (v1 and v2) and `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fs_err as fs;
use windlass_engine_api::types::{
    BlkioEntry, BlkioStats, Change, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    Stats, Throttling,
};

use super::error::Result;
use super::registry::Container;
use super::{Engine, clock};

const CGROUPS: &str = "/sys/fs/cgroup";

impl Engine {
    /// A sample; `former` gives the values before. Of a container that does not run it is all zeros.
    pub fn stats(&self, container: &Container, former: Option<&Stats>) -> Result<Stats> {
        let (name, pid, runs) =
            container.read(|r| (r.name.clone(), r.state.pid, r.state.status.has_process()));
        let mut stats = Stats {
            name: format!("/{name}"),
            id: container.id.clone(),
            read: clock::NEVER.to_owned(),
            preread: clock::NEVER.to_owned(),
            ..Stats::default()
        };
        if runs {
            stats.read = clock::now();
            let groups = Groups::of(pid)?;
            stats.cpu_stats = groups.cpu(self.settings.cpus);
            stats.memory_stats = groups.memory();
            stats.pids_stats = groups.pids();
            stats.num_procs = 0;
            stats.blkio_stats = groups.io();
            if container.read(|r| r.host_config.network_mode != "host") {
                stats.networks = networks(pid);
            }
        }
        if let Some(former) = former.filter(|f| runs && f.read != clock::NEVER) {
            stats.precpu_stats = former.cpu_stats.clone();
            stats.preread.clone_from(&former.read);
        }
        Ok(stats)
    }

    /// `docker diff`.
    pub async fn changes(&self, id: &str) -> Result<Vec<Change>> {
        let container = self.containers.find(id)?;
        self.images.changes(&container.id).await
    }
}

/// Where the container's control groups are.
pub(super) struct Groups {
    by_controller: BTreeMap<String, PathBuf>,
    unified: Option<PathBuf>,
}

impl Groups {
    pub(super) fn of(pid: i32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let v2_only = Path::new(CGROUPS).join("cgroup.controllers").exists();
        let mut groups = Self {
            by_controller: BTreeMap::new(),
            unified: None,
        };
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                groups.unified = v2_only.then(|| Path::new(CGROUPS).join(path));
                continue;
            }
            for controller in controllers.split(',') {
                groups.by_controller.insert(
                    controller.to_owned(),
                    Path::new(CGROUPS).join(controllers).join(path),
                );
            }
        }
        Ok(groups)
    }

    /// All processes in them.
    pub(super) fn processes(&self) -> BTreeSet<i32> {
        let v1 = ["pids", "memory", "cpu"]
            .iter()
            .find_map(|controller| self.by_controller.get(*controller));
        let mut all = BTreeSet::new();
        if let Some(folder) = self.unified.as_ref().or(v1) {
            collect(folder, &mut all);
        }
        all
    }

    /// The file's text: `v1` below the controller's own tree, or `v2`.
    fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let path = match (&self.unified, self.by_controller.get(controller)) {
            (Some(group), _) => group.join(v2),
            (None, Some(group)) => group.join(v1),
            (None, None) => return String::new(),
        };
        std::fs::read_to_string(path).unwrap_or_default()
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> Option<u64> {
        self.read(controller, v1, v2).trim().parse().ok()
    }

    fn number_v1(&self, controller: &str, file: &str) -> Option<u64> {
        let is_v1 = self.unified.is_none();
        is_v1.then(|| self.number(controller, file, "")).flatten()
    }

    fn cpu(&self, cpus: usize) -> CpuStats {
        let mut stats = CpuStats {
            system_cpu_usage: system_cpu(),
            online_cpus: cpus as u32,
            ..CpuStats::default()
        };
        if self.unified.is_some() {
            let fields = fields(&self.read("cpu", "", "cpu.stat"));
            let get = |key: &str| fields.get(key).copied().unwrap_or_default();
            stats.cpu_usage = CpuUsage {
                total_usage: get("usage_usec") * 1000,
                usage_in_usermode: get("user_usec") * 1000,
                usage_in_kernelmode: get("system_usec") * 1000,
                ..CpuUsage::default()
            };
            stats.throttling_data = Throttling {
                periods: get("nr_periods"),
                throttled_periods: get("nr_throttled"),
                throttled_time: get("throttled_usec") * 1000,
            };
        } else {
            let get = |file: &str| self.number("cpuacct", file, "").unwrap_or_default();
            stats.cpu_usage = CpuUsage {
                total_usage: get("cpuacct.usage"),
                usage_in_usermode: get("cpuacct.usage_user"),
                usage_in_kernelmode: get("cpuacct.usage_sys"),
                percpu_usage: self
                    .read("cpuacct", "cpuacct.usage_percpu", "")
                    .split_whitespace()
                    .filter_map(|n| n.parse().ok())
                    .take(cpus)
                    .collect(),
            };
            let fields = fields(&self.read("cpu", "cpu.stat", ""));
            let get = |key: &str| fields.get(key).copied().unwrap_or_default();
            stats.throttling_data = Throttling {
                periods: get("nr_periods"),
                throttled_periods: get("nr_throttled"),
                throttled_time: get("throttled_time"),
            };
        }
        stats
    }

    fn memory(&self) -> MemoryStats {
        let limit = self
            .number("memory", "memory.limit_in_bytes", "memory.max")
            .unwrap_or(u64::MAX);
        MemoryStats {
            usage: self.number("memory", "memory.usage_in_bytes", "memory.current"),
            max_usage: self.number_v1("memory", "memory.max_usage_in_bytes"),
            failcnt: self
                .number_v1("memory", "memory.failcnt")
                .filter(|n| *n > 0),
            stats: fields(&self.read("memory", "memory.stat", "memory.stat")),
            limit: Some(limit.min(host_memory())),
        }
    }

    fn pids(&self) -> PidsStats {
        PidsStats {
            current: self.number("pids", "pids.current", "pids.current"),
            limit: self.number("pids", "pids.max", "pids.max"),
        }
    }

    fn io(&self) -> BlkioStats {
        if self.unified.is_some() {
            return BlkioStats {
                io_service_bytes_recursive: Some(entries(&self.read("io", "", "io.stat"))),
                ..BlkioStats::default()
            };
        }
        let of = |file: &str| Some(entries(&self.read("blkio", file, "")));
        BlkioStats {
            io_service_bytes_recursive: of("blkio.throttle.io_service_bytes_recursive"),
            io_serviced_recursive: of("blkio.throttle.io_serviced_recursive"),
            io_queue_recursive: of("blkio.io_queued_recursive"),
            io_service_time_recursive: of("blkio.io_service_time_recursive"),
            io_wait_time_recursive: of("blkio.io_wait_time_recursive"),
            io_merged_recursive: of("blkio.io_merged_recursive"),
            io_time_recursive: of("blkio.time_recursive"),
            sectors_recursive: of("blkio.sectors_recursive"),
        }
    }
}

fn collect(folder: &Path, all: &mut BTreeSet<i32>) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    all.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), all);
        }
    }
}

/// `8:0 Read 4096` of v1, `8:0 rbytes=4096 wbytes=0 …` of v2.
fn entries(text: &str) -> Vec<BlkioEntry> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        let mut add = |op: &str, value: &str| {
            entries.extend(value.parse().ok().map(|value| BlkioEntry {
                major,
                minor,
                op: op.to_lowercase(),
                value,
            }));
        };
        let words: Vec<&str> = words.collect();
        match words[..] {
            [value] if !value.contains('=') => add("", value),
            [op, value] if !op.contains('=') => add(op, value),
            _ => {
                for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
                    match key {
                        "rbytes" => add("read", value),
                        "wbytes" => add("write", value),
                        _ => {}
                    }
                }
            }
        }
    }
    entries
}

/// `name value` lines.
fn fields(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

/// Processor time of the whole host, nanoseconds.
fn system_cpu() -> u64 {
    const TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.starts_with("cpu "))
        .unwrap_or_default();
    line.split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|w| w.parse::<u64>().ok())
        .sum::<u64>()
        * TICK
}

fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or_default() * 1024
}

fn networks(pid: i32) -> BTreeMap<String, NetworkStats> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut all = BTreeMap::new();
    for (name, counters) in text.lines().filter_map(|l| l.split_once(':')) {
        let n: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|w| w.parse().ok())
            .collect();
        if name.trim() == "lo" || n.len() < 12 {
            continue;
        }
        let stats = NetworkStats {
            rx_bytes: n[0],
            rx_packets: n[1],
            rx_errors: n[2],
            rx_dropped: n[3],
            tx_bytes: n[8],
            tx_packets: n[9],
            tx_errors: n[10],
            tx_dropped: n[11],
        };
        all.insert(name.trim().to_owned(), stats);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process() {
        let pid = std::process::id() as i32;
        assert!(system_cpu() > 0 && host_memory() > 0);
        assert_eq!(
            fields("a 1\nb x\nc 3\n"),
            [("a".to_owned(), 1), ("c".to_owned(), 3)].into()
        );
        let groups = Groups::of(pid).unwrap();
        groups.memory();
        assert!(groups.processes().contains(&pid));
        let of = |text: &str| {
            let all = entries(text).into_iter();
            all.map(|e| format!("{} {}", e.op, e.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of("8:0 Read 4\n8:0 Write 5\nTotal 9\n"),
            ["read 4", "write 5"]
        );
        assert_eq!(of("8:0 77\n"), [" 77"]);
        assert_eq!(of("8:0 rbytes=1 wbytes=2 rios=3\n"), ["read 1", "write 2"]);
    }
}
