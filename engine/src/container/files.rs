//! A container's files from outside: `docker cp` and `docker export`.

use std::io::Write;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use nix::fcntl::OFlag;
use windlass_engine_api::types::PathStat;

use super::error::{Error, Result};
use super::record::Status;
use super::registry::Container;
use super::{Engine, clock, removal, rooted};

/// Folders in folders that an archive is made of: a container can nest as many as it likes.
const DEEPEST: usize = 256;

/// A container's root, kept mounted while this lives.
pub struct Root {
    engine: Arc<Engine>,
    container: Arc<Container>,
    mounted: bool,
    fd: Arc<OwnedFd>,
}

impl Root {
    /// The root's descriptor.
    pub fn fd(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Unmounts it, if it was mounted for this.
    pub async fn close(self) {
        drop(self.fd);
        if self.mounted {
            let _one = self.container.operation.lock().await;
            if !self.container.status().has_process() {
                self.engine.images.unmount(&self.container.id).await.ok();
            }
        }
    }
}

impl Engine {
    /// Opens a container's root: of the running process, or mounted for the purpose.
    pub async fn open_root(self: &Arc<Self>, id: &str) -> Result<Root> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        let (status, pid, image) =
            container.read(|r| (r.state.status, r.state.pid, r.image_id.clone()));
        let (path, mounted) = match status {
            Status::Running | Status::Paused => (PathBuf::from(format!("/proc/{pid}/root")), false),
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(format!(
                    "container {} is being removed",
                    container.id
                )));
            }
            _ => (self.images.mount(&container.id, &image).await?, true),
        };
        let fd = Arc::new(rooted::open_root(&path)?);
        if !mounted && !is_of(pid, &container.id) {
            return Err(Error::conflict(format!(
                "container {} has just ended",
                container.id
            )));
        }
        Ok(Root {
            engine: self.clone(),
            container: container.clone(),
            mounted,
            fd,
        })
    }
}

/// Whether the number still means a process of the container: numbers come back, and another process' root may be the host's.
fn is_of(pid: i32, container: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container))
}

fn missing(path: &str) -> impl Fn(std::io::Error) -> Error {
    move |e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Error::not_found(format!("Could not find the file {path} in container"))
        }
        _ => Error::message(format!("{path}: {e}")),
    }
}

/// The parent directory as the container sees it, and the last name.
fn locate(root: &OwnedFd, path: &str) -> Result<(OwnedFd, String)> {
    let clean = format!("/{}", path.trim_matches('/'));
    let (parent, name) = match clean.rsplit_once('/') {
        // The folder above as the container sees it, and not as the host does.
        Some((_, "..")) => (clean.as_str(), "."),
        parts => parts.unwrap_or(("", "")),
    };
    let parent = rooted::open(
        root.as_fd(),
        Path::new(parent),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
    )
    .map_err(missing(path))?;
    Ok((parent, name.to_owned()))
}

/// What `docker cp` asks first; symbolic links are shown, not followed.
pub fn stat(root: &OwnedFd, path: &str) -> Result<PathStat> {
    let (parent, name) = locate(root, path)?;
    let at = if matches!(name.as_str(), "" | ".") {
        rooted::path_of(&parent).join(".")
    } else {
        rooted::path_of(&parent).join(&name)
    };
    let metadata = std::fs::symlink_metadata(&at).map_err(missing(path))?;
    let link_target = if metadata.file_type().is_symlink() {
        link_target(root, &at, path)
    } else {
        String::new()
    };
    let mtime = time::OffsetDateTime::from_unix_timestamp(metadata.mtime())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let name = if name.is_empty() {
        "/".to_owned()
    } else {
        name
    };
    Ok(PathStat {
        name,
        size: metadata.len() as i64,
        mode: go_mode(&metadata),
        mtime: clock::format(mtime),
        link_target,
    })
}

/// Where a link leads, as an absolute path in the container.
fn link_target(root: &OwnedFd, at: &Path, path: &str) -> String {
    let target = std::fs::read_link(at).unwrap_or_default();
    let absolute = if target.is_absolute() {
        target
    } else {
        Path::new(path)
            .parent()
            .unwrap_or(Path::new("/"))
            .join(target)
    };
    match rooted::open(root.as_fd(), &absolute, OFlag::O_PATH) {
        Ok(_) => normal(&absolute),
        Err(_) => absolute.display().to_string(),
    }
}

