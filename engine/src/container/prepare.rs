//! What a container needs before it runs: its files in `/etc`, the network, the runtime's specification.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use windlass_engine_api::types::{ContainerConfig, HostConfig};

use super::error::{Error, Result};
use super::parts::{Connected, MountSpec, Netns, ProcessSpec, RunSpec};
use super::record::Record;
use super::registry::Container;
use super::{Engine, MountRecord, log_options, networking, sources};

impl Engine {
    /// The first process of another container, which must run.
    pub(super) fn pid_of(&self, reference: &str) -> Result<i32> {
        let container = self.containers.find(reference)?;
        let (pid, runs) = container.read(|r| (r.state.pid, r.state.status.has_process()));
        if runs {
            Ok(pid)
        } else {
            Err(Error::conflict(format!(
                "cannot join namespace of a non running container: container {} is not running",
                container.id
            )))
        }
    }

    /// Whose network a container is in: its own, or another's whose it joined, or whose that one joined.
    pub(super) fn network_owner(&self, reference: &str) -> Result<Arc<Container>> {
        let mut owner = self.containers.find(reference)?;
        let mut seen = vec![owner.id.clone()];
        while let Some(next) = owner.read(|r| {
            let mode = r.host_config.network_mode.strip_prefix("container:");
            mode.map(str::to_owned)
        }) {
            owner = self.containers.find(&next)?;
            if seen.contains(&owner.id) {
                return Err(Error::invalid("cannot join own network namespace"));
            }
            seen.push(owner.id.clone());
        }
        Ok(owner)
    }

    fn joined(&self, mode: &str) -> Result<Option<i32>> {
        mode.strip_prefix("container:")
            .map(|other| self.pid_of(other))
            .transpose()
    }

