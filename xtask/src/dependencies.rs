//! `cargo xtask deny`: licences, sources and bans of all dependencies, by deny.toml.
//!
//! Deliberately absent: advisories, whose database is not on a package registry; `cargo deny check advisories` asks for them.

use anyhow::Result;

use crate::run::{run, succeeds};

/// Installs cargo-deny where it is missing, which takes some minutes once, and runs it.
pub fn check() -> Result<()> {
    if !succeeds(&["cargo", "deny", "--version"]) {
        println!("installing cargo-deny …");
        run(&["cargo", "install", "--quiet", "--locked", "cargo-deny"])?;
    }
    run(&[
        "cargo",
        "deny",
        "--locked",
        "--log-level",
        "error",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ])
}
