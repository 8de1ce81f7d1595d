//! Files of a container, seen from the host: no path leads out of the container's root, whatever its links say.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::{OFlags, ResolveFlags};

use super::pack::open_itself;

/// Folders in folders that are followed: the stack and the number of open files are bounded, and how deep files lie is an image's, a
/// container's or a context's to choose.
pub const DEEPEST: usize = 256;

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

/// Opens a regular file below `root` for reading. What is anything else is an error and is not opened: whoever chose what lies there could
/// have left a FIFO that nobody writes to, or a device without an end.
pub fn open_file(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<std::fs::File> {
    let found = open(root, path, OFlag::O_PATH)?;
    let at = path_of(&found);
    if !std::fs::metadata(&at)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    std::fs::File::open(at)
}

/// The content of a regular file below `root`; one of more than `most` bytes is an error.
pub fn read(root: BorrowedFd<'_>, path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = open_file(root, path)?;
    file.take(most.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
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

/// Copies what is in `from` into `to` (both directories), with owners, modes, times and links; the directory's own owner and mode too. What
/// lies there already stays as it is. `to` may be in use by a container: its links are not followed.
pub fn copy_directory(from: &OwnedFd, to: &Path) -> std::io::Result<()> {
    let to = open_root(to)?;
    copy_entries(&path_of(from), &to, 0)?;
    let metadata = nix::sys::stat::fstat(from.as_fd().as_raw_fd())?;
    let at = path_of(&to);
    std::os::unix::fs::chown(&at, Some(metadata.st_uid), Some(metadata.st_gid))?;
    fs::set_permissions(
        at,
        std::fs::Permissions::from_mode(metadata.st_mode & 0o7777),
    )
}

fn copy_entries(from: &Path, to: &OwnedFd, depth: usize) -> std::io::Result<()> {
    if depth > DEEPEST {
        let words = format!("more than {DEEPEST} folders deep");
        return Err(std::io::Error::other(words));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        match copy_entry(&entry.path(), to, &entry.file_name(), depth) {
            // Somebody else's.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            done => done?,
        }
    }
    Ok(())
}

fn copy_entry(from: &Path, to: &OwnedFd, name: &OsStr, depth: usize) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    let at = path_of(to).join(name);
    if kind.is_dir() {
        if let Err(error) = std::fs::create_dir(&at)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let folder = open_itself(&at, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        copy_entries(from, &folder, depth + 1)?;
        return dress(&folder, &metadata);
    }
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, &at)?;
        std::os::unix::fs::lchown(&at, Some(metadata.uid()), Some(metadata.gid()))?;
        return set_times(&at, &metadata);
    }
    if kind.is_file() {
        let mut new = std::fs::OpenOptions::new();
        let mut file = new.write(true).create_new(true).mode(0o600).open(&at)?;
        let mut source = std::fs::File::open(from)?;
        std::io::copy(&mut source, &mut file)?;
        return dress(&file.into(), &metadata);
    }
    if kind.is_socket() {
        return Ok(());
    }
    let kind = nix::sys::stat::SFlag::from_bits_truncate(metadata.mode() & libc::S_IFMT);
    nix::sys::stat::mknod(&at, kind, Mode::empty(), metadata.rdev())?;
    dress(&open_itself(&at, OFlag::O_PATH)?, &metadata)
}

/// Owner first: changing it clears the set-id bits.
fn dress(made: &OwnedFd, metadata: &std::fs::Metadata) -> std::io::Result<()> {
    let at = path_of(made);
    std::os::unix::fs::chown(&at, Some(metadata.uid()), Some(metadata.gid()))?;
    std::fs::set_permissions(
        &at,
        std::fs::Permissions::from_mode(metadata.mode() & 0o7777),
    )?;
    let time = nix::sys::time::TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
    Ok(nix::sys::stat::utimensat(None, &at, &time, &time, follow)?)
}

/// Of a link itself.
fn set_times(link: &Path, metadata: &std::fs::Metadata) -> std::io::Result<()> {
    let time = nix::sys::time::TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    let itself = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    Ok(nix::sys::stat::utimensat(None, link, &time, &time, itself)?)
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

    #[test]
    fn a_copy_does_not_follow_the_links_of_its_target() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["from/folder", "to", "outside"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("from/file"), "image").unwrap();
        fs::write(dir.path().join("from/folder/file"), "image").unwrap();
        fs::write(dir.path().join("outside/file"), "host").unwrap();
        let plant = |target: &str, name: &str| {
            std::os::unix::fs::symlink(dir.path().join(target), dir.path().join("to").join(name))
        };
        let copy = || {
            let from = open_root(&dir.path().join("from")).unwrap();
            copy_directory(&from, &dir.path().join("to"))
        };
        let outside = || fs::read_to_string(dir.path().join("outside/file")).unwrap();
        plant("outside/file", "file").unwrap();
        copy().unwrap();
        assert_eq!(outside(), "host");
        fs::remove_file(dir.path().join("to/file")).unwrap();
        fs::remove_dir_all(dir.path().join("to/folder")).unwrap();
        plant("outside", "folder").unwrap();
        assert!(copy().is_err(), "a link in a folder's place");
        assert_eq!(outside(), "host");
    }

    #[test]
    fn only_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "12345").unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        let root = open_root(dir.path()).unwrap();
        let read = |name: &str, most| read(root.as_fd(), Path::new(name), most);
        assert_eq!(read("/file", 5).unwrap(), b"12345");
        assert!(read("/file", 4).is_err() && read("/fifo", 5).is_err() && read("/", 5).is_err());
    }
}
