//! What a container is made from, and the digest that tells whether it is still made from that.
//!
//! Deliberately absent: the replica's number, its name and its release, which do not make it another container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use windlass_compose::model::{Healthcheck, Project, Restart, Service, ServiceVolume};
use windlass_engine_api::types::{
    ContainerConfig, CreateContainer, Empty, EndpointSettings, HealthConfig, HostConfig, LogConfig,
    Mount, NetworkingConfig, PortBinding, RestartPolicy, TmpfsOptions,
};

/// Names of labels.
pub mod labels {
    /// The project.
    pub const PROJECT: &str = "windlass.project";
    /// The service.
    pub const SERVICE: &str = "windlass.service";
    /// The replica's number.
    pub const REPLICA: &str = "windlass.replica";
    /// The digest of what it was made from.
    pub const SPEC: &str = "windlass.spec";
    /// The version of the project that it was made for.
    pub const RELEASE: &str = "windlass.release";
    /// On the project's proxy.
    pub const INGRESS: &str = "windlass.ingress";
    /// For the engine: the networks that reach the published ports from outside.
    pub const PUBLISH_FROM: &str = "windlass.publish-from";
    /// The project, for tools that know Compose.
    pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";
    /// The service, for tools that know Compose.
    pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";
}

/// What a container is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// For the engine; without the labels that differ between replicas.
    pub create: CreateContainer,
    /// Hex SHA-256 of it, with the image's id.
    pub hash: String,
}

/// Who may reach from other machines what is published for the ingress.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Callers {
    /// Who is on the network of the address.
    Everybody,
    /// These; the machine itself always may.
    Only(BTreeSet<Ipv4Addr>),
}

/// Hex SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The digest of a container's options. Maps are ordered, so the same options give the same text.
pub(crate) fn hash(create: &CreateContainer) -> String {
    digest(&serde_json::to_vec(create).unwrap_or_default())
}

/// The container of a service on one machine. `image` is what the engine is asked for, `image_id` what it has under that name;
/// `address` is where the ingress reaches it.
pub(crate) fn container(
    project: &Project,
    name: &str,
    image: &str,
    image_id: &str,
    address: Option<&str>,
    callers: &Callers,
) -> Option<ContainerSpec> {
    let service = project.services.get(name)?;
    let (network_mode, networking_config) = networks(project, name, service);
    let mut create = CreateContainer {
        config: config(project, name, service, image),
        host_config: host_config(project, service, network_mode, address),
        networking_config,
    };
    if let Callers::Only(callers) = callers
        && is_published_for_ingress_only(service)
    {
        let text: Vec<String> = callers.iter().map(|a| format!("{a}/32")).collect();
        let labels = &mut create.config.labels;
        let label = labels.entry(labels::PUBLISH_FROM.to_owned());
        label.or_insert_with(|| text.join(","));
    }
    let hash = digest(format!("{}\n{image_id}", hash(&create)).as_bytes());
    Some(ContainerSpec { create, hash })
}

/// The engine's limit is one for all ports of a container, and those under `ports` are for everybody.
fn is_published_for_ingress_only(service: &Service) -> bool {
    let on_host = service.network_mode.as_deref() == Some("host");
    service.ingress.is_some() && service.ports.is_empty() && !on_host
}

