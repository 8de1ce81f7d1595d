//! Named volumes: one folder each, with its data in `_data` and what is known about it beside it.
//!
//! Deliberately absent: drivers and mount options (NFS, tmpfs, devices); they are refused.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{StringMap, Volume};

use crate::container::clock;
use crate::container::error::{Error, Result};
use crate::container::parts::Volumes;
use crate::container::removal::remove_dir_all;

const FILE: &str = "volume.json";
const DATA: &str = "_data";

/// What is kept about a volume; it is written once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    created: String,
    labels: StringMap,
}

/// The volumes below one folder.
#[derive(Debug)]
pub struct LocalVolumes {
    folder: PathBuf,
    changes: Mutex<()>,
}

impl LocalVolumes {
    /// Opens `<root>/volumes`; what an interrupted creation or removal left is taken away.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = root.join("volumes");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                // A volume that cannot be removed is no reason for having no engine.
                if let Err(error) = remove_dir_all(&entry.path()) {
                    tracing::warn!(%error, "what is left of a volume stays");
                }
            }
        }
        Ok(Self {
            folder,
            changes: Mutex::default(),
        })
    }

    fn read(&self, name: &str) -> Result<Volume> {
        let missing = || Error::not_found(format!("get {name}: no such volume"));
        if !is_valid(name) {
            return Err(missing());
        }
        let folder = self.folder.join(name);
        let path = folder.join(FILE);
        let text = fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => missing(),
            _ => e.into(),
        })?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|e| Error::message(format!("{}: {e}", path.display())))?;
        Ok(Volume {
            created_at: record.created,
            driver: "local".to_owned(),
            labels: record.labels,
            mountpoint: folder.join(DATA).display().to_string(),
            name: name.to_owned(),
            scope: "local".to_owned(),
            ..Volume::default()
        })
    }

    /// All of it under another name first, so that a volume is there as a whole or not at all.
    fn make(&self, name: &str, record: &Record) -> Result<()> {
        let new = self.hidden();
        fs::create_dir(&new)?;
        let written = write(&new, record).and_then(|()| {
            fs::rename(&new, self.folder.join(name))?;
            fs::File::open(&self.folder)?.sync_all()
        });
        if written.is_err() {
            remove_dir_all(&new).ok();
        }
        Ok(written?)
    }

    /// A name that no volume can have.
    fn hidden(&self) -> PathBuf {
        let random = hex::encode(rand::random::<[u8; 8]>());
        self.folder.join(format!(".{random}"))
    }
}

fn write(folder: &Path, record: &Record) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::create_dir(folder.join(DATA))?;
    let mut file = fs::File::create(folder.join(FILE))?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::File::open(folder)?.sync_all()
}

fn is_valid(name: &str) -> bool {
    name.len() >= 2
        && name.len() <= 255
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl Volumes for LocalVolumes {
    fn list(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match self.read(&name) {
                Ok(volume) => volumes.push(volume),
                Err(error) => tracing::debug!(name, %error, "no volume"),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn find(&self, name: &str) -> Result<Volume> {
        self.read(name)
    }

    fn create(&self, name: &str, mut labels: StringMap, options: StringMap) -> Result<Volume> {
        if let Some(option) = options.keys().next() {
            return Err(Error::invalid(format!(
                "invalid option: \"{option}\": windlassd's local volumes are plain folders and take no options"
            )));
        }
        let mut name = name.to_owned();
        if name.is_empty() {
            name = hex::encode(rand::random::<[u8; 32]>());
            labels
                .entry("com.docker.volume.anonymous".to_owned())
                .or_default();
        }
        if name.len() == 1 {
            return Err(Error::invalid(
                "volume name is too short, names should be at least two alphanumeric characters",
            ));
        }
        if !is_valid(&name) {
            return Err(Error::invalid(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        let _one = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read(&name) {
            Err(e) if e.kind == crate::container::error::Kind::NotFound => {}
            other => return other,
        }
        let record = Record {
            created: clock::now(),
            labels,
        };
        self.make(&name, &record)?;
        self.read(&name)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let _one = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(name)?;
        let gone = self.hidden();
        fs::rename(self.folder.join(name), &gone)?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(remove_dir_all(&gone)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::error::Kind;

    fn labels(pairs: &[(&str, &str)]) -> StringMap {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_volume_lives_over_restarts_until_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let volumes = LocalVolumes::open(root.path()).unwrap();
        let made = volumes
            .create("data", labels(&[("a", "b")]), StringMap::new())
            .unwrap();
        fs::write(Path::new(&made.mountpoint).join("x"), "kept").unwrap();
        let again = volumes
            .create("data", StringMap::new(), StringMap::new())
            .unwrap();
        assert_eq!(again, made, "the one there is");
        // A creation that was interrupted.
        fs::create_dir_all(root.path().join("volumes/.half/_data")).unwrap();
        drop(volumes);

        let volumes = LocalVolumes::open(root.path()).unwrap();
        assert_eq!(volumes.list().unwrap(), std::slice::from_ref(&made));
        assert!(!root.path().join("volumes/.half").exists());
        assert_eq!(
            fs::read_to_string(Path::new(&made.mountpoint).join("x")).unwrap(),
            "kept"
        );
        volumes.remove("data").unwrap();
        let error = volumes.find("data").unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::NotFound, "get data: no such volume")
        );
        assert_eq!(volumes.remove("data").unwrap_err().kind, Kind::NotFound);
        assert_eq!(
            fs::read_dir(root.path().join("volumes")).unwrap().count(),
            0
        );
    }

    #[test]
    fn names_and_options() {
        let root = tempfile::tempdir().unwrap();
        let volumes = LocalVolumes::open(root.path()).unwrap();
        for name in ["x", "../up", "a/b", ".hidden", "-x", "a b"] {
            let error = volumes
                .create(name, StringMap::new(), StringMap::new())
                .unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{name}");
            assert_eq!(volumes.find(name).unwrap_err().kind, Kind::NotFound);
        }
        let error = volumes
            .create("net", StringMap::new(), labels(&[("type", "nfs")]))
            .unwrap_err();
        assert!(error.message.contains("\"type\""), "{}", error.message);
        let anonymous = volumes
            .create("", StringMap::new(), StringMap::new())
            .unwrap();
        assert_eq!(anonymous.name.len(), 64);
        assert!(anonymous.labels.contains_key("com.docker.volume.anonymous"));
    }
}
