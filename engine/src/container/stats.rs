//! Resource usage and processes, read from the kernel's control groups (v1 and v2) and `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use windlass_engine_api::types::{
    BlkioEntry, BlkioStats, Change, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    Stats, Throttling, Top,
};

use super::error::{Error, Result};
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
            read: clock::now(),
            preread: clock::NEVER.to_owned(),
            ..Stats::default()
        };
        if runs {
            let groups = Groups::of(pid)?;
            stats.cpu_stats = groups.cpu(self.settings.cpus);
            stats.memory_stats = groups.memory();
            stats.pids_stats = groups.pids();
            stats.num_procs = 0;
            stats.blkio_stats = groups.io();
            stats.networks = networks(pid);
        }
        if let Some(former) = former {
            stats.precpu_stats = former.cpu_stats.clone();
            stats.preread.clone_from(&former.read);
        }
        Ok(stats)
    }

    /// `docker top`.
    pub async fn top(&self, id: &str) -> Result<Top> {
        let container = self.containers.find(id)?;
        let (pid, runs) = container.read(|r| (r.state.pid, r.state.status.has_process()));
        if !runs {
            return Err(Error::conflict(format!(
                "Container {} is not running",
                container.id
            )));
        }
        let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
            .map(str::to_owned)
            .to_vec();
        let mut processes: Vec<(i32, Vec<String>)> = members(pid)
            .into_iter()
            .filter_map(|p| Some((p, line(p)?)))
            .collect();
        processes.sort_by_key(|(pid, _)| *pid);
        Ok(Top {
            titles,
            processes: processes.into_iter().map(|(_, line)| line).collect(),
        })
    }

    /// `docker diff`.
    pub async fn changes(&self, id: &str) -> Result<Vec<Change>> {
        let container = self.containers.find(id)?;
        self.images.changes(&container.id).await
    }
}

/// Where the container's control groups are.
struct Groups {
    by_controller: BTreeMap<String, PathBuf>,
    unified: Option<PathBuf>,
}

impl Groups {
    fn of(pid: i32) -> Result<Self> {
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
        let mut entries = Vec::new();
        for line in self
            .read("blkio", "blkio.throttle.io_service_bytes", "io.stat")
            .lines()
        {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else {
                continue;
            };
            let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
                continue;
            };
            let words: Vec<&str> = words.collect();
            if let [op, value] = words[..] {
                entries.extend(value.parse().ok().map(|value| BlkioEntry {
                    major,
                    minor,
                    op: op.to_lowercase(),
                    value,
                }));
                continue;
            }
            for (key, value) in words.iter().filter_map(|w| w.split_once('=')) {
                let op = match key {
                    "rbytes" => "read",
                    "wbytes" => "write",
                    _ => continue,
                };
                entries.extend(value.parse().ok().map(|value| BlkioEntry {
                    major,
                    minor,
                    op: op.to_owned(),
                    value,
                }));
            }
        }
        BlkioStats {
            io_service_bytes_recursive: entries,
        }
    }
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

/// The processes that share the container's process namespace.
fn members(first: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(first) else {
        return Vec::new();
    };
    let on_host = namespace(1).is_some_and(|host| host == wanted);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    if on_host {
        return pids
            .filter(|pid| *pid == first || parent(*pid) == Some(first))
            .collect();
    }
    pids.filter(|pid| namespace(*pid).as_ref() == Some(&wanted))
        .collect()
}

/// The fields of `/proc/PID/stat` after the name, which may have spaces and brackets.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text.rsplit_once(')')?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

fn line(pid: i32) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = stat(pid)?;
    let ticks: u64 = stat.get(11)?.parse::<u64>().ok()? + stat.get(12)?.parse::<u64>().ok()?;
    let seconds = ticks / 100;
    let uid = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let command = if command.is_empty() {
        format!(
            "[{}]",
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .ok()?
                .trim()
        )
    } else {
        command
    };
    let tty = if stat.get(4)? == "0" {
        "?".to_owned()
    } else {
        "pts".to_owned()
    };
    let user = if uid == 0 {
        "root".to_owned()
    } else {
        uid.to_string()
    };
    let time = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    Some(vec![
        user,
        pid.to_string(),
        stat.get(1)?.clone(),
        "0".to_owned(),
        start_time(stat.get(19)?.parse().ok()?),
        tty,
        time,
        command,
    ])
}

/// Ticks since boot → `HH:MM`.
fn start_time(ticks: u64) -> String {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot: i64 = text
        .lines()
        .find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
        .unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(boot + (ticks / 100) as i64)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{:02}:{:02}", at.hour(), at.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process() {
        let pid = std::process::id() as i32;
        let words = line(pid).unwrap();
        assert_eq!(words[1], pid.to_string());
        assert_eq!(words.len(), 8);
        assert!(system_cpu() > 0 && host_memory() > 0);
        assert_eq!(
            fields("a 1\nb x\nc 3\n"),
            [("a".to_owned(), 1), ("c".to_owned(), 3)].into()
        );
        Groups::of(pid).unwrap().memory();
    }
}