fn config(project: &Project, name: &str, service: &Service, image: &str) -> ContainerConfig {
    let mut labels = service.labels.clone();
    for (key, value) in [
        (labels::PROJECT, project.name.as_str()),
        (labels::SERVICE, name),
        (labels::COMPOSE_PROJECT, project.name.as_str()),
        (labels::COMPOSE_SERVICE, name),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let mut exposed: BTreeMap<String, Empty> = BTreeMap::new();
    for port in &service.expose {
        let suffix = if port.contains('/') { "" } else { "/tcp" };
        exposed.insert(format!("{port}{suffix}"), Empty::default());
    }
    for port in &service.ports {
        exposed.insert(
            format!("{}/{}", port.target, port.protocol),
            Empty::default(),
        );
    }
    if let Some(ingress) = &service.ingress {
        exposed.insert(format!("{}/tcp", ingress.port), Empty::default());
    }
    let env = service.environment.iter().map(|(k, v)| format!("{k}={v}"));
    ContainerConfig {
        image: image.to_owned(),
        hostname: service.hostname.clone().unwrap_or_default(),
        user: service.user.clone().unwrap_or_default(),
        working_dir: service.working_dir.clone().unwrap_or_default(),
        env: env.collect(),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        exposed_ports: exposed,
        healthcheck: service.healthcheck.as_ref().map(health),
        labels,
        stop_signal: service.stop_signal.clone().unwrap_or_default(),
        stop_timeout: service.stop_grace_period.map(whole_seconds),
        tty: service.tty,
        open_stdin: service.stdin_open,
        ..ContainerConfig::default()
    }
}

fn host_config(
    project: &Project,
    service: &Service,
    network_mode: String,
    address: Option<&str>,
) -> HostConfig {
    let resources = &service.resources;
    let (binds, mounts) = mounts(project, service);
    HostConfig {
        network_mode,
        binds,
        mounts,
        port_bindings: port_bindings(service, address),
        restart_policy: restart(&service.restart),
        init: service.init.then_some(true),
        readonly_rootfs: service.read_only,
        privileged: service.privileged,
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        extra_hosts: service.extra_hosts.clone(),
        dns: service.dns.clone(),
        sysctls: service.sysctls.clone(),
        tmpfs: service
            .tmpfs
            .iter()
            .map(|t| {
                let (target, options) = t.split_once(':').unwrap_or((t.as_str(), ""));
                (target.to_owned(), options.to_owned())
            })
            .collect(),
        log_config: service
            .logging
            .as_ref()
            .map(|(kind, config)| LogConfig {
                kind: kind.clone(),
                config: config.clone(),
            })
            .unwrap_or_default(),
        nano_cpus: resources
            .cpus
            .map_or(0, |c| (c * 1e9).round().max(0.0) as i64),
        memory: resources.memory_bytes.map_or(0, signed),
        memory_reservation: resources.memory_reservation_bytes.map_or(0, signed),
        pids_limit: resources.pids.map(signed),
        ..HostConfig::default()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn whole_seconds(time: Duration) -> i64 {
    let up = u64::from(time.subsec_nanos() > 0);
    signed(time.as_secs() + up)
}

fn nanoseconds(time: Option<Duration>) -> i64 {
    time.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX))
}

fn health(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: check.retries.map_or(0, i64::from),
    }
}

fn restart(policy: &Restart) -> RestartPolicy {
    let (name, maximum) = match policy {
        Restart::No => ("no", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
        Restart::Always => ("always", 0),
        Restart::OnFailure { maximum } => ("on-failure", i64::from(*maximum)),
    };
    RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count: maximum,
    }
}

fn port_bindings(service: &Service, address: Option<&str>) -> BTreeMap<String, Vec<PortBinding>> {
    let mut bindings: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for port in &service.ports {
        bindings
            .entry(format!("{}/{}", port.target, port.protocol))
            .or_default()
            .push(PortBinding {
                host_ip: port.host_ip.clone().unwrap_or_default(),
                host_port: port.published.map(|p| p.to_string()).unwrap_or_default(),
            });
    }
    if let (Some(ingress), Some(address)) = (&service.ingress, address) {
        bindings
            .entry(format!("{}/tcp", ingress.port))
            .or_default()
            .push(PortBinding {
                host_ip: address.to_owned(),
                host_port: String::new(),
            });
    }
    bindings
}

