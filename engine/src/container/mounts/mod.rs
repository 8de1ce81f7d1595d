//! What is mounted into a container: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's `VOLUME` put together.
//!
//! Deliberately absent: making the volumes (`create`), and what a mount needs when the container starts (`sources`).

mod spec;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{HostConfig, MountPoint, StringMap};

use super::error::{Error, Result};

pub use spec::parse_volumes_from;

/// One mount, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRecord {
    /// `bind`, `volume`, `tmpfs`, `image`.
    pub kind: String,
    /// The volume (empty: an anonymous one is to be made), or the image's id.
    pub name: String,
    /// On the host.
    pub source: String,
    /// In the container.
    pub destination: String,
    /// As written by the user.
    pub mode: String,
    /// Writable.
    pub rw: bool,
    /// `rprivate`, ….
    pub propagation: String,
    /// An empty volume is filled with the image's files.
    pub copy: bool,
    /// Without the mounts below it.
    pub non_recursive: bool,
    /// Read-only, but not the mounts below it.
    pub read_only_top: bool,
    /// Options of a tmpfs.
    pub options: Vec<String>,
    /// A missing source is made.
    pub make_source: bool,
    /// A folder or file within the volume or image.
    pub subpath: String,
    /// Labels of a volume that is to be made.
    pub labels: StringMap,
    /// Options of a volume that is to be made.
    pub driver_options: StringMap,
    /// The volume has no name of the user's: it goes with its last container.
    pub anonymous: bool,
    /// Of `--tmpfs`: `inspect` shows it in `HostConfig` alone.
    pub unlisted: bool,
}

impl MountRecord {
    /// As the API shows it; `None` when it does not.
    pub fn to_wire(&self) -> Option<MountPoint> {
        let volume = self.kind == "volume";
        (!self.unlisted).then(|| MountPoint {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: if volume { "local" } else { "" }.to_owned(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        })
    }

    /// For `--volumes-from`: as another container sees it.
    pub fn inherited(self, writable: bool) -> Self {
        Self {
            rw: self.rw && writable,
            copy: false,
            mode: String::new(),
            ..self
        }
    }
}

/// All mounts wanted, by destination; a later source of the same destination is an error, `VOLUME` gives way to everything.
pub fn resolve(
    host: &HostConfig,
    volumes: impl Iterator<Item = String>,
    inherited: Vec<MountRecord>,
) -> Result<Vec<MountRecord>> {
    let mut all: BTreeMap<String, MountRecord> = inherited
        .into_iter()
        .map(|m| (m.destination.clone(), m))
        .collect();
    let mut own = BTreeMap::new();
    let binds = host
        .binds
        .iter()
        .map(|text| spec::parse_bind(text, &host.volume_driver));
    let mounts = host.mounts.iter().map(spec::from_mount);
    let tmpfs = host
        .tmpfs
        .iter()
        .map(|(path, options)| spec::from_tmpfs(path, options));
    for mount in binds.chain(mounts).chain(tmpfs) {
        let mount = mount?;
        if let Some(former) = own.insert(mount.destination.clone(), mount) {
            return Err(Error::invalid(format!(
                "Duplicate mount point: {}",
                former.destination
            )));
        }
    }
    all.extend(own);
    for path in volumes {
        let destination = spec::destination(&path)?;
        all.entry(destination.clone())
            .or_insert_with(|| MountRecord {
                kind: "volume".to_owned(),
                destination,
                rw: true,
                copy: true,
                anonymous: true,
                ..MountRecord::default()
            });
    }
    Ok(all.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_unique_and_volumes_give_way() {
        let host = HostConfig {
            binds: vec!["v1:/d".to_owned()],
            ..HostConfig::default()
        };
        let image = ["/d".to_owned(), "/e".to_owned()];
        let all = resolve(&host, image.into_iter(), vec![]).unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|m| (m.name.as_str(), m.destination.as_str()))
            .collect();
        assert_eq!(seen, [("v1", "/d"), ("", "/e")]);
        let refused = |host: &HostConfig, volume: Option<&str>| {
            let volumes = volume.map(str::to_owned).into_iter();
            resolve(host, volumes, vec![]).unwrap_err().message
        };
        let twice = HostConfig {
            binds: vec!["v1:/d".to_owned(), "w1:/d/".to_owned()],
            ..HostConfig::default()
        };
        assert_eq!(refused(&twice, None), "Duplicate mount point: /d");
        let both = HostConfig {
            tmpfs: [("/d".to_owned(), String::new())].into(),
            ..host
        };
        assert_eq!(refused(&both, None), "Duplicate mount point: /d");
        assert_eq!(
            refused(&HostConfig::default(), Some("/")),
            "invalid specification: destination can't be '/'"
        );
    }

    #[test]
    fn what_another_container_sees() {
        let mount = MountRecord {
            kind: "volume".to_owned(),
            rw: true,
            copy: true,
            mode: "z".to_owned(),
            anonymous: true,
            ..MountRecord::default()
        };
        let seen = mount.clone().inherited(false);
        assert!(!seen.rw && !seen.copy && seen.mode.is_empty() && seen.anonymous);
        assert!(mount.inherited(true).rw);
    }
}
