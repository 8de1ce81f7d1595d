//! Named volumes: one folder each, with its data in `_data` and what is known about it beside it.
//!
//! Deliberately absent: drivers other than `local`, and quotas.

pub mod mounted;
mod options;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{StringMap, Volume};

use crate::container::clock;
use crate::container::error::{Error, Kind, Result};
use crate::container::parts::Volumes;
use crate::container::removal::remove_dir_all;
use mounted::Users;

/// The file of what is kept about a volume.
pub const FILE: &str = "volume.json";
/// The folder of its files.
pub const DATA: &str = "_data";
/// The label of volumes whose name was chosen by the engine.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// Beside [`DATA`] while an image's files are copied.
const FILLING: &str = "_data.new";

/// What is kept about a volume; it is written once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    created: String,
    labels: StringMap,
    options: StringMap,
}

/// The volumes below one folder.
#[derive(Debug)]
pub struct LocalVolumes {
    folder: PathBuf,
    users: Mutex<Users>,
    /// Held while something is mounted on a volume, or unmounted; taken before `users`. A file server may let that take minutes, and other
    /// volumes must not wait for it.
    mounting: Mutex<()>,
    /// Of new volumes' folders; `None`: the engine's user.
    owner: Option<(u32, u32)>,
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
            let half = if entry.file_name().to_string_lossy().starts_with('.') {
                entry.path()
            } else {
                entry.path().join(FILLING)
            };
            // A volume that cannot be removed is no reason for having no engine.
            match remove_dir_all(&half) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "what is left of a volume stays");
                }
                _ => {}
            }
        }
        Ok(Self {
            folder: fs::canonicalize(folder)?,
            users: Mutex::default(),
            mounting: Mutex::default(),
            owner: None,
        })
    }

    /// New volumes belong to this user and group: the root of containers in user namespaces.
    pub fn owned_by(self, owner: Option<(u32, u32)>) -> Self {
        Self { owner, ..self }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name).join(DATA)
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounting(&self) -> MutexGuard<'_, ()> {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str) -> Result<Volume> {
        let missing = || Error::not_found(format!("get {name}: no such volume"));
        if !is_valid(name) {
            return Err(missing());
        }
        let path = self.folder.join(name).join(FILE);
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
            mountpoint: self.data(name).display().to_string(),
            name: name.to_owned(),
            options: record.options,
            scope: "local".to_owned(),
            ..Volume::default()
        })
    }

    /// All of it under another name first, so that a volume is there as a whole or not at all.
    fn make(&self, name: &str, record: &Record) -> Result<()> {
        let new = self.hidden();
        fs::create_dir(&new)?;
        let written = write(&new, record).and_then(|()| {
            if let Some((user, group)) = self.owner {
                std::os::unix::fs::chown(new.join(DATA), Some(user), Some(group))?;
            }
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

/// Whether a volume can have this name, in Docker's words.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    if !is_valid(name) {
        return Err(Error::invalid(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

/// There is one driver.
pub fn check_driver(volume: &str, driver: &str) -> Result<()> {
    match driver {
        "" | "local" => Ok(()),
        _ => Err(Error::not_found(format!(
            "create {volume}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        ))),
    }
}

/// What a volume's files take, as `du --apparent-size` counts it, in bytes; a file with several names counts once.
pub fn size_of(folder: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut size = 0i64;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            // `DirEntry::metadata` does not follow links.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() < 2 || seen.insert((metadata.dev(), metadata.ino())) {
                size = size.saturating_add(i64::try_from(metadata.len()).unwrap_or(i64::MAX));
            }
        }
    }
    size
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
        let mut name = name.to_owned();
        if name.is_empty() {
            name = hex::encode(rand::random::<[u8; 32]>());
            labels.entry(ANONYMOUS.to_owned()).or_default();
        }
        check_name(&name)?;
        let _one = self.users();
        match self.read(&name) {
            Err(e) if e.kind == Kind::NotFound => {}
            other => return other,
        }
        options::check(&options)
            .map_err(|e| Error::new(e.kind, format!("create {name}: {}", e.message)))?;
        let record = Record {
            created: clock::now_in_seconds(),
            labels,
            options,
        };
        self.make(&name, &record)?;
        self.read(&name)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let users = self.users();
        self.read(name)?;
        if users.has(name) {
            return Err(Error::conflict(format!(
                "remove {name}: volume has active mounts"
            )));
        }
        // What is mounted there is not the volume's own.
        mounted::unmount_all(&self.data(name))?;
        let gone = self.hidden();
        fs::rename(self.folder.join(name), &gone)?;
        fs::File::open(&self.folder)?.sync_all()?;
        drop(users);
        Ok(remove_dir_all(&gone)?)
    }

    fn mount(&self, name: &str, user: &str) -> Result<()> {
        let volume = {
            // From now on it is in use, and so neither removed nor unmounted.
            let mut users = self.users();
            let volume = self.read(name)?;
            users.add(name, user);
            volume
        };
        if !options::needs_mount(&volume.options) {
            return Ok(());
        }
        let _one = self.mounting();
        let data = self.data(name);
        let mounted = mounted::is_mounted(&data)
            .map_err(Error::from)
            .and_then(|is_there| match is_there {
                true => Ok(()),
                false => options::mount_on(&data, &volume.options),
            });
        mounted.map_err(|e| {
            self.users().remove(name, user);
            let place = data.display();
            let words = format!("error while mounting volume '{place}': {}", e.message);
            Error::new(e.kind, words)
        })
    }

    fn unmount(&self, name: &str, user: &str) -> Result<bool> {
        let mounts = |v: Volume| options::needs_mount(&v.options);
        if !self.read(name).is_ok_and(mounts) {
            return Ok(self.users().remove(name, user));
        }
        let _one = self.mounting();
        let mut users = self.users();
        let was = users.remove(name, user);
        if was && !users.has(name) {
            mounted::unmount_all(&self.data(name))?;
        }
        Ok(was)
    }

    fn settle(&self) -> Result<()> {
        let users = self.users();
        for volume in self.list()? {
            let data = PathBuf::from(&volume.mountpoint);
            if options::needs_mount(&volume.options) && !users.has(&volume.name) {
                mounted::unmount_all(&data)?;
            }
        }
        Ok(())
    }

    fn fill(
        &self,
        name: &str,
        user: &str,
        copy: &mut dyn FnMut(&Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let data = self.data(name);
        if fs::read_dir(&data)?.next().is_some() {
            return Ok(());
        }
        if self.users().has_other(name, user) || mounted::is_mounted(&data)? {
            return Ok(copy(&data)?);
        }
        // As a whole or not at all: what is half filled is never filled again.
        let new = self.folder.join(name).join(FILLING);
        fs::create_dir(&new)?;
        let filled = copy(&new).and_then(|()| fs::rename(&new, &data));
        if filled.is_err() {
            remove_dir_all(&new).ok();
        }
        Ok(filled?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            error.message,
            "create net: missing required option: \"device\""
        );
        let anonymous = volumes
            .create("", StringMap::new(), StringMap::new())
            .unwrap();
        assert_eq!(anonymous.name.len(), 64);
        assert!(anonymous.labels.contains_key("com.docker.volume.anonymous"));
        assert!(check_driver("v", "local").is_ok() && check_driver("v", "nfs").is_err());
    }

    #[test]
    fn filled_as_a_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let volumes = LocalVolumes::open(root.path()).unwrap();
        let made = volumes
            .create("data", StringMap::new(), StringMap::new())
            .unwrap();
        volumes.mount("data", "me").unwrap();
        let failed = volumes.fill("data", "me", &mut |to| {
            fs::write(to.join("half"), "")?;
            Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
        });
        assert!(failed.is_err());
        let folder = Path::new(&made.mountpoint);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 2);
        volumes
            .fill("data", "me", &mut |to| fs::write(to.join("whole"), "12345"))
            .unwrap();
        fs::hard_link(folder.join("whole"), folder.join("again")).unwrap();
        volumes
            .fill("data", "me", &mut |_| panic!("it is not empty"))
            .unwrap();
        assert_eq!(size_of(folder), 5);
    }
}
