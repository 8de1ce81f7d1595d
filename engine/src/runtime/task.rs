//! What a shim is told to do: plain values that the engine decides and the shim carries out.
//!
//! They go over a socket, never through arguments or files, since environments hold secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::seccomp::Filter;
use crate::userns::Maps;

/// One process to hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The container's id.
    pub id: String,
    /// Its control group below the hierarchies' roots.
    pub cgroup: String,
    /// The process itself.
    pub process: Process,
    /// What it may do.
    pub confinement: Confinement,
    /// Where it runs.
    pub place: Place,
    /// Where its output is kept; an exec's is not.
    pub log: Option<LogPlan>,
    /// What it may ask of the kernel; `None`: everything.
    pub filter: Option<Filter>,
}

/// A new container, or one that runs.
#[derive(Debug, Serialize, Deserialize)]
pub enum Place {
    /// A new one.
    New(Box<Isolation>),
    /// That of this process.
    Of(i32),
}

/// The program and its surroundings.
#[derive(Debug, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Made when it is missing.
    pub cwd: String,
    /// `user[:group]`.
    pub user: String,
    /// Additional groups.
    pub groups: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Its first size: rows, columns.
    pub size: Option<(u16, u16)>,
    /// Input may come.
    pub stdin: bool,
    /// Below a small reaper.
    pub init: bool,
}

/// What a process may do; execs get the container's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Confinement {
    /// Capabilities by bit.
    pub capabilities: u64,
    /// With a filter of system calls.
    pub seccomp: bool,
    /// The user's own; else it is Docker's default.
    #[serde(default)]
    pub profile: Option<Filter>,
    /// A profile of AppArmor, where the host has that.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource limits.
    pub limits: Vec<ResourceLimit>,
    /// How willingly the kernel kills it.
    pub oom_score_adj: i64,
}

/// A limit of `setrlimit`; `u64::MAX` is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// `RLIMIT_…`.
    pub resource: u32,
    /// Soft.
    pub soft: u64,
    /// Hard.
    pub hard: u64,
}

/// A namespace of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Its own.
    #[default]
    New,
    /// The host's.
    Host,
    /// This one.
    Join(PathBuf),
}

/// What a container sees.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Isolation {
    /// Mounted root file system.
    pub rootfs: PathBuf,
    /// Its name; empty: the host's.
    pub hostname: String,
    /// And domain.
    pub domainname: String,
    /// Processes.
    pub pid: Namespace,
    /// Shared memory and queues.
    pub ipc: Namespace,
    /// Network.
    pub net: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
    /// In this order.
    pub mounts: Vec<MountPlan>,
    /// Device files.
    pub devices: Vec<Device>,
    /// Every device file of the host.
    pub all_devices: bool,
    /// Hidden files and folders.
    pub masked: Vec<String>,
    /// Read-only files and folders.
    pub readonly: Vec<String>,
    /// The root file system is read-only.
    pub readonly_rootfs: bool,
    /// Every user of its network may ping and take low ports.
    pub open_network: bool,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Control group limits.
    pub limits: Limits,
    /// What it may do with devices; `None`: everything.
    pub device_rules: Option<Vec<DeviceRule>>,
    /// In a user namespace with these ids; `None`: the host's.
    #[serde(default)]
    pub user: Option<Maps>,
}

/// What to mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MountPlan {
    /// A path on the host for binds.
    pub source: String,
    /// A path in the container.
    pub target: String,
    /// A file system's type, `bind`, `cgroup` for whatever the host has, or `tree` for what is at `data` in the mount namespace `source`.
    pub kind: String,
    /// `MS_…`.
    pub flags: u64,
    /// Options of the file system; of a bind the path within the source, looked up as if the source were the root.
    pub data: String,
    /// `MS_PRIVATE` … with `MS_REC`; 0: unchanged.
    pub propagation: u64,
    /// Of a read-only bind: the mounts below it stay as they are.
    pub read_only_top: bool,
}

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// In the container.
    pub path: String,
    /// Mode with the type.
    pub mode: u32,
    /// Number.
    pub rdev: u64,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// `c 1:3 rwm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b`, `c`.
    pub kind: char,
    /// `None`: all.
    pub major: Option<u32>,
    /// `None`: all.
    pub minor: Option<u32>,
    /// Of `rwm`.
    pub access: String,
}

/// Limits of the control group; `None` is unset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Memory and swap, bytes; -1: no limit.
    pub memory_swap: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    /// 0–100, v1 only.
    pub swappiness: Option<i64>,
    /// v1 only.
    pub oom_kill_disable: bool,
    /// 2–262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds: quota (-1: none) and period.
    pub cpu: Option<(i64, u64)>,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    /// `0`.
    pub cpuset_mems: String,
    /// Processes; -1: no limit.
    pub pids: Option<i64>,
    /// Share of block I/O, 10–1000.
    pub io_weight: Option<u16>,
    /// By device (`major:minor`).
    pub io_weights: Vec<(String, u16)>,
    /// What may be done with devices in a second.
    pub io_throttles: Vec<Throttle>,
}

/// A limit for a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Of what.
    pub kind: ThrottleKind,
    /// `major:minor`.
    pub device: String,
    /// A second.
    pub rate: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum ThrottleKind {
    ReadBytes,
    WriteBytes,
    Reads,
    Writes,
}

/// Where and how output is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogPlan {
    /// The file.
    pub path: PathBuf,
    /// Rotated at this size; 0: never.
    pub max_bytes: u64,
    /// Files with the rotated ones.
    pub max_files: u32,
    /// Rotated files are packed by gzip.
    pub compress: bool,
    /// In each line, as `attrs`.
    pub attributes: BTreeMap<String, String>,
    /// Each line goes to the host's journal too, with these fields.
    pub journal: Option<BTreeMap<String, String>>,
}

/// A request to a shim: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Let the program start.
    Start,
    /// Answer when it has ended.
    Wait,
    /// Answer with its number.
    State,
    /// Send it a signal.
    Signal(i32),
    /// Rows and columns.
    Resize(u16, u16),
    /// Frames of output follow the answer.
    Output,
    /// A descriptor for its input comes with the answer.
    Stdin,
    /// The end of its input.
    CloseStdin,
}

/// The answer: one line of JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The process; 0: it has ended.
    #[serde(default)]
    pub pid: i32,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitRecord>,
}

/// How a process ended, as it is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExitRecord {
    /// 0–255, 128 + signal.
    pub code: i64,
    /// The kernel killed for memory.
    pub oom_killed: bool,
    /// RFC 3339.
    pub at: String,
}
