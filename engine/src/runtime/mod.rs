//! Containers as processes: a small shim process holds each of them, so that it outlives the engine.
//!
//! The engine's side is [`LocalRuntime`]; it keeps nothing in memory that it could not find again in its run folder. The shim is the
//! engine's own binary, entered by [`shim_main`]. In the order of the data flow: `plan` (with `mounts`, `devices`, `capability`) turns a
//! specification into a `task`; `local` and `client` hand it to a `shim`, which makes the container (`cgroup`, `limits`,
//! `device_filter`), whose first process sets itself up (`child`: `rootfs`, `identity`, `user`, `seccomp`, `init`) while the shim goes on
//! to `hold` it (`guest`, `log`).
//!
//! Deliberately absent: images, networks, restart policies, health; user namespaces; systemd as the maker of control groups.

pub(crate) mod capability;
mod cgroup;
mod child;
mod client;
mod device_filter;
mod devices;
mod guest;
mod hold;
mod identity;
mod init;
mod limits;
mod local;
mod log;
mod mounts;
mod plan;
mod rootfs;
mod seccomp;
mod shim;
pub(crate) mod sys;
mod task;
mod user;
pub mod user_namespace;

use std::ffi::OsString;

pub use local::LocalRuntime;
pub(crate) use plan::{MASKED, READONLY};

/// The first argument by which `main` tells a shim from an engine.
pub const SHIM: &str = "shim";

/// The control groups that there are of a container for which no other place was asked.
pub fn control_groups(id: &str) -> std::io::Result<Vec<std::path::PathBuf>> {
    let group = cgroup::Group::at(&plan::default_cgroup(id))?;
    let folders = group.hierarchies().0.iter().map(|h| group.folder(h));
    Ok(folders.filter(|folder| folder.exists()).collect())
}

/// Runs as a shim; called by `main` before there is any thread, with its arguments. The answer is the exit code.
pub fn shim_main(args: Vec<OsString>) -> i32 {
    let named = args.iter().take(2).position(|a| a == SHIM);
    shim::main(&args[named.map_or(0, |at| at + 1)..])
}
