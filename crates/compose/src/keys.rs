//! The keys of the declared file: which windlass has, which it may leave aside, and which are Compose's but not there yet.
//!
//! The one list: reading refuses what is not in it, and the user guide's tables are made from it. Deliberately absent: what a key means.

use std::fmt::Write as _;

/// The keys of one place of the file.
#[derive(Debug)]
pub struct Table {
    /// Like `services.<name>.build`.
    pub place: &'static str,
    /// What is read, with what is worth knowing about it.
    pub supported: &'static [(&'static str, &'static str)],
    /// What is accepted and has no effect, with the reason.
    pub ignored: &'static [(&'static str, &'static str)],
    /// Keys of the Compose Specification that are refused.
    pub later: &'static [&'static str],
}

impl Table {
    /// The nearest known key, if one is near.
    pub(crate) fn suggest(&self, key: &str) -> Option<&'static str> {
        let known = self
            .supported
            .iter()
            .chain(self.ignored)
            .map(|(name, _)| *name);
        nearest(key, known.chain(self.later.iter().copied()))
    }

    pub(crate) fn accepts(&self, key: &str) -> bool {
        self.supported
            .iter()
            .chain(self.ignored)
            .any(|(name, _)| *name == key)
    }
}

/// The candidate with the fewest edits, if a person could have meant it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let furthest = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= furthest)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Our extension keys and where they belong.
pub(crate) const EXTENSIONS: &[(&str, &Table)] = &[("x-fleets", &TOP), ("x-ingress", &SERVICE)];

/// The file itself.
pub static TOP: Table = Table {
    place: "the file",
    supported: &[
        ("name", "the project's name; by default that of the folder"),
        ("services", ""),
        ("volumes", ""),
        ("networks", ""),
        ("x-fleets", "groups of like machines; windlass's own"),
    ],
    ignored: &[("version", "as Compose ignores it")],
    later: &["configs", "include", "models", "secrets"],
};

/// One service.
pub static SERVICE: Table = Table {
    place: "services.<name>",
    supported: &[
        ("build", "the folder, or a mapping"),
        ("cap_add", ""),
        ("cap_drop", ""),
        ("command", "a list, or a text that is split as a shell does"),
        ("cpus", "like `deploy.resources.limits.cpus`"),
        ("depends_on", "a list, or a mapping with `condition`"),
        ("deploy", "how many, where, and how they are replaced"),
        ("dns", "one or a list"),
        ("entrypoint", "as `command`"),
        (
            "env_file",
            "one, a list, or mappings with `path` and `required`; read on this computer",
        ),
        ("environment", "a list of `NAME=value`, or a mapping"),
        ("expose", ""),
        (
            "extra_hosts",
            "`name:address` or `name=address`, a list or a mapping",
        ),
        ("healthcheck", ""),
        ("hostname", ""),
        ("image", ""),
        ("init", ""),
        ("labels", ""),
        ("logging", "`driver` and `options`"),
        ("mem_limit", "like `deploy.resources.limits.memory`"),
        (
            "mem_reservation",
            "like `deploy.resources.reservations.memory`",
        ),
        ("network_mode", "`host`, `none` or `bridge`"),
        ("networks", "a list, or a mapping with `aliases`"),
        ("pids_limit", "like `deploy.resources.limits.pids`"),
        ("ports", "short and long form, ranges too"),
        ("privileged", ""),
        (
            "profiles",
            "a service with profiles is left out unless one of them is asked for",
        ),
        ("read_only", ""),
        (
            "restart",
            "`no`, `always`, `unless-stopped` (the default here), `on-failure[:times]`",
        ),
        ("scale", "like `deploy.replicas`"),
        ("stdin_open", ""),
        ("stop_grace_period", ""),
        ("stop_signal", ""),
        ("sysctls", "a list or a mapping"),
        ("tmpfs", "one or a list"),
        ("tty", ""),
        ("user", ""),
        (
            "volumes",
            "short and long form; a bind mount names an absolute path of the machine",
        ),
        ("working_dir", ""),
        (
            "x-ingress",
            "requests from outside through the ingress; windlass's own",
        ),
    ],
    ignored: &[
        ("attach", "`up` shows no output of containers"),
        ("develop", "only for `docker compose watch`"),
    ],
    later: &[
        "annotations",
        "blkio_config",
        "cgroup",
        "cgroup_parent",
        "configs",
        "container_name",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpuset",
        "credential_spec",
        "device_cgroup_rules",
        "devices",
        "dns_opt",
        "dns_search",
        "domainname",
        "extends",
        "external_links",
        "gpus",
        "group_add",
        "ipc",
        "isolation",
        "label_file",
        "links",
        "mac_address",
        "mem_swappiness",
        "memswap_limit",
        "models",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "platform",
        "post_start",
        "pre_stop",
        "provider",
        "pull_policy",
        "pull_refresh_after",
        "runtime",
        "secrets",
        "security_opt",
        "shm_size",
        "storage_opt",
        "ulimits",
        "use_api_socket",
        "userns_mode",
        "uts",
        "volumes_from",
    ],
};

