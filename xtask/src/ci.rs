//! `cargo xtask ci`: every check, each a timed stage. It starts from a bare Debian with a Rust toolchain.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{
    budget,
    run::{output, run, succeeds},
};

/// What the build and the tests need from Debian: package, and a file that shows that it is there.
const PACKAGES: &[(&str, &str)] = &[
    ("musl-tools", "/usr/bin/musl-gcc"),
    ("gcc-aarch64-linux-gnu", "/usr/bin/aarch64-linux-gnu-gcc"),
    ("cmake", "/usr/bin/cmake"),
    ("openssh-server", "/usr/sbin/sshd"),
    ("openssh-client", "/usr/bin/ssh"),
    ("busybox-static", "/bin/busybox"),
    ("iproute2", "/sbin/ip"),
    ("nftables", "/usr/sbin/nft"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("apache2-utils", "/usr/bin/htpasswd"),
];

/// Crates built and tested by themselves: a build together would unify the engine's features with the command line's.
const GROUPS: &[&[&str]] = &[
    &["windlassd"],
    &["windlass-local-init"],
    &[
        "windlass-engine-api",
        "windlass-provider",
        "windlass-provider-generic",
        "windlass-provider-local",
        "windlass-machine",
        "windlass-ssh",
        "windlass-install",
        "windlass-compose",
        "windlass-deploy",
        "windlass-autoscale",
        "windlass-ingress",
    ],
    &["windlass"],
    &["xtask"],
];

/// Layers that must not see each other: (crate, what must be absent from its dependencies).
const FORBIDDEN: &[(&str, &str)] = &[
    ("windlass", "windlassd"),
    ("windlassd", "windlass-machine"),
    ("windlassd", "windlass-ssh"),
    ("windlassd", "windlass-deploy"),
    ("windlass-deploy", "windlass-ssh"),
    ("windlass-deploy", "windlass-provider-local"),
    ("windlass-compose", "tokio"),
    ("windlass-machine", "windlass-ssh"),
    ("windlass-autoscale", "windlass-ssh"),
];

/// Runs all stages and stops at the first that fails.
pub fn run_all() -> Result<()> {
    let began = Instant::now();
    stage("prerequisites", prerequisites)?;
    stage("format", || run(&["cargo", "fmt", "--all", "--check"]))?;
    stage("budgets", budget::check)?;
    stage("layers", layers)?;
    for group in GROUPS {
        stage(&format!("clippy {}", group[0]), || {
            cargo("clippy", group, &["--all-targets", "--", "-D", "warnings"])
        })?;
    }
    for group in GROUPS {
        stage(&format!("test {}", group[0]), || cargo("test", group, &[]))?;
    }
    println!(
        "ci: all stages passed in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("ci: {name} …");
    let began = Instant::now();
    work().with_context(|| format!("stage `{name}` failed"))?;
    println!("ci: {name} ok ({:.0} s)", began.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(command: &str, group: &[&str], rest: &[&str]) -> Result<()> {
    let mut argv = vec!["cargo", command, "--quiet"];
    for package in group {
        argv.extend(["--package", package]);
    }
    argv.extend(rest);
    run(&argv)
}

fn prerequisites() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, file)| !std::path::Path::new(file).exists())
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() {
        run(&["apt-get", "update", "-qq"])?;
        let mut argv = vec!["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
        argv.extend(missing);
        run(&argv)?;
    }
    let installed = output(&["rustup", "target", "list", "--installed"])?;
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        if !installed.lines().any(|line| line == target) {
            run(&["rustup", "target", "add", target])?;
        }
    }
    Ok(())
}

fn layers() -> Result<()> {
    for (package, absent) in FORBIDDEN {
        if succeeds(&[
            "cargo",
            "tree",
            "--quiet",
            "--edges",
            "normal",
            "--package",
            package,
            "--invert",
            absent,
        ]) {
            bail!(
                "`{package}` must not depend on `{absent}`; `cargo tree -p {package} -i {absent}` shows the way"
            );
        }
    }
    Ok(())
}