fn normal(path: &Path) -> String {
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

/// Writes an archive of `path`; blocking.
pub fn pack(root: &OwnedFd, path: &str, out: impl Write) -> Result<()> {
    let (parent, name) = locate(root, path)?;
    let base = rooted::path_of(&parent);
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let whole = matches!(name.as_str(), "" | ".");
    let at = if whole {
        base.join(".")
    } else {
        base.join(&name)
    };
    let metadata = std::fs::symlink_metadata(&at).map_err(missing(path))?;
    let shown = if name.is_empty() {
        "/".to_owned()
    } else {
        name
    };
    if metadata.is_dir() {
        let folder = open_folder(&at)?;
        pack_directory(
            &mut tar,
            &folder,
            Path::new(shown.trim_start_matches('/')),
            0,
        )?;
    } else {
        pack_entry(&mut tar, &at, Path::new(&shown), &metadata)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// Writes an archive of everything; blocking.
pub fn pack_all(root: &OwnedFd, out: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    tar.follow_symlinks(false);
    let folder = open_folder(&rooted::path_of(root).join("."))?;
    pack_directory(&mut tar, &folder, Path::new(""), 0)?;
    tar.into_inner()?.flush()?;
    Ok(())
}

/// A link that has come to the folder's place is an error: it would lead into the host.
fn open_folder(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    open_itself(path, flags)
}

fn open_itself(path: &Path, flags: OFlag) -> std::io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = flags | OFlag::O_NOFOLLOW;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    Ok(file.into())
}

/// The container may still run and put links in the place of folders: every folder is opened, and named from then on by what is open.
fn pack_directory(
    tar: &mut tar::Builder<impl Write>,
    folder: &OwnedFd,
    shown: &Path,
    depth: usize,
) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::message(format!(
            "{} is more than {DEEPEST} folders deep",
            shown.display()
        )));
    }
    let at = rooted::path_of(folder);
    if !shown.as_os_str().is_empty() {
        tar.append_dir(shown, &at)?;
    }
    let mut names = fs::read_dir(&at)?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let path = at.join(&name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e.into()),
        };
        let shown = shown.join(&name);
        if metadata.is_dir() {
            pack_directory(tar, &open_folder(&path)?, &shown, depth + 1)?;
        } else {
            pack_entry(tar, &path, &shown, &metadata)?;
        }
    }
    Ok(())
}

fn pack_entry(
    tar: &mut tar::Builder<impl Write>,
    at: &Path,
    shown: &Path,
    metadata: &std::fs::Metadata,
) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if kind.is_symlink() {
        tar.append_link(&mut header, shown, fs::read_link(at)?)?;
    } else if kind.is_file() {
        // A growing file must not spoil the archive, and what is a pipe by now must not hold it up.
        let file = std::fs::File::from(open_itself(at, OFlag::O_NONBLOCK)?);
        tar.append_data(
            &mut header,
            shown,
            std::io::Read::take(file, metadata.len()),
        )?;
    } else {
        header.set_size(0);
        tar.append_data(&mut header, shown, std::io::empty())?;
    }
    Ok(())
}

/// How to unpack.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpacking {
    /// A directory does not replace a file, nor the other way round.
    pub keep_kinds: bool,
    /// Owners as in the archive.
    pub keep_owners: bool,
}

/// Unpacks an archive below `path`, which must be a directory; blocking.
pub fn put(root: &OwnedFd, path: &str, archive: impl std::io::Read, how: Unpacking) -> Result<()> {
    let directory = rooted::open(
        root.as_fd(),
        Path::new(path),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
    )
    .map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTDIR) => {
            Error::invalid(format!("extraction point is not a directory: {path}"))
        }
        _ => missing(path)(e),
    })?;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        put_entry(&directory, &mut entry, how)?;
    }
    // What lies behind its end is sent too: a client that is cut off in the middle of it hears of no answer.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok(())
}

