//! Machines on this computer, as privileged containers of a private engine.
//!
//! A machine is a container that boots a small init with an SSH server over this computer's own `/usr`, read-only: nothing
//! is downloaded, and neither `/home` nor `/root` nor most of `/etc` can be seen in it. It has its own address on a
//! bridge, its own processes, and a volume for `/var`, where the engine that is installed on it keeps its data.
//!
//! Deliberately absent: protection of this computer against root on a machine. A privileged container is for trying things
//! out and for tests, not for strangers.

mod binaries;
mod engine;
mod failure;
mod image;
mod keys;
mod layout;
mod limits;
mod lock;
mod machine;
mod provider;
mod subnet;

use std::path::PathBuf;

use windlass_provider::{Context, Driver, OptionSpec, OptionValues, Provider, Result};

pub use limits::Limits;

/// The options.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        env: Some("LOCAL_CPUS"),
        ..OptionSpec::new("cpus", "CPUs a machine may use, like 1.5 [default: all]")
    },
    OptionSpec {
        env: Some("LOCAL_MEMORY"),
        ..OptionSpec::new(
            "memory",
            "memory a machine may use, like 512m or 2g [default: all]",
        )
    },
];

/// This provider, for the table of drivers.
pub const DRIVER: Driver = Driver {
    name: "local",
    summary: "a machine on this computer (Linux, root)",
    options: OPTIONS,
    from_options,
};

/// Machines on this computer.
#[derive(Clone, Debug)]
pub struct Local {
    state: PathBuf,
    binaries: Option<PathBuf>,
    limits: Limits,
}

/// Builds the provider from resolved values, and checks them.
pub fn from_options(values: &OptionValues, context: &Context) -> Result<Box<dyn Provider>> {
    Ok(Box::new(Local::new(values, context)?))
}

impl Local {
    /// Checks the values; nothing of this computer is looked at yet.
    pub fn new(values: &OptionValues, context: &Context) -> Result<Self> {
        Ok(Self {
            state: context.state.clone(),
            binaries: context.binaries.clone(),
            limits: Limits::from_options(values)?,
        })
    }
}
