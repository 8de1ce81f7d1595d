//! Puts the engine binary and its service onto a host, over SSH alone.
//!
//! [`install`] looks at the host once ([`probe()`]), uploads the engine where its digest differs, writes the service of the host's init
//! system, starts it where that is needed, and waits until the engine answers. Running it again changes nothing. An engine that
//! does not answer is taken back for the one before. Needs no internet and no package manager on the host.
//!
//! Deliberately absent: making hosts, and removing the engine from a host that stays. On a host without systemd or OpenRC the engine
//! is started, but nothing starts it again after a reboot; the next installation does.

mod binaries;
mod check;
mod error;
mod layout;
mod probe;
mod progress;
mod run;
mod service;

pub use binaries::{Binaries, EngineBinary};
pub use error::{Error, Restored, Result};
pub use layout::Layout;
pub use probe::{
    Arch, CgroupVersion, EngineState, Feature, Init, Probe, RootAccess, Running, parse_probe,
    probe, probe_at,
};
pub use progress::{Installed, Progress};
pub use run::{install, install_at};
