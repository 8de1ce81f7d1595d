//! The table of drivers: the only file that names concrete providers.

use windlass_provider::Driver;

use crate::error::{CommandError, Result};

/// Every driver; the first is the default.
pub const DRIVERS: &[Driver] = &[
    windlass_provider_local::DRIVER,
    windlass_provider_generic::DRIVER,
];

/// The driver of that name.
pub fn driver(name: &str) -> Result<&'static Driver> {
    DRIVERS
        .iter()
        .find(|driver| driver.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = DRIVERS.iter().map(|driver| driver.name).collect();
            CommandError::input(format!("there is no driver `{name}`"))
                .hint(format!("the drivers are: {}", names.join(", ")))
        })
}

/// The names, for help and completion.
pub fn names() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().map(|driver| driver.name)
}
