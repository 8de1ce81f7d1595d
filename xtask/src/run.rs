//! Running a program and saying which one failed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Runs `argv` with inherited output; its failure names the command.
pub fn run(argv: &[&str]) -> Result<()> {
    run_with(argv, &[])
}

/// The same, with variables in its environment.
pub fn run_with(argv: &[&str], environment: &[(&str, PathBuf)]) -> Result<()> {
    let status = Command::new(argv[0])
        .args(&argv[1..])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .status()
        .with_context(|| format!("cannot start `{}`", argv[0]))?;
    if !status.success() {
        bail!("`{}` failed ({status})", argv.join(" "));
    }
    Ok(())
}

/// Whether `argv` exits with 0; its output is dropped.
pub fn succeeds(argv: &[&str]) -> bool {
    Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The standard output of `argv`.
pub fn output(argv: &[&str]) -> Result<String> {
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .output()
        .with_context(|| format!("cannot start `{}`", argv[0]))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            argv.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
