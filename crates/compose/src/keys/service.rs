//! What stands under a service, without `deploy`.

use super::Table;

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
