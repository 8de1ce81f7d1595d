//! One look at a host: a script on its shell, read as key=value lines by a pure function.

use std::collections::HashMap;
use std::time::Duration;

use windlass_ssh::{Command, Session};

use crate::error::{Error, Result};
use crate::layout::Layout;

const SCRIPT: &str = include_str!("../../../templates/probe.sh");
/// A host that needs longer than this is not well.
const LONGEST: Duration = Duration::from_secs(60);

/// A processor that there are binaries for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// As the folders of binaries are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn of(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" | "amd64" => Some(Self::X86_64),
            "aarch64" | "arm64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// What starts services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// Nothing that we know.
    None,
}

/// Whether the kernel can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// Nothing on the host can tell.
    Unknown,
}

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Separate hierarchies.
    V1,
    /// The unified one.
    V2,
    /// Both.
    Hybrid,
    /// Not at all.
    None,
}

/// How root's work can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootAccess {
    /// The login user is root.
    Root,
    /// By sudo without a password.
    Sudo,
    /// Not at all; what sudo said.
    None(String),
}

/// Whether an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// From the program that lies there.
    Yes,
    /// From a program that has been replaced since.
    Stale,
    /// It does not.
    No,
}

/// An engine on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineState {
    /// Hex SHA-256 of its program, where the host can tell.
    pub digest: Option<String>,
    /// What `--version` says; empty where it does not run.
    pub version: String,
    /// Whether it runs.
    pub running: Running,
}

/// A host as one look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `Linux`.
    pub system: String,
    /// Its architecture as it calls it.
    pub machine: String,
    /// The same, where there are binaries for it.
    pub arch: Option<Arch>,
    /// Kernel release.
    pub kernel: String,
    /// The distribution, for people.
    pub os_release: String,
    /// How root's work can be done.
    pub root_access: RootAccess,
    /// What starts services.
    pub init: Init,
    /// Layered file systems.
    pub overlayfs: Feature,
    /// Packet filtering.
    pub nftables: Feature,
    /// Kinds of namespaces.
    pub namespaces: Vec<String>,
    /// Control groups.
    pub cgroup: CgroupVersion,
    /// An engine that is there already.
    pub engine: Option<EngineState>,
    /// The socket of a Docker engine.
    pub docker: Option<String>,
    /// Free bytes where the program goes.
    pub free_binary_bytes: Option<u64>,
    /// Free bytes where images and containers go.
    pub free_state_bytes: Option<u64>,
    /// Whether it can unpack gzip.
    pub has_gzip: bool,
}

/// Looks at a host.
pub async fn probe(session: &Session) -> Result<Probe> {
    probe_at(session, &Layout::default()).await
}

/// Looks at a host, with everything below a prefix.
pub async fn probe_at(session: &Session, layout: &Layout) -> Result<Probe> {
    let arguments = [
        "sh".to_owned(),
        "-s".to_owned(),
        "--".to_owned(),
        layout.binary(),
        layout.state(),
        layout.socket(),
        layout.pid_file(),
    ];
    let command = Command::new(arguments)
        .called("a look at the host")
        .time_limit(LONGEST);
    let output = session
        .exec_with_input(&command, SCRIPT.as_bytes())
        .await
        .map_err(|e| Error::ssh("a look at the host", e))?;
    let mut probe = parse_probe(&output.stdout_text()).map_err(|e| match e {
        Error::Probe(why) if !output.stderr_text().is_empty() => {
            Error::Probe(format!("{why}; it said: {}", output.stderr_text()))
        }
        other => other,
    })?;
    if !layout.is_the_hosts() {
        probe.init = Init::None;
    }
    tracing::debug!(?probe, "looked at the host");
    Ok(probe)
}