    /// Only who says so shares it.
    fn joined_ipc(&self, mode: &str) -> Result<Option<i32>> {
        if let Some(other) = mode.strip_prefix("container:") {
            let other = self.containers.find(other)?;
            let shares =
                other.read(|r| matches!(r.host_config.ipc_mode.as_str(), "shareable" | "host"));
            if !shares {
                return Err(Error::message(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
        }
        self.joined(mode)
    }

    /// The specification for the runtime; sources of binds are checked.
    pub(super) fn specification(
        &self,
        container: &Container,
        record: &Record,
        rootfs: PathBuf,
        network: (Netns, Option<&Connected>),
        sources: Vec<PathBuf>,
    ) -> Result<RunSpec> {
        let (netns, connected) = network;
        let mut mounts = self.etc_files(container, record, &netns, connected)?;
        for (mount, source) in record.mounts.iter().zip(sources) {
            mounts.push(sources::ready(mount, source)?);
        }
        let host = &record.host_config;
        let log_attributes = log_options::attributes(record)?;
        Ok(RunSpec {
            id: record.id.clone(),
            folder: container.folder.clone(),
            rootfs,
            process: process(record, self.linked(record)?.env),
            hostname: if host.uts_mode == "host" {
                String::new()
            } else {
                record.config.hostname.clone()
            },
            domainname: record.config.domainname.clone(),
            host: host.clone(),
            mounts,
            netns,
            pid_of: self.joined(&host.pid_mode)?,
            ipc_of: self.joined_ipc(&host.ipc_mode)?,
            log_path: super::logs::path(&container.folder, &record.id),
            journal: log_options::journal(record, &log_attributes)?,
            log_attributes,
            user: self.remap_of(host).map(|remap| remap.maps.clone()),
        })
    }

    /// `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
    fn etc_files(
        &self,
        container: &Container,
        record: &Record,
        netns: &Netns,
        connected: Option<&Connected>,
    ) -> Result<Vec<MountSpec>> {
        let host = &record.host_config;
        if host.network_mode.starts_with("container:") {
            let other = self.network_owner(&host.network_mode["container:".len()..])?;
            return Ok(["hosts", "hostname", "resolv.conf"]
                .map(|name| etc_mount(&other.folder, name, host))
                .into());
        }
        let hostname = if record.config.hostname.is_empty() {
            hostname_of_host()
        } else {
            record.config.hostname.clone()
        };
        fs::write(container.folder.join("hostname"), format!("{hostname}\n"))?;
        let linked = self.linked(record)?;
        fs::write(
            container.folder.join("hosts"),
            networking::hosts(record, &linked.hosts, connected)?,
        )?;
        let original = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let nameserver = connected.and_then(|c| c.nameserver.as_deref());
        fs::write(
            container.folder.join("resolv.conf"),
            resolv_conf(
                &self.with_resolver(host),
                &original,
                *netns == Netns::Host,
                nameserver,
            ),
        )?;
        let names = ["hosts", "hostname", "resolv.conf"];
        if let Some(remap) = self.remap_of(host) {
            let (user, group) = remap.maps.root();
            for name in names {
                std::os::unix::fs::chown(container.folder.join(name), Some(user), Some(group))?;
            }
        }
        Ok(names
            .map(|name| etc_mount(&container.folder, name, host))
            .into())
    }
}

impl Engine {
    /// With the settings file's name servers, where the container says nothing of its own.
    fn with_resolver(&self, host: &HostConfig) -> HostConfig {
        let config = &self.settings.config;
        let or =
            |own: &[String], other: &[String]| if own.is_empty() { other } else { own }.to_vec();
        HostConfig {
            dns: or(&host.dns, &config.dns),
            dns_options: or(&host.dns_options, &config.dns_opts),
            dns_search: or(&host.dns_search, &config.dns_search),
            ..host.clone()
        }
    }
}

fn etc_mount(folder: &Path, name: &str, host: &HostConfig) -> MountSpec {
    let source = folder.join(name);
    let record = MountRecord {
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        destination: format!("/etc/{name}"),
        rw: !host.readonly_rootfs,
        propagation: "rprivate".to_owned(),
        ..MountRecord::default()
    };
    MountSpec { record, source }
}

/// Docker's own variables under the container's, where a name without `=` takes one away.
pub(super) fn environment(config: &ContainerConfig) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = |v: &str| v.split('=').next().unwrap_or_default().to_owned();
    let mut all = vec![PATH.to_owned()];
    if !config.hostname.is_empty() {
        all.push(format!("HOSTNAME={}", config.hostname));
    }
    for variable in &config.env {
        let wanted = name(variable);
        let place = all.iter().position(|v| name(v) == wanted);
        match (place, variable.contains('=')) {
            (Some(at), true) => all[at].clone_from(variable),
            (Some(at), false) => drop(all.remove(at)),
            (None, true) => all.push(variable.clone()),
            (None, false) => {}
        }
    }
    all
}

fn process(record: &Record, linked: Vec<String>) -> ProcessSpec {
    let config = &record.config;
    let mut env = environment(config);
    let name = |v: &str| v.split('=').next().unwrap_or_default().to_owned();
    for variable in linked {
        if !env.iter().any(|v| name(v) == name(&variable)) {
            env.push(variable);
        }
    }
    if config.tty && !env.iter().any(|v| v.starts_with("TERM=")) {
        let at = 1 + usize::from(!config.hostname.is_empty());
        env.insert(at.min(env.len()), "TERM=xterm".to_owned());
    }
    let size = match record.host_config.console_size[..] {
        [rows, columns] if rows > 0 && columns > 0 => Some((rows as u16, columns as u16)),
        _ => None,
    };
    ProcessSpec {
        args: record.command(),
        env,
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        groups: record.host_config.group_add.clone(),
        tty: config.tty,
        size,
        stdin: config.open_stdin,
        privileged: record.host_config.privileged,
    }
}

pub(super) fn hostname_of_host() -> String {
    nix::unistd::gethostname()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The host's, without its loopback servers where the container cannot reach them; `--dns…` and the network's own server win.
/// `/etc/resolv.conf` of a container.
pub(crate) fn resolv_conf(
    host: &HostConfig,
    original: &str,
    on_host: bool,
    nameserver: Option<&str>,
) -> String {
    let mut servers: Vec<String> = match nameserver {
        // It asks those that were given.
        Some(server) => vec![server.to_owned()],
        None => host.dns.clone(),
    };
    let lines = |key: &str| {
        original
            .lines()
            .filter_map(|l| l.trim().strip_prefix(key))
            .map(|l| l.trim().to_owned())
            .collect::<Vec<_>>()
    };
    if servers.is_empty() {
        servers = lines("nameserver ");
        if !on_host {
            servers.retain(|s| s.parse::<IpAddr>().is_ok_and(|a| !a.is_loopback()));
            if servers.is_empty() {
                servers = vec!["8.8.8.8".to_owned(), "8.8.4.4".to_owned()];
            }
        }
    }
    let mut text: String = servers
        .iter()
        .map(|s| format!("nameserver {s}\n"))
        .collect();
    let search = if host.dns_search.is_empty() {
        lines("search ")
    } else {
        vec![host.dns_search.join(" ")]
    };
    text.extend(
        search
            .iter()
            .filter(|s| !s.is_empty() && *s != ".")
            .map(|s| format!("search {s}\n")),
    );
    let mut options = if host.dns_options.is_empty() {
        lines("options ")
    } else {
        vec![host.dns_options.join(" ")]
    };
    if nameserver.is_some() && !options.iter().any(|o| o.contains("ndots:")) {
        // Names of one word are neighbours': they are asked for as they are.
        options = vec![format!("{} ndots:0", options.join(" ")).trim().to_owned()];
    }
    text.extend(
        options
            .iter()
            .filter(|o| !o.is_empty())
            .map(|o| format!("options {o}\n")),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let config = ContainerConfig {
            hostname: "boat".to_owned(),
            env: ["A=1", "PATH", "HOSTNAME=x", "Gone"]
                .map(str::to_owned)
                .into(),
            ..ContainerConfig::default()
        };
        assert_eq!(environment(&config), ["HOSTNAME=x", "A=1"]);
    }

    #[test]
    fn resolvers() {
        let plain = HostConfig::default();
        let original =
            "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan\noptions ndots:1\n";
        assert_eq!(
            resolv_conf(&plain, original, false, None),
            "nameserver 10.0.0.2\nsearch lan\noptions ndots:1\n"
        );
        assert!(resolv_conf(&plain, original, true, None).starts_with("nameserver 127.0.0.53"));
        assert!(resolv_conf(&plain, "nameserver 127.0.0.53", false, None).contains("8.8.8.8"));
        assert_eq!(
            resolv_conf(&plain, "", false, Some("10.1.0.1")),
            "nameserver 10.1.0.1\noptions ndots:0\n"
        );
        let own = HostConfig {
            dns: vec!["1.1.1.1".to_owned()],
            dns_search: vec![".".to_owned()],
            ..plain
        };
        assert_eq!(
            resolv_conf(&own, original, false, Some("10.1.0.1")),
            "nameserver 10.1.0.1\noptions ndots:1\n"
        );
    }
}
