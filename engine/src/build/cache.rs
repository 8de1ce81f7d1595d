//! What builds find again: which image a step made, what a tree's digest was, and the folders of cache mounts.
//!
//! `<root>/build-cache/{steps,digests}/<sha256>` are one line each and may be lost at any time; `mounts/<sha256>/{info.json,data}` is users'
//! data that can be had again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::RwLock;

use crate::container::clock;
use crate::container::error::Result;
use crate::container::removal::remove_dir_all;

/// All of it.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Who works with a cache mount.
    locks: Arc<Mutex<HashMap<String, Arc<RwLock<()>>>>>,
}

/// What is known of a cache mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountInfo {
    /// As the Dockerfile names it.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub last_used: String,
    /// Builds that mounted it.
    pub uses: i64,
}

/// A cache mount as `docker builder` sees it.
#[derive(Clone, Debug)]
pub struct CacheMount {
    /// Folder name.
    pub key: String,
    /// Its record.
    pub info: MountInfo,
    /// Bytes on disk.
    pub size: u64,
    /// A build works with it.
    pub in_use: bool,
}

impl Cache {
    /// Below the engine's root.
    pub fn open(root: &Path) -> Result<Self> {
        let folder = root.join("build-cache");
        for name in ["steps", "digests", "results", "mounts"] {
            fs_err::create_dir_all(folder.join(name))?;
        }
        Ok(Self {
            folder,
            locks: Arc::default(),
        })
    }

    /// The image that a step made on another one; it may be gone by now.
    pub fn step(&self, parent: Option<&str>, key: &str) -> Option<String> {
        fs_err::read_to_string(self.step_path(parent, key)).ok()
    }

    /// Remembers what a step made.
    pub fn remember_step(&self, parent: Option<&str>, key: &str, image: &str) -> Result<()> {
        Ok(fs_err::write(self.step_path(parent, key), image)?)
    }

    fn step_path(&self, parent: Option<&str>, key: &str) -> PathBuf {
        self.folder
            .join("steps")
            .join(digest(&format!("{}\n{key}", parent.unwrap_or_default())))
    }

    /// What was found in a tree that never changes, with its digests.
    pub fn digest(&self, key: &str) -> Option<String> {
        fs_err::read_to_string(self.folder.join("digests").join(digest(key))).ok()
    }

    /// Remembers it.
    pub fn remember_digest(&self, key: &str, value: &str) -> Result<()> {
        Ok(fs_err::write(
            self.folder.join("digests").join(digest(key)),
            value,
        )?)
    }

    /// An image that a build ended with is its user's, whether it has a name or not.
    pub fn mark_result(&self, image: &str) -> Result<()> {
        Ok(fs_err::write(
            self.folder.join("results").join(digest(image)),
            "",
        )?)
    }

    /// See [`Cache::mark_result`].
    pub fn is_result(&self, image: &str) -> bool {
        self.folder.join("results").join(digest(image)).exists()
    }

    /// Forgets the steps; images that they led to stay.
    pub fn forget_steps(&self) -> Result<()> {
        for name in ["steps", "digests"] {
            for entry in fs_err::read_dir(self.folder.join(name))? {
                fs_err::remove_file(entry?.path())?;
            }
        }
        Ok(())
    }

    /// The lock of a cache mount.
    pub fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(digest(name)).or_default().clone()
    }

    /// The folder of a cache mount, and whether it is new. To be called with its lock held.
    pub fn mount(&self, name: &str) -> Result<(PathBuf, bool)> {
        let folder = self.folder.join("mounts").join(digest(name));
        let data = folder.join("data");
        let new = !data.exists();
        fs_err::create_dir_all(&data)?;
        let mut info = info(&folder).unwrap_or_else(|| MountInfo {
            name: name.to_owned(),
            created: clock::now(),
            ..MountInfo::default()
        });
        info.last_used = clock::now();
        info.uses += 1;
        let text = serde_json::to_vec(&info).map_err(std::io::Error::from)?;
        fs_err::write(folder.join("info.json"), text)?;
        Ok((data, new))
    }

    /// All cache mounts, the one used last at the end. Blocking.
    pub fn mounts(&self) -> Result<Vec<CacheMount>> {
        let mut all = Vec::new();
        for entry in fs_err::read_dir(self.folder.join("mounts"))? {
            let entry = entry?;
            let key = entry.file_name().to_string_lossy().into_owned();
            let lock = {
                let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.get(&key).cloned()
            };
            all.push(CacheMount {
                info: info(&entry.path()).unwrap_or_default(),
                size: size_of(&entry.path().join("data"))?,
                in_use: lock.is_some_and(|lock| lock.try_write().is_err()),
                key,
            });
        }
        all.sort_by(|a, b| a.info.last_used.cmp(&b.info.last_used));
        Ok(all)
    }

    /// Removes a cache mount that nobody works with; whether it is gone. Blocking.
    pub fn remove_mount(&self, mount: &CacheMount) -> Result<bool> {
        let lock = self.lock(&mount.info.name);
        let Ok(_alone) = lock.try_write() else {
            return Ok(false);
        };
        remove_dir_all(&self.folder.join("mounts").join(&mount.key))?;
        Ok(true)
    }
}

fn info(folder: &Path) -> Option<MountInfo> {
    serde_json::from_slice(&fs_err::read(folder.join("info.json")).ok()?).ok()
}

/// Bytes of all files, each counted once.
fn size_of(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = std::collections::HashSet::new();
    let (mut total, mut open) = (0, vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            // A build may take files away meanwhile.
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                open.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    Ok(total)
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.step(None, "a"), None);
        cache.remember_step(None, "a", "sha256:1").unwrap();
        assert_eq!(cache.step(None, "a").unwrap(), "sha256:1");
        assert_eq!(cache.step(Some("x"), "a"), None);
        let lock = cache.lock("m");
        let held = lock.try_read().unwrap();
        let (data, new) = cache.mount("m").unwrap();
        fs_err::write(data.join("f"), "12345").unwrap();
        assert!(new && !cache.mount("m").unwrap().1);
        let mounts = cache.mounts().unwrap();
        assert_eq!(
            (mounts[0].size, mounts[0].in_use, mounts[0].info.uses),
            (5, true, 2)
        );
        assert!(!cache.remove_mount(&mounts[0]).unwrap());
        drop(held);
        assert!(cache.remove_mount(&mounts[0]).unwrap());
        assert!(cache.mounts().unwrap().is_empty());
    }
}
