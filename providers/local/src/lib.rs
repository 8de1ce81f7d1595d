//! Machines on this computer, as privileged containers of a private engine.

use windlass_provider::{
    Context, Driver, ErrorKind, OptionSpec, OptionValues, Provider, ProviderError, Result,
};

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

/// Builds the provider from resolved values, and checks them.
pub fn from_options(_: &OptionValues, _: &Context) -> Result<Box<dyn Provider>> {
    Err(ProviderError::new(
        ErrorKind::Unsupported,
        "driver `local` is not there yet",
    ))
}