fn mounts(project: &Project, service: &Service) -> (Vec<String>, Vec<Mount>) {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for volume in &service.volumes {
        match volume {
            ServiceVolume::Volume {
                name,
                target,
                read_only,
            } => mounts.push(Mount {
                kind: "volume".to_owned(),
                source: name
                    .as_ref()
                    .map(|key| volume_name(project, key))
                    .unwrap_or_default(),
                target: target.clone(),
                read_only: *read_only,
                ..Mount::default()
            }),
            // As a bind and not as a mount: the engine makes the folder when it is not there.
            ServiceVolume::Bind {
                source,
                target,
                read_only,
            } => binds.push(format!(
                "{source}:{target}{}",
                if *read_only { ":ro" } else { "" }
            )),
            ServiceVolume::Tmpfs { target, size_bytes } => mounts.push(Mount {
                kind: "tmpfs".to_owned(),
                target: target.clone(),
                tmpfs_options: size_bytes.map(|size| TmpfsOptions {
                    size_bytes: signed(size),
                    mode: 0o1777,
                    ..TmpfsOptions::default()
                }),
                ..Mount::default()
            }),
        }
    }
    (binds, mounts)
}

/// A volume's name on the engine.
pub(crate) fn volume_name(project: &Project, key: &str) -> String {
    project
        .volumes
        .get(key)
        .map(|v| v.name.clone())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| format!("{}_{key}", project.name))
}

/// A network's name on the engine.
pub(crate) fn network_name(project: &Project, key: &str) -> String {
    project
        .networks
        .get(key)
        .map(|n| n.name.clone())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| format!("{}_{key}", project.name))
}

/// The keys of the networks that a service is in; none with a network mode of its own.
pub(crate) fn network_keys(service: &Service) -> Vec<&str> {
    if service.network_mode.is_some() {
        Vec::new()
    } else if service.networks.is_empty() {
        vec!["default"]
    } else {
        service.networks.keys().map(String::as_str).collect()
    }
}

fn networks(project: &Project, name: &str, service: &Service) -> (String, NetworkingConfig) {
    if let Some(mode) = &service.network_mode {
        return (mode.clone(), NetworkingConfig::default());
    }
    let mut endpoints = BTreeMap::new();
    let mut mode = String::new();
    for key in network_keys(service) {
        let network = network_name(project, key);
        let mut aliases = vec![name.to_owned()];
        aliases.extend(service.networks.get(key).cloned().unwrap_or_default());
        if mode.is_empty() {
            mode.clone_from(&network);
        }
        endpoints.insert(
            network,
            EndpointSettings {
                aliases: Some(aliases),
                ..EndpointSettings::default()
            },
        );
    }
    let networking = NetworkingConfig {
        endpoints_config: endpoints,
    };
    (mode, networking)
}

#[cfg(test)]
mod tests {
    use windlass_compose::model::{Ingress, Port};

    use super::*;

    fn project(change: impl FnOnce(&mut Service)) -> Project {
        let mut service = Service {
            image: "httpd:2.4".to_owned(),
            environment: [("A".to_owned(), "1".to_owned())].into(),
            ports: vec![Port {
                target: 80,
                published: Some(8080),
                host_ip: None,
                protocol: "tcp".to_owned(),
            }],
            ..Service::default()
        };
        change(&mut service);
        Project {
            name: "shop".to_owned(),
            services: [("web".to_owned(), service)].into(),
            ..Project::default()
        }
    }

    fn of(change: impl FnOnce(&mut Service)) -> ContainerSpec {
        container(
            &project(change),
            "web",
            "httpd:2.4",
            "sha256:1",
            Some("10.0.0.1"),
            &Callers::Everybody,
        )
        .expect("spec")
    }

