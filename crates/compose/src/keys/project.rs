//! The file itself, its volumes, networks and fleets.

use super::Table;

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
