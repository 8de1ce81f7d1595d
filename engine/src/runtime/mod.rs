//! Containers as processes: a small shim process holds each of them, so that it outlives the engine.
//!
//! The engine's side is [`LocalRuntime`]; it keeps nothing in memory that it could not find again in its run folder. The shim is the
//! engine's own binary, entered by [`shim_main`]. Deliberately absent: images, networks, restart policies, health.

mod local;

use std::ffi::OsString;

pub use local::LocalRuntime;

/// The first argument by which `main` tells a shim from an engine.
pub const SHIM: &str = "shim";

/// Runs as a shim; called by `main` before there is any thread. The answer is the exit code.
pub fn shim_main(args: Vec<OsString>) -> i32 {
    let _ = args;
    1
}