fn put_entry(
    directory: &OwnedFd,
    entry: &mut tar::Entry<'_, impl std::io::Read>,
    how: Unpacking,
) -> Result<()> {
    use std::path::Component;
    let name = entry.path()?.into_owned();
    if name.components().any(|c| c == Component::ParentDir) {
        return Err(Error::invalid(format!(
            "the archive's entry {} leads out of the directory",
            name.display()
        )));
    }
    let name: PathBuf = name
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect();
    let Some(last) = name.file_name() else {
        return Ok(());
    };
    let parent =
        rooted::make_directories(directory.as_fd(), name.parent().unwrap_or(Path::new("")))?;
    let at = rooted::path_of(&parent).join(last);
    let kind = entry.header().entry_type();
    let header = entry.header().clone();
    if let Ok(there) = std::fs::symlink_metadata(&at) {
        if how.keep_kinds && there.is_dir() != kind.is_dir() {
            let (old, new) = if there.is_dir() {
                ("directory", "non-directory")
            } else {
                ("non-directory", "directory")
            };
            return Err(Error::invalid(format!(
                "cannot overwrite {old} \"{}\" with {new}",
                name.display()
            )));
        }
        match (there.is_dir(), kind.is_dir()) {
            (true, true) => {}
            (true, false) => removal::remove_dir_all(&at)?,
            (false, _) => fs::remove_file(&at)?,
        }
    }
    match kind {
        tar::EntryType::Directory => match std::fs::create_dir(&at) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        },
        tar::EntryType::Symlink => {
            std::os::unix::fs::symlink(entry.link_name()?.unwrap_or_default(), &at)?
        }
        tar::EntryType::Link => {
            let target = entry.link_name()?.unwrap_or_default();
            let source = rooted::open(
                directory.as_fd(),
                &target,
                OFlag::O_PATH | OFlag::O_NOFOLLOW,
            )?;
            nix::unistd::linkat(
                None,
                &rooted::path_of(&source),
                None,
                &at,
                nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
            )
            .map_err(std::io::Error::from)?;
            return Ok(());
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&at)?;
            std::io::copy(entry, &mut file)?;
        }
        tar::EntryType::Fifo => {
            nix::unistd::mkfifo(&at, nix::sys::stat::Mode::from_bits_truncate(0o600))
                .map_err(std::io::Error::from)?
        }
        _ => {
            return Err(Error::invalid(format!(
                "the archive's entry {} is a device: windlassd copies none",
                name.display()
            )));
        }
    }
    apply(&at, &header, how)
}

fn apply(at: &Path, header: &tar::Header, how: Unpacking) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if how.keep_owners {
        std::os::unix::fs::lchown(at, Some(header.uid()? as u32), Some(header.gid()? as u32))?;
    }
    // The container may still run: what has come to this place meanwhile may be a link into the host.
    let file = open_itself(at, OFlag::O_PATH)?;
    let file = rooted::path_of(&file);
    if !fs::metadata(&file)?.is_symlink() {
        fs::set_permissions(
            &file,
            std::fs::Permissions::from_mode(header.mode()? & 0o7777),
        )?;
    }
    let time = nix::sys::time::TimeSpec::new(header.mtime()? as i64, 0);
    nix::sys::stat::utimensat(
        None,
        at,
        &time,
        &time,
        nix::sys::stat::UtimensatFlags::NoFollowSymlink,
    )
    .map_err(std::io::Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
        pack(&root, "/a/b", &mut archive).unwrap();
        put(&root, "/target", &archive[..], Unpacking::default()).unwrap();
        assert_eq!(
            fs::read_to_string(dir.join("root/target/b/f")).unwrap(),
            "text"
        );
        assert_eq!(stat(&root, "/link").unwrap().link_target, "/a");
        let mut above = Vec::new();
        pack(&root, "/..", &mut above).unwrap();
        let mut above = tar::Archive::new(&above[..]);
        let names: Vec<PathBuf> = above
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().into_owned())
            .collect();
        assert!(
            names.contains(&"./link".into()) || names.contains(&"link".into()),
            "{names:?}"
        );
        assert!(!names.iter().any(|n| n.ends_with("root/a")), "{names:?}");
        assert_eq!(stat(&root, "/a").unwrap().mode >> 31, 1);
        assert!(
            stat(&root, "/nosuch").is_err()
                && put(&root, "/a/b/f", &archive[..], Unpacking::default()).is_err()
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
            Unpacking::default(),
        )
        .unwrap();
        assert!(
            !Path::new("/escaped").exists() && dir.join("root/target/escaped").exists()
                || dir.join("root/escaped").exists()
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
