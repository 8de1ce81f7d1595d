//! The proxy as a container: its image made in memory, its options, its socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use windlass_compose::model::Project;
use windlass_engine_api::types::{ContainerConfig, CreateContainer, HostConfig, RestartPolicy};

use crate::error::{DeployError, Result};
use crate::hosts::Hosts;
use crate::observe::Observed;
use crate::spec::{self, labels};

/// Where the proxies' admin sockets lie, on the machine and in the container.
const RUN: &str = "/run/windlass/ingress";

/// The socket by which a project's proxy takes its table.
pub(crate) fn admin_socket(project: &str) -> String {
    format!("{RUN}/{project}.sock")
}

/// The container's name.
pub(crate) fn container_name(project: &str) -> String {
    format!("{project}-windlass-ingress")
}

/// The volume that keeps the last table over a reboot.
pub(crate) fn state_volume(project: &str) -> String {
    format!("{project}_windlass-ingress")
}

/// `windlass/ingress:<12 hex digits>`.
pub(crate) fn reference(binary: &[u8]) -> String {
    format!("windlass/ingress:{}", &spec::digest(binary)[..12])
}

/// What the proxy's container is made from; the second is its `windlass.spec`.
pub(crate) fn container(project: &str, image: &str, listen: &[u16]) -> (CreateContainer, String) {
    let mut command = Vec::new();
    for port in listen {
        command.extend(["--listen".to_owned(), format!("0.0.0.0:{port}")]);
    }
    command.extend(["--admin-socket".to_owned(), admin_socket(project)]);
    command.extend(["--state".to_owned(), format!("/state/{project}.json")]);
    let mut create = CreateContainer {
        config: ContainerConfig {
            image: image.to_owned(),
            cmd: Some(command),
            labels: [
                (labels::PROJECT.to_owned(), project.to_owned()),
                (labels::INGRESS.to_owned(), "1".to_owned()),
            ]
            .into(),
            stop_timeout: Some(35),
            ..ContainerConfig::default()
        },
        host_config: HostConfig {
            network_mode: "host".to_owned(),
            binds: vec![
                format!("{RUN}:{RUN}"),
                format!("{}:/state", state_volume(project)),
            ],
            restart_policy: RestartPolicy {
                name: "always".to_owned(),
                maximum_retry_count: 0,
            },
            ..HostConfig::default()
        },
        ..CreateContainer::default()
    };
    let hash = spec::hash(&create);
    create
        .config
        .labels
        .insert(labels::SPEC.to_owned(), hash.clone());
    (create, hash)
}

/// The archive (`docker save`) of an image that holds nothing but the binary.
pub(crate) fn archive(binary: &[u8], architecture: &str) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "windlass-ingress", 0o755, binary)?;
    let layer = layer.into_inner()?;
    let config = serde_json::json!({
        "architecture": docker_architecture(architecture),
        "os": "linux",
        "config": { "Entrypoint": ["/windlass-ingress"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", spec::digest(&layer))] },
    })
    .to_string();
    let name = format!("{}.json", spec::digest(config.as_bytes()));
    let manifest = serde_json::json!([{
        "Config": name,
        "RepoTags": [reference(binary)],
        "Layers": ["layer.tar"],
    }])
    .to_string();
    let mut image = tar::Builder::new(Vec::new());
    append(&mut image, &name, 0o644, config.as_bytes())?;
    append(&mut image, "layer.tar", 0o644, &layer)?;
    append(&mut image, "manifest.json", 0o644, manifest.as_bytes())?;
    image.into_inner()
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

fn docker_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The references of the proxy's image, found out once for each architecture.
#[derive(Default)]
pub(crate) struct IngressImages {
    known: Mutex<BTreeMap<String, String>>,
}

impl IngressImages {
    /// What is known so far.
    pub(crate) fn known(&self) -> BTreeMap<String, String> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Finds out what the observed machines need, if the project has an ingress at all.
    pub(crate) async fn references(
        &self,
        hosts: &dyn Hosts,
        project: &Project,
        observed: &Observed,
    ) -> Result<BTreeMap<String, String>> {
        if project.services.values().all(|s| s.ingress.is_none()) {
            return Ok(BTreeMap::new());
        }
        let mut known = self.known();
        let seen: BTreeSet<&String> = observed
            .reachable()
            .map(|(_, _, c)| &c.architecture)
            .collect();
        for architecture in seen {
            if known.contains_key(architecture) {
                continue;
            }
            let binary = hosts.ingress_binary(architecture).await.map_err(|source| {
                DeployError::IngressBinary {
                    architecture: architecture.clone(),
                    source,
                }
            })?;
            known.insert(architecture.clone(), reference(&binary));
        }
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend(known.clone());
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_is_one_layer_with_the_binary() {
        let bytes = archive(b"\x7fELF proxy", "x86_64").expect("archive");
        let mut image = tar::Archive::new(bytes.as_slice());
        let mut files = BTreeMap::new();
        for entry in image.entries().expect("entries") {
            let mut entry = entry.expect("entry");
            let name = entry.path().expect("path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(name, content);
        }
        let manifest: serde_json::Value =
            serde_json::from_slice(&files["manifest.json"]).expect("json");
        assert_eq!(manifest[0]["RepoTags"][0], reference(b"\x7fELF proxy"));
        let config = manifest[0]["Config"].as_str().expect("config");
        let config: serde_json::Value = serde_json::from_slice(&files[config]).expect("json");
        let diff = format!("sha256:{}", spec::digest(&files["layer.tar"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff);
        assert_eq!(config["architecture"], "amd64");
        let mut layer = tar::Archive::new(files["layer.tar"].as_slice());
        let entry = layer
            .entries()
            .expect("entries")
            .next()
            .expect("one")
            .expect("entry");
        assert_eq!(entry.header().mode().expect("mode"), 0o755);
    }

    #[test]
    fn the_container_follows_its_options() {
        let (create, one) = container("shop", "windlass/ingress:abc", &[80]);
        let (_, two) = container("shop", "windlass/ingress:abc", &[80, 8080]);
        let (_, three) = container("shop", "windlass/ingress:abd", &[80]);
        assert!(one != two && one != three);
        assert_eq!(create.host_config.network_mode, "host");
        assert!(
            create
                .config
                .cmd
                .expect("cmd")
                .contains(&"/run/windlass/ingress/shop.sock".to_owned())
        );
    }
}
