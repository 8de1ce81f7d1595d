//! A container's files from outside: where a path leads, and what `docker cp` asks about it first.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use windlass_engine_api::types::PathStat;

use super::error::{Error, Result};
pub use super::extract::{Unpacking, put};
use super::{clock, rooted};

/// What a failed look at a path means.
pub(super) fn missing(path: &str) -> impl Fn(std::io::Error) -> Error {
    move |e| match e.raw_os_error() {
        Some(libc::ENOENT) => {
            Error::not_found(format!("Could not find the file {path} in container"))
        }
        Some(libc::ENOTDIR) => Error::invalid(format!("lstat {path}: not a directory")),
        _ => Error::message(format!("{path}: {e}")),
    }
}

/// A path as it was asked for, found as the container sees it.
pub(super) struct Place {
    /// Its folder.
    pub folder: OwnedFd,
    /// Its name in the folder; `.` is the folder itself.
    pub name: String,
    /// What it is called: by its last part, by `.` where that is how the path ends, or by `/`.
    pub shown: String,
}

impl Place {
    /// Where it is on the host; the last name is not looked up.
    pub fn path(&self) -> PathBuf {
        rooted::path_of(&self.folder).join(&self.name)
    }
}

/// Links are followed in the folders above; in the last place only where the path ends with `/` or `/.`.
pub(super) fn locate(root: &OwnedFd, path: &str) -> Result<Place> {
    let clean = normal(Path::new(path));
    let base = clean.rsplit('/').next().unwrap_or_default();
    let ends_with_dot = path == "." || path.ends_with("/.");
    let is_folder = ends_with_dot || path.ends_with('/') || clean == "/";
    let (folder, name) = if is_folder {
        (clean.as_str(), ".")
    } else {
        (&clean[..clean.len() - base.len()], base)
    };
    let shown = match base {
        _ if ends_with_dot => ".",
        "" => "/",
        base => base,
    };
    let folder = rooted::open(
        root.as_fd(),
        Path::new(folder),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
    )
    .map_err(missing(path))?;
    Ok(Place {
        folder,
        name: name.to_owned(),
        shown: shown.to_owned(),
    })
}

/// What `docker cp` asks first; symbolic links are shown, not followed.
pub fn stat(root: &OwnedFd, path: &str) -> Result<PathStat> {
    let place = locate(root, path)?;
    let at = place.path();
    let metadata = std::fs::symlink_metadata(&at).map_err(missing(path))?;
    let link_target = if metadata.file_type().is_symlink() {
        link_target(root, &at, path)
    } else {
        String::new()
    };
    let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let mtime = time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    Ok(PathStat {
        name: place.shown,
        size: metadata.len() as i64,
        mode: go_mode(&metadata),
        mtime: clock::format(mtime),
        link_target,
    })
}

/// Where a link leads, as an absolute path in the container.
fn link_target(root: &OwnedFd, at: &Path, path: &str) -> String {
    let target = std::fs::read_link(at).unwrap_or_default();
    let path = normal(Path::new(path));
    let folder = Path::new(&path).parent().unwrap_or(Path::new("/"));
    let absolute = folder.join(target);
    match rooted::open(root.as_fd(), &absolute, OFlag::O_PATH) {
        Ok(_) => normal(&absolute),
        Err(_) => absolute.display().to_string(),
    }
}

/// Without `.` and `..`, from the root; by its words alone.
pub(super) fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's `fs.FileMode`: its own bits for the kinds, Unix' nine for the permissions.
fn go_mode(metadata: &std::fs::Metadata) -> u32 {
    let kind = metadata.file_type();
    let mode = metadata.mode();
    let mut go = mode & 0o777;
    for (set, bit) in [
        (kind.is_dir(), 31),
        (kind.is_symlink(), 27),
        (kind.is_block_device() || kind.is_char_device(), 26),
        (kind.is_fifo(), 25),
        (kind.is_socket(), 24),
        (mode & 0o4000 != 0, 23),
        (mode & 0o2000 != 0, 22),
        (kind.is_char_device(), 21),
        (mode & 0o1000 != 0, 20),
    ] {
        if set {
            go |= 1 << bit;
        }
    }
    go
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::super::pack::pack;
    use super::*;

    #[test]
    fn round_trip_and_no_way_out() {
        let dir = std::env::temp_dir().join(format!("windlass-files-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/a/b")).unwrap();
        fs::create_dir_all(dir.join("root/target")).unwrap();
        fs::write(dir.join("root/a/b/f"), "text").unwrap();
        std::os::unix::fs::symlink("/a", dir.join("root/link")).unwrap();
        std::os::unix::fs::symlink("/", dir.join("root/target/out")).unwrap();
        let root = rooted::open_root(&dir.join("root")).unwrap();
        let mut archive = Vec::new();
        pack(&root, "/a/b", None, &mut archive).unwrap();
        put(&root, "/target", &archive[..], &Unpacking::default()).unwrap();
        assert_eq!(
            fs::read_to_string(dir.join("root/target/b/f")).unwrap(),
            "text"
        );
        assert_eq!(stat(&root, "/link").unwrap().link_target, "/a");
        let mut above = Vec::new();
        pack(&root, "/..", None, &mut above).unwrap();
        let mut above = tar::Archive::new(&above[..]);
        let names: Vec<PathBuf> = above
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert!(names.contains(&"/link".into()), "{names:?}");
        assert!(!names.iter().any(|n| n.ends_with("root/a")), "{names:?}");
        assert_eq!(stat(&root, "/a").unwrap().mode >> 31, 1);
        assert!(
            stat(&root, "/nosuch").is_err()
                && put(&root, "/a/b/f", &archive[..], &Unpacking::default()).is_err()
        );

        let mut evil = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        evil.append_data(&mut header, "out/escaped", &b"no"[..])
            .unwrap();
        put(
            &root,
            "/target",
            &evil.into_inner().unwrap()[..],
            &Unpacking::default(),
        )
        .unwrap();
        assert!(
            !Path::new("/escaped").exists() && dir.join("root/target/escaped").exists()
                || dir.join("root/escaped").exists()
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