    #[test]
    fn whatever_makes_another_container_changes_the_digest() {
        let base = of(|_| ());
        assert_eq!(base.hash, of(|_| ()).hash);
        assert_eq!(base.hash.len(), 64);
        type Change = (&'static str, fn(&mut Service));
        let changes: Vec<Change> = vec![
            ("env", |s| {
                s.environment.insert("A".to_owned(), "2".to_owned());
            }),
            ("command", |s| s.command = Some(vec!["x".to_owned()])),
            ("port", |s| s.ports[0].published = Some(8081)),
            ("label", |s| {
                s.labels.insert("a".to_owned(), "b".to_owned());
            }),
            ("cpu", |s| s.resources.cpus = Some(0.5)),
            ("user", |s| s.user = Some("1".to_owned())),
            ("restart", |s| s.restart = Restart::No),
            ("health", |s| {
                s.healthcheck = Some(Healthcheck {
                    test: vec!["NONE".to_owned()],
                    ..Healthcheck::default()
                });
            }),
            ("volume", |s| {
                s.volumes.push(ServiceVolume::Volume {
                    name: Some("data".to_owned()),
                    target: "/d".to_owned(),
                    read_only: false,
                });
            }),
            ("network", |s| s.network_mode = Some("host".to_owned())),
            ("grace", |s| {
                s.stop_grace_period = Some(Duration::from_millis(1500));
            }),
        ];
        for (what, change) in changes {
            assert_ne!(of(change).hash, base.hash, "{what}");
        }
        let project = project(|_| ());
        let all = Callers::Everybody;
        let other = container(&project, "web", "httpd:2.4", "sha256:2", None, &all).expect("spec");
        assert_ne!(other.hash, base.hash, "another image under the same name");
    }

    #[test]
    fn what_is_about_deploying_only_does_not() {
        let base = of(|_| ());
        let moved = of(|s| {
            s.deploy.mode = windlass_compose::model::Mode::Replicated(5);
            s.deploy.update.parallelism = 3;
            s.depends_on.insert(
                "db".to_owned(),
                windlass_compose::model::Dependency::Healthy,
            );
        });
        assert_eq!(moved.hash, base.hash);
    }

    fn ingress() -> Option<Ingress> {
        Some(Ingress {
            host: None,
            path: "/".to_owned(),
            port: 9000,
            listen: 80,
            health_path: None,
            drain: Duration::from_secs(30),
        })
    }

    #[test]
    fn only_the_proxies_reach_what_is_published_for_them() {
        let callers = Callers::Only([Ipv4Addr::new(203, 0, 113, 1)].into());
        let label = |change: fn(&mut Service)| {
            let address = Some("203.0.113.2");
            let spec = container(&project(change), "web", "httpd", "1", address, &callers);
            let labels = spec.expect("spec").create.config.labels;
            labels.get(labels::PUBLISH_FROM).cloned()
        };
        let alone = |s: &mut Service| {
            s.ingress = ingress();
            s.ports.clear();
        };
        assert_eq!(label(alone).as_deref(), Some("203.0.113.1/32"));
        assert_eq!(label(|s| s.ingress = ingress()), None, "`ports` are open");
        assert_eq!(label(|s| s.ports.clear()), None, "nothing is published");
        let open = of(alone).create.config.labels;
        assert!(!open.contains_key(labels::PUBLISH_FROM));
    }

    #[test]
    fn the_ingress_port_is_bound_to_the_private_address() {
        let spec = of(|s| s.ingress = ingress());
        let binding = &spec.create.host_config.port_bindings["9000/tcp"][0];
        assert_eq!(binding.host_ip, "10.0.0.1");
        assert_eq!(binding.host_port, "");
        assert_eq!(
            spec.create.host_config.port_bindings["80/tcp"][0].host_port,
            "8080"
        );
    }

    #[test]
    fn names_and_aliases() {
        let spec = of(|_| ());
        assert_eq!(spec.create.host_config.network_mode, "shop_default");
        let endpoint = &spec.create.networking_config.endpoints_config["shop_default"];
        assert_eq!(endpoint.aliases, Some(vec!["web".to_owned()]));
        assert_eq!(spec.create.config.labels[labels::COMPOSE_SERVICE], "web");
        assert_eq!(
            of(|s| s.stop_grace_period = Some(Duration::from_millis(1500)))
                .create
                .config
                .stop_timeout,
            Some(2)
        );
    }
}
