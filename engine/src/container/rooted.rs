//! Files of a container, seen from the host: no path leads out of the container's root, whatever its links say.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::{OFlags, ResolveFlags};

/// Opens `path` below `root` as the container itself would.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> std::io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::from_bits_retain((flags | OFlag::O_CLOEXEC).bits() as u32);
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        rustix::fs::Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// Opens a directory of the host as a root.
pub fn open_root(path: &Path) -> std::io::Result<OwnedFd> {
    let file = fs::File::open(path)?;
    Ok(OwnedFd::from(file.into_parts().0))
}

/// A path that means this open file, for functions that take paths.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Makes `path` below `root` a directory, with its parents.
pub fn make_directories(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<OwnedFd> {
    let mut done = PathBuf::new();
    for part in path.strip_prefix("/").unwrap_or(path).components() {
        let parent = open(root, &done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        match nix::sys::stat::mkdirat(
            Some(parent.as_raw_fd()),
            Path::new(part.as_os_str()),
            Mode::from_bits_truncate(0o755),
        ) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(e.into()),
        }
        done.push(part);
    }
    open(root, &done, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Copies what is in `from` into `to` (both directories), with owners, modes, times and links; the directory's own owner and mode too.
pub fn copy_directory(from: &OwnedFd, to: &Path) -> std::io::Result<()> {
    let source = path_of(from);
    copy_entries(&source, to)?;
    let metadata = nix::sys::stat::fstat(from.as_fd().as_raw_fd())?;
    std::os::unix::fs::chown(to, Some(metadata.st_uid), Some(metadata.st_gid))?;
    fs::set_permissions(
        to,
        std::fs::Permissions::from_mode(metadata.st_mode & 0o7777),
    )
}

fn copy_entries(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_entry(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy_entry(from: &Path, to: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy_entries(from, to)?;
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_socket() {
        return Ok(());
    } else {
        let kind = nix::sys::stat::SFlag::from_bits_truncate(metadata.mode() & libc::S_IFMT);
        nix::sys::stat::mknod(
            to,
            kind,
            Mode::from_bits_truncate(metadata.mode() & 0o7777),
            metadata.rdev(),
        )?;
    }
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !kind.is_symlink() {
        fs::set_permissions(
            to,
            std::fs::Permissions::from_mode(metadata.mode() & 0o7777),
        )?;
    }
    let time = nix::sys::time::TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    nix::sys::stat::utimensat(
        None,
        to,
        &time,
        &time,
        nix::sys::stat::UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let dir = std::env::temp_dir().join(format!("windlass-rooted-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/inner")).unwrap();
        fs::write(dir.join("secret"), "host").unwrap();
        fs::write(dir.join("root/secret"), "container").unwrap();
        std::os::unix::fs::symlink("/secret", dir.join("root/inner/absolute")).unwrap();
        std::os::unix::fs::symlink("../../secret", dir.join("root/inner/up")).unwrap();
        let root = open_root(&dir.join("root")).unwrap();
        for name in ["/inner/absolute", "/inner/up", "inner/../../secret"] {
            let file = open(root.as_fd(), Path::new(name), OFlag::O_RDONLY).unwrap();
            assert_eq!(
                fs::read_to_string(path_of(&file)).unwrap(),
                "container",
                "{name}"
            );
        }
        make_directories(root.as_fd(), Path::new("/a/b")).unwrap();
        assert!(dir.join("root/a/b").is_dir());
        fs::create_dir(dir.join("copy")).unwrap();
        copy_directory(
            &open(
                root.as_fd(),
                Path::new("/inner"),
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            )
            .unwrap(),
            &dir.join("copy"),
        )
        .unwrap();
        assert_eq!(
            fs::read_link(dir.join("copy/up")).unwrap(),
            Path::new("../../secret")
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