/// How an image is built.
pub static BUILD: Table = Table {
    place: "services.<name>.build",
    supported: &[
        ("args", "a list or a mapping"),
        ("context", "a folder of this computer"),
        ("dockerfile", ""),
        ("labels", ""),
        ("target", "the stage"),
    ],
    ignored: &[],
    later: &[
        "additional_contexts",
        "cache_from",
        "cache_to",
        "dockerfile_inline",
        "entitlements",
        "extra_hosts",
        "isolation",
        "network",
        "no_cache",
        "platforms",
        "privileged",
        "provenance",
        "pull",
        "sbom",
        "secrets",
        "shm_size",
        "ssh",
        "tags",
        "ulimits",
    ],
};

/// A health check.
pub static HEALTHCHECK: Table = Table {
    place: "services.<name>.healthcheck",
    supported: &[
        ("disable", ""),
        ("interval", ""),
        ("retries", ""),
        ("start_interval", ""),
        ("start_period", ""),
        ("test", "a text is run by the container's shell"),
        ("timeout", ""),
    ],
    ignored: &[],
    later: &[],
};

/// A port in long form.
pub static PORT: Table = Table {
    place: "services.<name>.ports[]",
    supported: &[
        ("host_ip", ""),
        ("protocol", "`tcp` or `udp`"),
        ("published", ""),
        ("target", ""),
    ],
    ignored: &[
        ("app_protocol", "a remark for other tools"),
        ("mode", "ports are always published on the machine itself"),
        ("name", "a remark for people"),
    ],
    later: &[],
};

/// A mount in long form.
pub static MOUNT: Table = Table {
    place: "services.<name>.volumes[]",
    supported: &[
        ("read_only", ""),
        ("source", ""),
        ("target", ""),
        ("tmpfs", ""),
        ("type", "`volume`, `bind` or `tmpfs`"),
    ],
    ignored: &[("consistency", "it has no effect on Linux")],
    later: &["bind", "image", "volume"],
};

/// A mount in memory.
pub static MOUNT_TMPFS: Table = Table {
    place: "services.<name>.volumes[].tmpfs",
    supported: &[("size", "")],
    ignored: &[],
    later: &["mode"],
};

/// A file of variables, as a mapping.
pub static ENV_FILE: Table = Table {
    place: "services.<name>.env_file[]",
    supported: &[("path", ""), ("required", "")],
    ignored: &[],
    later: &["format"],
};

/// A dependency, as a mapping.
pub static DEPENDENCY: Table = Table {
    place: "services.<name>.depends_on.<name>",
    supported: &[
        (
            "condition",
            "`service_started`, `service_healthy` or `service_completed_successfully`",
        ),
        ("required", ""),
    ],
    ignored: &[],
    later: &["restart"],
};

/// A service's place in a network.
pub static SERVICE_NETWORK: Table = Table {
    place: "services.<name>.networks.<name>",
    supported: &[("aliases", "")],
    ignored: &[],
    later: &[
        "driver_opts",
        "gw_priority",
        "interface_name",
        "ipv4_address",
        "ipv6_address",
        "link_local_ips",
        "mac_address",
        "priority",
    ],
};

/// Logging.
pub static LOGGING: Table = Table {
    place: "services.<name>.logging",
    supported: &[("driver", ""), ("options", "")],
    ignored: &[],
    later: &[],
};

/// How many, and where.
pub static DEPLOY: Table = Table {
    place: "services.<name>.deploy",
    supported: &[
        (
            "mode",
            "`replicated`, or `global`: one on each machine that qualifies",
        ),
        ("placement", ""),
        ("replicas", ""),
        ("resources", ""),
        ("restart_policy", "goes before `restart`"),
        ("update_config", ""),
    ],
    ignored: &[],
    later: &["endpoint_mode", "labels", "rollback_config"],
};

/// Which machines.
pub static PLACEMENT: Table = Table {
    place: "services.<name>.deploy.placement",
    supported: &[(
        "constraints",
        "`node.labels.<label>` or `node.hostname`, `==` or `!=`; the label `fleet` is the machine's fleet",
    )],
    ignored: &[],
    later: &["max_replicas_per_node", "preferences"],
};

/// Resources.
pub static RESOURCES: Table = Table {
    place: "services.<name>.deploy.resources",
    supported: &[("limits", ""), ("reservations", "")],
    ignored: &[],
    later: &[],
};

/// Limits.
pub static LIMITS: Table = Table {
    place: "services.<name>.deploy.resources.limits",
    supported: &[("cpus", ""), ("memory", ""), ("pids", "")],
    ignored: &[],
    later: &[],
};

