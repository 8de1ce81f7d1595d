//! What a declared file means once it is read, interpolated, merged and checked: the `Project`.
//!
//! Values only, every default filled in where it does not depend on a host. Deliberately absent: what an engine or a provider makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything one declared file (with its overrides) declares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Lower-case letters, digits, `-`, `_`; from `name:`, else from the folder's name.
    pub name: String,
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// Named volumes.
    pub volumes: BTreeMap<String, VolumeDecl>,
    /// Networks; `default` is there when a service uses it.
    pub networks: BTreeMap<String, NetworkDecl>,
    /// `x-fleets`.
    pub fleets: BTreeMap<String, Fleet>,
}

/// Declared containers of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The image's reference; with `build` and no `image`, `<project>-<service>`.
    pub image: String,
    /// How the image is made, where it is built.
    pub build: Option<Build>,
    /// Replaces the image's.
    pub command: Option<Vec<String>>,
    /// Replaces the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `environment` over `env_file`; `None` values (taken from the environment, and not set there) are left out.
    pub environment: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<Port>,
    /// Ports that are only exposed, like `80/tcp`.
    pub expose: Vec<String>,
    /// Mounts.
    pub volumes: Vec<ServiceVolume>,
    /// How it is known to be well; `None`: as the image says.
    pub healthcheck: Option<Healthcheck>,
    /// `restart`, or `deploy.restart_policy`; Docker's words. Default for a deployed service: `unless-stopped`.
    pub restart: Restart,
    /// Services that come first.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Labels of the containers.
    pub labels: BTreeMap<String, String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Working folder.
    pub working_dir: Option<String>,
    /// Host name in the container.
    pub hostname: Option<String>,
    /// Networks it is in, with aliases; empty: `default`.
    pub networks: BTreeMap<String, Vec<String>>,
    /// `network_mode` (`host`, `none`), if given.
    pub network_mode: Option<String>,
    /// Limits and reservations.
    pub resources: Resources,
    /// How many, and where.
    pub deploy: Deploy,
    /// Requests from outside through the ingress.
    pub ingress: Option<Ingress>,
    /// Signal that asks it to end.
    pub stop_signal: Option<String>,
    /// Time it has to end.
    pub stop_grace_period: Option<Duration>,
    /// With an init process.
    pub init: bool,
    /// Root file system is read-only.
    pub read_only: bool,
    /// All capabilities and devices.
    pub privileged: bool,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// `host:ip` lines of `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// `tmpfs` mounts.
    pub tmpfs: Vec<String>,
    /// Logging driver and options.
    pub logging: Option<(String, BTreeMap<String, String>)>,
    /// With a terminal.
    pub tty: bool,
    /// With open input.
    pub stdin_open: bool,
}

/// How an image is built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Folder, absolute or relative to the project's folder.
    pub context: String,
    /// Relative to the context.
    pub dockerfile: Option<String>,
    /// `ARG` values.
    pub args: BTreeMap<String, String>,
    /// Stage.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// A published port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// In the container.
    pub target: u16,
    /// On the host; `None`: the engine chooses.
    pub published: Option<u16>,
    /// Address of the host; `None`: all.
    pub host_ip: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceVolume {
    /// A volume of the project by its key, or an anonymous one.
    Volume {
        /// Key in `Project::volumes`; `None`: anonymous.
        name: Option<String>,
        /// In the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// A path of the machine (absolute).
    Bind {
        /// On the machine.
        source: String,
        /// In the container.
        target: String,
        /// Not writable.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// In the container.
        target: String,
        /// Bytes; `None`: no limit.
        size_bytes: Option<u64>,
    },
}

/// A health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", "…"]` or `["NONE"]`; empty: the image's.
    pub test: Vec<String>,
    /// Between two.
    pub interval: Option<Duration>,
    /// Of one.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Failures in this time do not count.
    pub start_period: Option<Duration>,
    /// Between two in the start period.
    pub start_interval: Option<Duration>,
}