/// Reads what the script has printed.
pub fn parse_probe(text: &str) -> Result<Probe> {
    let facts: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let get = |key: &str| facts.get(key).copied().unwrap_or_default();
    if get("end") != "yes" {
        return Err(Error::Probe("the script did not get to its end".to_owned()));
    }
    let some = |key: &str| Some(get(key).to_owned()).filter(|value| !value.is_empty());
    let running = match get("running") {
        "yes" => Running::Yes,
        "stale" => Running::Stale,
        _ => Running::No,
    };
    // Where the program has gone but its process has not, there still is something to restart.
    let there = facts.contains_key("version") || running != Running::No;
    Ok(Probe {
        system: get("system").to_owned(),
        machine: get("arch").to_owned(),
        arch: Arch::of(get("arch")),
        kernel: get("kernel").to_owned(),
        os_release: get("os").to_owned(),
        root_access: match get("root") {
            "root" => RootAccess::Root,
            "sudo" => RootAccess::Sudo,
            _ => RootAccess::None(get("root_problem").to_owned()),
        },
        init: match get("init") {
            "systemd" => Init::Systemd,
            "openrc" => Init::OpenRc,
            _ => Init::None,
        },
        overlayfs: feature(get("overlayfs")),
        nftables: feature(get("nftables")),
        namespaces: get("namespaces")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        cgroup: match get("cgroup") {
            "v1" => CgroupVersion::V1,
            "v2" => CgroupVersion::V2,
            "hybrid" => CgroupVersion::Hybrid,
            _ => CgroupVersion::None,
        },
        engine: there.then(|| EngineState {
            digest: some("digest"),
            version: version(get("version")),
            running,
        }),
        docker: some("docker"),
        free_binary_bytes: get("free_binary").parse().ok(),
        free_state_bytes: get("free_state").parse().ok(),
        has_gzip: get("gzip") == "yes",
    })
}

fn feature(word: &str) -> Feature {
    match word {
        "yes" => Feature::Yes,
        "no" => Feature::No,
        _ => Feature::Unknown,
    }
}

/// `windlassd 0.1.0` without the name.
fn version(line: &str) -> String {
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "system=Linux\narch=x86_64\nkernel=6.1.0-18-cloud-amd64\nos=Debian GNU/Linux 12 (bookworm)\nroot=sudo\n\
        init=systemd\noverlayfs=yes\nnftables=yes\nnamespaces=pid net mnt ipc uts\ncgroup=v2\ngzip=yes\nfree_binary=1000000\n\
        free_state=2000000\ndigest=abc\nversion=windlassd 0.1.0\nrunning=yes\ndocker=/run/docker.sock\nend=yes\n";

    #[test]
    fn a_debian_host() {
        let probe = parse_probe(DEBIAN).unwrap();
        assert_eq!(probe.arch, Some(Arch::X86_64));
        assert_eq!(probe.root_access, RootAccess::Sudo);
        assert_eq!(probe.init, Init::Systemd);
        assert_eq!(probe.cgroup, CgroupVersion::V2);
        assert_eq!(probe.namespaces.len(), 5);
        assert_eq!(probe.free_state_bytes, Some(2_000_000));
        assert_eq!(probe.docker.as_deref(), Some("/run/docker.sock"));
        let engine = probe.engine.unwrap();
        assert_eq!(engine.digest.as_deref(), Some("abc"));
        assert_eq!(engine.version, "0.1.0");
        assert_eq!(engine.running, Running::Yes);
    }

    #[test]
    fn other_hosts() {
        let with = |key: &str, value: &str| {
            let lines = DEBIAN.lines().map(|line| match line.split_once('=') {
                Some((k, _)) if k == key => format!("{key}={value}\n"),
                _ => format!("{line}\n"),
            });
            parse_probe(&lines.collect::<String>()).unwrap()
        };
        assert_eq!(with("arch", "aarch64").arch, Some(Arch::Aarch64));
        assert_eq!(with("arch", "armv7l").arch, None);
        assert_eq!(with("init", "openrc").init, Init::OpenRc);
        assert_eq!(with("init", "none").init, Init::None);
        assert_eq!(with("overlayfs", "no").overlayfs, Feature::No);
        assert_eq!(with("nftables", "unknown").nftables, Feature::Unknown);
        assert_eq!(with("cgroup", "v1").cgroup, CgroupVersion::V1);
        assert_eq!(with("cgroup", "hybrid").cgroup, CgroupVersion::Hybrid);
        assert_eq!(with("cgroup", "none").cgroup, CgroupVersion::None);
        assert!(!with("gzip", "no").has_gzip);
        assert_eq!(with("free_state", "").free_state_bytes, None);
        let stale = with("running", "stale").engine.unwrap();
        assert_eq!(stale.running, Running::Stale);
        assert!(matches!(
            with("root", "none").root_access,
            RootAccess::None(_)
        ));
    }

    #[test]
    fn half_an_answer_is_none() {
        let half = DEBIAN.replace("end=yes\n", "");
        assert!(matches!(parse_probe(&half), Err(Error::Probe(_))));
        assert!(parse_probe("sh: not found").is_err());
    }
}