/// Reservations.
pub static RESERVATIONS: Table = Table {
    place: "services.<name>.deploy.resources.reservations",
    supported: &[("memory", "")],
    ignored: &[],
    later: &["cpus", "devices", "generic_resources"],
};

/// What happens when a container ends.
pub static RESTART_POLICY: Table = Table {
    place: "services.<name>.deploy.restart_policy",
    supported: &[
        ("condition", "`none`, `on-failure` or `any`"),
        ("max_attempts", ""),
    ],
    ignored: &[],
    later: &["delay", "window"],
};

/// How replicas are replaced.
pub static UPDATE: Table = Table {
    place: "services.<name>.deploy.update_config",
    supported: &[
        ("failure_action", "`pause` only"),
        (
            "order",
            "`stop-first` or `start-first`; the latter without published host ports",
        ),
        ("parallelism", "replicas replaced at once"),
    ],
    ignored: &[],
    later: &["delay", "max_failure_ratio", "monitor"],
};

/// Requests from outside.
pub static INGRESS: Table = Table {
    place: "services.<name>.x-ingress",
    supported: &[
        (
            "drain",
            "how long requests in progress may take when a replica leaves; `30s`",
        ),
        (
            "health_path",
            "what the ingress probes with GET; without it, connections only",
        ),
        ("host", "the host name; any"),
        ("listen", "the port on the ingress's machines; 80"),
        ("path", "the path's beginning; `/`"),
        ("port", "the port in the container"),
    ],
    ignored: &[],
    later: &[],
};

/// A declared volume.
pub static VOLUME: Table = Table {
    place: "volumes.<name>",
    supported: &[
        ("driver", "`local` only"),
        ("driver_opts", ""),
        ("external", ""),
        ("labels", ""),
        ("name", "by default `<project>_<name>`"),
    ],
    ignored: &[],
    later: &[],
};

/// A declared network.
pub static NETWORK: Table = Table {
    place: "networks.<name>",
    supported: &[
        ("driver", "`bridge` only"),
        ("external", ""),
        ("internal", ""),
        ("labels", ""),
        ("name", "by default `<project>_<name>`"),
    ],
    ignored: &[],
    later: &[
        "attachable",
        "driver_opts",
        "enable_ipv4",
        "enable_ipv6",
        "ipam",
    ],
};

/// A fleet.
pub static FLEET: Table = Table {
    place: "x-fleets.<name>",
    supported: &[
        ("count", "a fixed number of machines; 1"),
        ("interval", "between two looks at the load"),
        ("labels", "labels of the machines"),
        ("max", "never more machines"),
        ("min", "never fewer machines"),
        (
            "options",
            "the create flags of the provider without their prefix",
        ),
        ("provider", "what makes the machines; else `--driver` says"),
        (
            "scale_in_cooldown",
            "after a change, before the next machine leaves",
        ),
        (
            "scale_out_cooldown",
            "after a change, before the next machine comes",
        ),
        (
            "stabilisation_window",
            "the load must have been low for so long",
        ),
        ("target", ""),
        ("warm_up", "a new machine's load does not count before"),
    ],
    ignored: &[],
    later: &[],
};

/// What a fleet aims at.
pub static TARGET: Table = Table {
    place: "x-fleets.<name>.target",
    supported: &[("cpu", "mean load of the machines in per cent")],
    ignored: &[],
    later: &[],
};

/// All tables, from the outside in.
pub static TABLES: &[&Table] = &[
    &TOP,
    &SERVICE,
    &BUILD,
    &HEALTHCHECK,
    &PORT,
    &MOUNT,
    &MOUNT_TMPFS,
    &ENV_FILE,
    &DEPENDENCY,
    &SERVICE_NETWORK,
    &LOGGING,
    &DEPLOY,
    &PLACEMENT,
    &RESOURCES,
    &LIMITS,
    &RESERVATIONS,
    &RESTART_POLICY,
    &UPDATE,
    &INGRESS,
    &VOLUME,
    &NETWORK,
    &FLEET,
    &TARGET,
];

/// The tables as the user guide shows them.
pub fn markdown() -> String {
    let mut out = String::new();
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|n| format!("`{n}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for table in TABLES {
        // Writing to a string cannot fail.
        let _ = write!(out, "### `{}`\n\n| key | |\n| --- | --- |\n", table.place);
        for (name, note) in table.supported {
            let _ = writeln!(out, "| `{name}` | {note} |");
        }
        for (name, why) in table.ignored {
            let _ = writeln!(out, "| `{name}` | accepted, without effect: {why} |");
        }
        if !table.later.is_empty() {
            let _ = write!(out, "\nNot there yet: {}.\n", list(table.later));
        }
        out.push('\n');
    }
    out.replace("### `the file`", "### The file")
}
