//! What is mounted into a container: parsing of `-v`, `--mount`, `--tmpfs`, `VOLUME`, and making of the volumes.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{HostConfig, Mount, MountPoint, StringMap};

use super::error::{Error, Result};

/// One mount, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRecord {
    /// `bind`, `volume`, `tmpfs`.
    pub kind: String,
    /// The volume; empty: an anonymous one is to be made.
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
    /// Options of a tmpfs.
    pub options: Vec<String>,
    /// A missing source is made.
    pub make_source: bool,
    /// A folder within the volume.
    pub subpath: String,
    /// Labels of a volume that is to be made.
    pub labels: StringMap,
    /// The volume was made for this container alone.
    pub anonymous: bool,
}

impl MountRecord {
    /// As the API shows it.
    pub fn to_wire(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: if self.kind == "volume" {
                "local".to_owned()
            } else {
                String::new()
            },
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
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
    let binds = host.binds.iter().map(|b| parse_bind(b));
    let mounts = host.mounts.iter().map(from_mount);
    let tmpfs = host
        .tmpfs
        .iter()
        .map(|(path, options)| from_tmpfs(path, options));
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
        let destination = clean(&path)?;
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

/// `source:destination[:options]`, `name:destination[:options]`, `destination`.
fn parse_bind(text: &str) -> Result<MountRecord> {
    let bad = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, destination] => (source, destination, ""),
        [source, destination, options] => (source, destination, options),
        _ => return Err(bad()),
    };
    if destination.is_empty()
        || (parts.len() > 1 && source.is_empty())
        || !destination.starts_with('/')
    {
        return Err(bad());
    }
    let is_bind = source.starts_with('/');
    if !is_bind && !source.is_empty() && !super::names::is_valid(source) {
        return Err(Error::invalid(format!(
            "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    let mut mount = MountRecord {
        kind: if is_bind { "bind" } else { "volume" }.to_owned(),
        name: if is_bind {
            String::new()
        } else {
            source.to_owned()
        },
        source: if is_bind {
            clean(source)?
        } else {
            String::new()
        },
        destination: clean(destination)?,
        mode: options.to_owned(),
        rw: true,
        copy: !is_bind,
        propagation: if is_bind {
            "rprivate".to_owned()
        } else {
            String::new()
        },
        make_source: is_bind,
        anonymous: source.is_empty(),
        ..MountRecord::default()
    };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "readonly" => mount.rw = false,
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" if !is_bind => mount.copy = false,
            "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" if is_bind => {
                mount.propagation = option.to_owned()
            }
            other => return Err(Error::invalid(format!("invalid mode: {other}"))),
        }
    }
    Ok(mount)
}

fn from_mount(mount: &Mount) -> Result<MountRecord> {
    let bad = |why: &str| {
        Error::invalid(format!(
            "invalid mount config for type \"{}\": {why}",
            mount.kind
        ))
    };
    if mount.target.is_empty() {
        return Err(bad("field Target must not be empty"));
    }
    let mut record = MountRecord {
        kind: mount.kind.clone(),
        destination: clean(&mount.target)?,
        rw: !mount.read_only,
        ..MountRecord::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(bad(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            record.source = clean(&mount.source)?;
            record.make_source = options.create_mountpoint;
            if !record.make_source && !Path::new(&record.source).exists() {
                return Err(bad(&format!(
                    "bind source path does not exist: {}",
                    record.source
                )));
            }
            record.propagation = if options.propagation.is_empty() {
                "rprivate".to_owned()
            } else {
                options.propagation
            };
            record.non_recursive = options.non_recursive;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if !mount.source.is_empty() && !super::names::is_valid(&mount.source) {
                return Err(bad(&format!(
                    "\"{}\" includes invalid characters for a local volume name",
                    mount.source
                )));
            }
            if Path::new(&options.subpath)
                .components()
                .any(|c| !matches!(c, Component::Normal(_)))
            {
                return Err(bad(
                    "field Subpath must be a relative path within the volume",
                ));
            }
            record.name = mount.source.clone();
            record.anonymous = mount.source.is_empty();
            record.copy = !options.no_copy && options.subpath.is_empty();
            record.labels = options.labels;
            record.subpath = options.subpath;
        }
        "tmpfs" => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            if options.size_bytes > 0 {
                record.options.push(format!("size={}", options.size_bytes));
            }
            if options.mode > 0 {
                record.options.push(format!("mode={:o}", options.mode));
            }
        }
        other => return Err(Error::invalid(format!("mount type unknown: \"{other}\""))),
    }
    Ok(record)
}

fn from_tmpfs(path: &str, options: &str) -> Result<MountRecord> {
    let options: Vec<String> = options
        .split(',')
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(MountRecord {
        kind: "tmpfs".to_owned(),
        destination: clean(path)?,
        rw: !options.iter().any(|o| o == "ro"),
        options,
        ..MountRecord::default()
    })
}

/// An absolute path without `.`, `..` and doubled slashes, and not `/`.
fn clean(path: &str) -> Result<String> {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The destination must not be the root.
pub fn check_destinations(mounts: &[MountRecord]) -> Result<()> {
    match mounts.iter().find(|m| m.destination == "/") {
        Some(_) => Err(Error::invalid(
            "invalid volume specification: destination can't be '/'",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds() {
        let bind = parse_bind("/a/../b:/c/:ro,z").unwrap();
        assert_eq!(
            (
                bind.kind.as_str(),
                bind.source.as_str(),
                bind.destination.as_str(),
                bind.rw
            ),
            ("bind", "/b", "/c", false)
        );
        let volume = parse_bind("v1:/c").unwrap();
        assert_eq!(
            (volume.kind.as_str(), volume.name.as_str(), volume.copy),
            ("volume", "v1", true)
        );
        assert!(parse_bind("/c").unwrap().anonymous);
        for bad in [
            "a:b:c:d",
            ":/x",
            "v:rel",
            "./x:/y",
            "/a:/b:wat",
            "/a:/b:nocopy",
        ] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations_are_unique_and_volumes_give_way() {
        let host = HostConfig {
            binds: vec!["v1:/d".to_owned()],
            ..HostConfig::default()
        };
        let all = resolve(
            &host,
            ["/d".to_owned(), "/e".to_owned()].into_iter(),
            vec![],
        )
        .unwrap();
        assert_eq!(
            all.iter()
                .map(|m| (m.name.as_str(), m.destination.as_str()))
                .collect::<Vec<_>>(),
            [("v1", "/d"), ("", "/e")]
        );
        let twice = HostConfig {
            binds: vec!["v1:/d".to_owned(), "w1:/d/".to_owned()],
            ..HostConfig::default()
        };
        assert!(
            resolve(&twice, std::iter::empty(), vec![])
                .unwrap_err()
                .message
                .contains("Duplicate")
        );
        let root = HostConfig {
            binds: vec!["v1:/".to_owned()],
            ..HostConfig::default()
        };
        assert!(check_destinations(&resolve(&root, std::iter::empty(), vec![]).unwrap()).is_err());
    }
}
