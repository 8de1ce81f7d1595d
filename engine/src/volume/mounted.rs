//! Which containers use a volume that is mounted while it is used, and what is mounted where.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Users by volume; what is not here is not mounted, or lies there since an earlier engine.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<String, BTreeSet<String>>);

impl Users {
    /// One more.
    pub fn add(&mut self, volume: &str, user: &str) {
        let users = self.0.entry(volume.to_owned()).or_default();
        users.insert(user.to_owned());
    }

    /// One less; whether it was one.
    pub fn remove(&mut self, volume: &str, user: &str) -> bool {
        let Some(users) = self.0.get_mut(volume) else {
            return false;
        };
        let was = users.remove(user);
        if users.is_empty() {
            self.0.remove(volume);
        }
        was
    }

    /// Whether anybody else uses it.
    pub fn has_other(&self, volume: &str, user: &str) -> bool {
        let users = self.0.get(volume);
        users.is_some_and(|users| users.iter().any(|other| other != user))
    }

    /// Whether anybody uses it.
    pub fn has(&self, volume: &str) -> bool {
        self.0.contains_key(volume)
    }
}

/// Where something is mounted in this process' mount namespace, at or below `folder`; a place with two mounts is there twice.
pub fn points_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let text = fs_err::read("/proc/thread-self/mountinfo")?;
    let points = text
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape);
    Ok(points.filter(|p| p.starts_with(folder)).collect())
}

/// `\040` and the like.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let octal = (text[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&out))
}

/// Whether something is mounted exactly here.
pub fn is_mounted(at: &Path) -> std::io::Result<bool> {
    Ok(points_below(at)?.iter().any(|p| p == at))
}

/// Takes away everything that is mounted exactly here.
pub fn unmount_all(at: &Path) -> std::io::Result<()> {
    while is_mounted(at)? {
        umount2(at, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_known() {
        let mut users = Users::default();
        users.add("v", "a");
        users.add("v", "a");
        users.add("v", "b");
        assert!(users.remove("v", "a") && users.has("v"));
        assert!(users.remove("v", "b") && !users.has("v"));
        assert!(!users.remove("v", "b"));
    }

    #[test]
    fn mount_points() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
