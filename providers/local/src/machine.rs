//! A machine as a container: what is asked of the engine, and what its answers mean.

use std::net::Ipv4Addr;
use std::path::Path;

use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    BindOptions, ContainerConfig, ContainerInspect, CreateContainer, HostConfig, LogConfig, Mount,
    RestartPolicy, VolumeOptions,
};
use windlass_provider::{CreateRequest, Instance, PowerState};

use crate::image::SYSTEM;
use crate::limits::Limits;

/// Label with the idempotency token: what has it is ours.
pub const TOKEN: &str = "windlass.token";
/// Label with the machine's name.
pub const NAME: &str = "windlass.machine";
/// Where the init looks for the keys.
const KEYS: &str = "/etc/windlass-machine";
/// Longer than the init gives its processes.
pub const STOP_SECONDS: i64 = 20;

/// The container's name.
pub fn container_name(machine: &str) -> String {
    format!("windlass-{machine}")
}

/// The name of the volume for `/var`.
pub fn volume_name(machine: &str) -> String {
    format!("windlass-{machine}-var")
}

/// Which containers, or volumes, are ours.
pub fn ours() -> Filters {
    Filters::new().with("label", TOKEN)
}

/// The container to create; `keys` is the folder of the key files.
pub fn container(
    request: &CreateRequest,
    image: &str,
    keys: &Path,
    limits: Limits,
) -> CreateContainer {
    let labels = [(TOKEN, &request.token), (NAME, &request.name)]
        .map(|(label, value)| (label.to_owned(), value.clone()));
    CreateContainer {
        config: ContainerConfig {
            image: image.to_owned(),
            hostname: request.name.clone(),
            labels: labels.clone().into(),
            stop_timeout: Some(STOP_SECONDS),
            ..ContainerConfig::default()
        },
        host_config: HostConfig {
            privileged: true,
            mounts: mounts(request, keys, &labels),
            restart_policy: RestartPolicy {
                name: "unless-stopped".to_owned(),
                maximum_retry_count: 0,
            },
            cgroupns_mode: "private".to_owned(),
            log_config: LogConfig {
                kind: "json-file".to_owned(),
                config: [("max-size", "1m"), ("max-file", "2")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            },
            nano_cpus: limits.nano_cpus,
            memory: limits.memory_bytes,
            ..HostConfig::default()
        },
        ..CreateContainer::default()
    }
}

fn mounts(request: &CreateRequest, keys: &Path, labels: &[(String, String)]) -> Vec<Mount> {
    let mut mounts = vec![read_only("/usr", "/usr")];
    for name in SYSTEM {
        let path = format!("/{name}");
        let found = Path::new(&path);
        if found.is_dir() && !found.is_symlink() {
            mounts.push(read_only(&path, &path));
        }
    }
    mounts.push(read_only(&keys.display().to_string(), KEYS));
    mounts.push(Mount {
        kind: "volume".to_owned(),
        source: volume_name(&request.name),
        target: "/var".to_owned(),
        volume_options: Some(VolumeOptions {
            no_copy: true,
            labels: labels.iter().cloned().collect(),
            ..VolumeOptions::default()
        }),
        ..Mount::default()
    });
    mounts
}

/// Without what is mounted below: only the file system that has the programs.
fn read_only(source: &str, target: &str) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: true,
        bind_options: Some(BindOptions {
            non_recursive: true,
            ..BindOptions::default()
        }),
        ..Mount::default()
    }
}

/// The instance that a container is; `None` when it is not one of ours.
pub fn instance(container: &ContainerInspect) -> Option<Instance> {
    let labels = &container.config.labels;
    let state = power_state(container);
    Some(Instance {
        id: container.id.clone(),
        name: labels.get(NAME)?.clone(),
        token: labels.get(TOKEN)?.clone(),
        state,
        address: address(container).filter(|_| state == PowerState::Running),
        private_address: None,
        ssh_port: 22,
        ssh_user: "root".to_owned(),
    })
}

fn power_state(container: &ContainerInspect) -> PowerState {
    match container.state.status.as_str() {
        "running" if address(container).is_some() => PowerState::Running,
        "running" | "restarting" => PowerState::Starting,
        "created" | "exited" | "paused" => PowerState::Stopped,
        "removing" => PowerState::Stopping,
        "dead" => PowerState::Error,
        _ => PowerState::Unknown,
    }
}

fn address(container: &ContainerInspect) -> Option<String> {
    let settings = &container.network_settings;
    let first = settings
        .networks
        .values()
        .map(|network| &network.ip_address);
    std::iter::once(&settings.ip_address)
        .chain(first)
        .find(|text| text.parse::<Ipv4Addr>().is_ok())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateRequest {
        CreateRequest {
            name: "m1".to_owned(),
            token: "t1".to_owned(),
            authorized_key: String::new(),
            host_key: Some("secret".to_owned()),
        }
    }

    #[test]
    fn the_host_is_read_only_and_its_homes_are_absent() {
        let limits = Limits {
            nano_cpus: 5,
            memory_bytes: 7,
        };
        let spec = container(&request(), "i", Path::new("/s/m1"), limits);
        let host = &spec.host_config;
        assert!(host.privileged && host.binds.is_empty());
        assert_eq!((host.nano_cpus, host.memory), (5, 7));
        assert_eq!(host.restart_policy.name, "unless-stopped");
        for mount in host.mounts.iter().filter(|mount| mount.kind == "bind") {
            assert!(mount.read_only, "{}", mount.source);
            let source = mount.source.as_str();
            let known = source == "/usr" || source == "/s/m1" || SYSTEM.contains(&&source[1..]);
            assert!(known, "{source}");
        }
        let volume = host.mounts.iter().find(|mount| mount.kind == "volume");
        assert_eq!(volume.unwrap().target, "/var");
        let text = format!("{spec:?}");
        assert!(!text.contains("secret"), "keys go by a file only");
    }

    #[test]
    fn containers_are_instances() {
        let mut found = ContainerInspect {
            id: "c1".to_owned(),
            ..ContainerInspect::default()
        };
        assert_eq!(instance(&found), None, "not ours");
        found.config.labels = container(&request(), "i", Path::new("/k"), Limits::default())
            .config
            .labels;
        found.state.status = "running".to_owned();
        let starting = instance(&found).unwrap();
        assert_eq!(starting.state, PowerState::Starting, "without an address");
        found.network_settings.ip_address = "172.30.0.2".to_owned();
        let running = instance(&found).unwrap();
        assert_eq!(running.state, PowerState::Running);
        assert_eq!(running.address.as_deref(), Some("172.30.0.2"));
        assert_eq!(
            (running.name.as_str(), running.token.as_str()),
            ("m1", "t1")
        );
        found.state.status = "exited".to_owned();
        let stopped = instance(&found).unwrap();
        assert_eq!(
            (stopped.state, stopped.address),
            (PowerState::Stopped, None)
        );
    }
}