/// What happens when the container ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Nothing.
    No,
    /// It is started again, except after the user stopped it.
    #[default]
    UnlessStopped,
    /// It is started again.
    Always,
    /// It is started again after a failure, at most so often.
    OnFailure {
        /// 0: without limit.
        maximum: u32,
    },
}

/// What a dependency must have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dependency {
    /// It runs.
    #[default]
    Started,
    /// It is healthy.
    Healthy,
    /// It has ended with 0.
    Completed,
}

/// Limits and reservations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Processors, like 0.5.
    pub cpus: Option<f64>,
    /// Memory limit.
    pub memory_bytes: Option<u64>,
    /// Processes.
    pub pids: Option<u64>,
    /// Reserved memory.
    pub memory_reservation_bytes: Option<u64>,
}

/// How many replicas, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Global or a number.
    pub mode: Mode,
    /// Machines that qualify.
    pub constraints: Vec<Constraint>,
    /// How replicas are replaced.
    pub update: Update,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// One on each machine that qualifies.
    Global,
    /// So many over the machines that qualify.
    Replicated(u32),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated(1)
    }
}

/// `placement.constraints`: `node.labels.fleet == web`, `node.hostname != a`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// `node.hostname`, or `node.labels.<label>`; the label `fleet` is the machine's fleet.
    pub key: String,
    /// `==` (true) or `!=`.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// `update_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Whether the new replica starts before the old one stops. Start-first is refused where a fixed host port forbids it.
    pub order: Order,
    /// Replicas replaced at once; at least 1.
    pub parallelism: u32,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            order: Order::StopFirst,
            parallelism: 1,
        }
    }
}

/// Which comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The old one stops, then the new one starts; Compose's default.
    #[default]
    StopFirst,
    /// The new one is healthy before the old one stops.
    StartFirst,
}

/// `x-ingress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Host name; `None`: any.
    pub host: Option<String>,
    /// Path prefix; `/` by default.
    pub path: String,
    /// Port in the container.
    pub port: u16,
    /// Port on which the ingress listens on its machines; 80 by default.
    pub listen: u16,
    /// Path that the ingress probes with GET; `None`: connections only.
    pub health_path: Option<String>,
    /// How long requests in progress may take when a replica leaves; 30 s by default.
    pub drain: Duration,
}

/// A declared volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDecl {
    /// Name on the engine: `<project>_<key>`, or as `name:` says.
    pub name: String,
    /// Not made and not removed by us.
    pub external: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A declared network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDecl {
    /// Name on the engine: `<project>_<key>`, or as `name:` says.
    pub name: String,
    /// Not made and not removed by us.
    pub external: bool,
    /// Without a way out.
    pub internal: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// What makes its machines; `None`: as `--driver` says.
    pub provider: Option<String>,
    /// The provider's create flags without their prefix.
    pub options: BTreeMap<String, String>,
    /// Never fewer machines.
    pub min: u32,
    /// Never more. Equal to `min` for a fleet of a fixed count (`count:`).
    pub max: u32,
    /// Present when it scales by load.
    pub scaling: Option<Scaling>,
    /// Labels of its machines.
    pub labels: BTreeMap<String, String>,
}

/// How a fleet scales: `target: {cpu: 60}` and what tunes it, under the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean CPU to aim at, per cent.
    pub target_cpu_percent: f64,
    /// `warm_up`, `scale_out_cooldown`, `scale_in_cooldown`, `stabilisation_window`, `interval`, as given.
    pub warm_up: Option<Duration>,
    /// See [`Scaling::warm_up`].
    pub scale_out_cooldown: Option<Duration>,
    /// See [`Scaling::warm_up`].
    pub scale_in_cooldown: Option<Duration>,
    /// See [`Scaling::warm_up`].
    pub stabilisation_window: Option<Duration>,
    /// Between two looks.
    pub interval: Option<Duration>,
}
