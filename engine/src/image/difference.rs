//! How a container's writable layer differs from its image: what `docker diff` shows and `docker commit` keeps.
//!
//! Deliberately absent: content. What lies in the writable layer counts as changed, as in Docker.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::overlay::visible_below;
use super::tarball::{is_opaque, is_whiteout};
use super::{Error, Result};
use crate::container::rooted::DEEPEST;

/// There, and other than in the image.
pub(super) const MODIFIED: u8 = 0;
/// Not in the image.
pub(super) const ADDED: u8 = 1;
/// In the image only.
pub(super) const DELETED: u8 = 2;

/// What the engine itself puts into every container, to mount something on it.
const MOUNT_POINTS: [&str; 13] = [
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/mqueue",
    "dev/pts",
    "dev/shm",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
];

/// Paths that differ, in their order, with how. `layers` are the image's folders, the topmost first.
pub(super) fn differences(upper: &Path, layers: &[PathBuf]) -> Result<Vec<(PathBuf, u8)>> {
    let mut found = Vec::new();
    if upper.exists() {
        folder(upper, Path::new(""), layers, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn folder(
    upper: &Path,
    inside: &Path,
    layers: &[PathBuf],
    found: &mut Vec<(PathBuf, u8)>,
) -> Result<()> {
    if inside.components().count() > DEEPEST {
        return Err(Error::Unsupported(format!(
            "the container's files lie more than {DEEPEST} folders deep"
        )));
    }
    for entry in fs_err::read_dir(upper.join(inside))? {
        let path = inside.join(entry?.file_name());
        let metadata = fs_err::symlink_metadata(upper.join(&path))?;
        let below = visible_below(layers, &path);
        if is_whiteout(&metadata) {
            found.extend(below.is_some().then_some((path, DELETED)));
            continue;
        }
        let before = found.len();
        let mut stub = false;
        if metadata.is_dir() {
            // What an opaque folder hides is not there for what is in it.
            let layers = if is_opaque(&upper.join(&path)) {
                &[][..]
            } else {
                layers
            };
            stub = is_mount_point(&path);
            folder(upper, &path, layers, found)?;
        } else if metadata.is_file() && metadata.len() == 0 {
            stub = is_mount_point(&path);
        }
        let inner = found.len() > before;
        match below {
            None if stub && !inner => {}
            None => found.push((path, ADDED)),
            Some(below) if !inner && is_same_folder(&metadata, &below, stub) => {}
            Some(_) => found.push((path, MODIFIED)),
        }
    }
    Ok(())
}

fn is_mount_point(path: &Path) -> bool {
    MOUNT_POINTS.iter().any(|known| path == Path::new(known))
}

/// A folder that was copied up for something that is no difference itself; making a mount point in it changes its time.
fn is_same_folder(upper: &Metadata, below: &Metadata, stub: bool) -> bool {
    upper.is_dir()
        && below.is_dir()
        && (upper.mode(), upper.uid(), upper.gid()) == (below.mode(), below.uid(), below.gid())
        && (stub || upper.mtime() == below.mtime())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            if !file.ends_with('/') {
                fs_err::write(path, file.trim_start_matches("etc/hosts")).unwrap();
            }
        }
    }

    fn shown(upper: &Path, layer: &Path) -> Vec<String> {
        let found = differences(upper, &[layer.to_owned()]).unwrap();
        let line = |(path, kind): (PathBuf, u8)| {
            let letter = ["C", "A", "D"][usize::from(kind)];
            format!("{letter} {}", path.display())
        };
        found.into_iter().map(line).collect()
    }

    #[test]
    fn too_deep_folders_are_an_error_and_no_crash() {
        let (upper, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = |levels: usize| ["a"; 300][..levels].join("/");
        put(upper.path(), &[&format!("{}/", deep(DEEPEST))]);
        let compare = || differences(upper.path(), &[layer.path().to_owned()]);
        assert!(compare().is_ok());
        fs_err::create_dir_all(upper.path().join(deep(300))).unwrap();
        assert!(compare().is_err());
        crate::container::removal::remove_dir_all(upper.path()).unwrap();
    }

    #[test]
    fn what_was_made_for_mounts_is_no_difference() {
        let (upper, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(layer.path(), &["etc/passwd", "bin/x"]);
        put(upper.path(), &["etc/hosts", "dev/shm/", "proc/", "bin/x"]);
        fs_err::create_dir_all(upper.path().join("dev/shm")).unwrap();
        fs_err::create_dir_all(upper.path().join("proc")).unwrap();
        assert_eq!(shown(upper.path(), layer.path()), ["C bin", "C bin/x"]);
        put(upper.path(), &["dev/mine", "etc/new", "vol/deep/a"]);
        let gone = upper.path().join("etc/passwd");
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &gone, kind, 0o600.into(), 0).unwrap();
        assert_eq!(
            shown(upper.path(), layer.path()),
            [
                "C bin",
                "C bin/x",
                "A dev",
                "A dev/mine",
                "C etc",
                "A etc/new",
                "D etc/passwd",
                "A vol",
                "A vol/deep",
                "A vol/deep/a"
            ]
        );
    }
}
