//! What is needed from Debian, installed where it is missing.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::run::{run, succeeds};

/// A package, and a file that shows that it is there.
pub type Package = (&'static str, &'static str);

/// For static binaries.
pub const BUILD: &[Package] = &[
    ("musl-tools", "/usr/bin/musl-gcc"),
    ("gcc-aarch64-linux-gnu", "/usr/bin/aarch64-linux-gnu-gcc"),
    (
        "libc6-dev-arm64-cross",
        "/usr/aarch64-linux-gnu/include/stdio.h",
    ),
    ("cmake", "/usr/bin/cmake"),
    // libFuzzer is C++.
    ("g++", "/usr/bin/g++"),
];

/// For the tests.
pub const TESTS: &[Package] = &[
    ("openssh-server", "/usr/sbin/sshd"),
    ("sudo", "/usr/bin/sudo"),
    ("openssh-client", "/usr/bin/ssh"),
    ("busybox-static", "/bin/busybox"),
    ("iproute2", "/sbin/ip"),
    ("nftables", "/usr/sbin/nft"),
    ("iptables", "/usr/sbin/iptables-legacy"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("apache2-utils", "/usr/bin/htpasswd"),
    ("curl", "/usr/bin/curl"),
    ("debootstrap", "/usr/sbin/debootstrap"),
    ("skopeo", "/usr/bin/skopeo"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    ("qemu-user-static", "/usr/bin/qemu-aarch64-static"),
    ("e2fsprogs", "/sbin/mkfs.ext4"),
];

/// For the demo, besides.
pub const DEMO: &[Package] = &[("curl", "/usr/bin/curl")];

/// For the bench, besides.
pub const BENCH: &[Package] = &[("docker.io", "/usr/sbin/dockerd")];

/// For the conformance run, besides.
pub const CONFORMANCE: &[Package] = &[
    ("python3-venv", "/usr/share/doc/python3-venv"),
    ("docker-compose", "/usr/bin/docker-compose"),
];

/// For the bench of the engine alone, besides.
pub const BENCH_ENGINE: &[Package] = &[
    ("podman", "/usr/bin/podman"),
    ("crun", "/usr/bin/crun"),
    ("wrk", "/usr/bin/wrk"),
];

const INSTALL: [&str; 5] = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];

/// Installs those that are missing.
pub fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    println!("installing {names} …");
    ensure!(
        succeeds(&["apt-get", "--version"]) && nix::unistd::geteuid().is_root(),
        "missing on this computer: {names}; install what has these as your system does it"
    );
    run(&["apt-get", "update", "-qq"])?;
    run(&[&INSTALL[..], &missing[..]].concat()).with_context(|| format!("cannot install {names}"))
}

/// The `docker` client, which may also come from elsewhere, and is in a package of its own on newer Debians only.
pub fn install_docker_client() -> Result<()> {
    if succeeds(&["docker", "--version"]) {
        return Ok(());
    }
    run(&["apt-get", "update", "-qq"])?;
    let package = |name| run(&[&INSTALL[..], &[name]].concat());
    package("docker-cli").or_else(|_| package("docker.io"))
}
