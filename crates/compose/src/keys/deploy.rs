//! What stands under a service's `deploy`.

use super::Table;

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
