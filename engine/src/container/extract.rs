//! An archive into a container's files: `docker cp` to it. Nothing leads out of its root.

use std::io::{Read, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use nix::fcntl::OFlag;
use tar::EntryType;

use super::error::{Error, Result};
use super::files::missing;
use super::pack::open_itself;
use super::{removal, rooted};
use crate::runtime::user_namespace::Assumed;
use crate::userns::Maps;

/// Of users or groups, in bytes.
const LARGEST_LIST: u64 = 16 << 20;

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct Unpacking {
    /// A directory does not replace a file, nor the other way round.
    pub keep_kinds: bool,
    /// Owners as in the archive.
    pub keep_owners: bool,
    /// Everything is to be this user's and group's.
    pub owner: Option<(u32, u32)>,
    /// By what owners are shifted.
    pub maps: Option<Maps>,
}

/// The container's user, by its own files; `None` where it names none.
pub fn owner(root: &OwnedFd, user: &str) -> Result<Option<(u32, u32)>> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    if user.is_empty() {
        return Ok(None);
    }
    let file = |path: &str| {
        let text = rooted::read(root.as_fd(), Path::new(path), LARGEST_LIST).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    };
    let field = |text: &str, name: &str, number: usize| {
        let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
        line.split(':').nth(number)?.trim().parse::<u32>().ok()
    };
    let users = file("/etc/passwd");
    let uid = user.parse().ok().or_else(|| field(&users, user, 2));
    let uid = uid.ok_or_else(|| {
        Error::message(format!(
            "unable to find user {user}: no matching entries in passwd file"
        ))
    })?;
    let gid = match group {
        "" => field(&users, user, 3),
        group => {
            let known = group.parse().ok();
            known.or_else(|| field(&file("/etc/group"), group, 2))
        }
    };
    Ok(Some((uid, gid.unwrap_or(0))))
}

/// Unpacks an archive below `path`, which must be a directory; blocking.
pub fn put(root: &OwnedFd, path: &str, archive: impl Read, how: &Unpacking) -> Result<()> {
    let directory = rooted::open(
        root.as_fd(),
        Path::new(path),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
    )
    .map_err(|e| match e.raw_os_error() {
        Some(libc::ENOTDIR) => Error::invalid("extraction point is not a directory"),
        _ => missing(path)(e),
    })?;
    let root = how.maps.as_ref().map(Maps::root);
    let _root = root.map(Assumed::new).transpose()?;
    let mut archive = tar::Archive::new(archive);
    // What a folder is to look like in the end, which what is put into it changes.
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if let Some(folder) = put_entry(&directory, path, &mut entry, how)? {
            folders.push(folder);
        }
    }
    for (folder, times) in folders.into_iter().rev() {
        touch(&rooted::path_of(&folder), times)?;
    }
    // What lies behind its end is sent too: a client that is cut off in the middle of it hears of no answer.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok(())
}

fn broken(error: std::io::Error) -> Error {
    Error::invalid(format!("Error processing tar file: {error}"))
}

type Times = nix::sys::time::TimeSpec;

/// The answer is a folder whose times are still to be set.
fn put_entry(
    directory: &OwnedFd,
    path: &str,
    entry: &mut tar::Entry<'_, impl Read>,
    how: &Unpacking,
) -> Result<Option<(OwnedFd, Times)>> {
    let name = entry.path().map_err(broken)?.into_owned();
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
        return Ok(None);
    };
    let parent =
        rooted::make_directories(directory.as_fd(), name.parent().unwrap_or(Path::new("")))?;
    let at = rooted::path_of(&parent).join(last);
    let kind = entry.header().entry_type();
    make_room(&at, (path, &name), kind, how)?;
    let header = entry.header().clone();
    match kind {
        EntryType::Directory => match std::fs::create_dir(&at) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        },
        EntryType::Symlink => {
            let target = entry.link_name().map_err(broken)?.unwrap_or_default();
            std::os::unix::fs::symlink(target, &at)?;
        }
        EntryType::Link => return hard_link(directory, entry, &at).map(|()| None),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&at)?;
            copy(entry, file.into_parts().0)?;
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => make_node(&at, &header, kind)?,
        _ => return Ok(None),
    }
    apply(&at, &header, how)?;
    attributes(entry, &at)?;
    let times = times(&header)?;
    if kind != EntryType::Directory {
        touch(&at, times)?;
        return Ok(None);
    }
    let folder = open_itself(&at, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    Ok(Some((folder, times)))
}

/// What is in the way goes, if it may.
fn make_room(
    at: &Path,
    (folder, name): (&str, &Path),
    kind: EntryType,
    how: &Unpacking,
) -> Result<()> {
    let Ok(there) = std::fs::symlink_metadata(at) else {
        return Ok(());
    };
    if how.keep_kinds && there.is_dir() != kind.is_dir() {
        let (old, new) = if there.is_dir() {
            ("directory", "non-directory")
        } else {
            ("non-directory", "directory")
        };
        return Err(Error::invalid(format!(
            "cannot overwrite {old} \"{}\" with {new} \"{folder}\"",
            Path::new(folder).join(name).display()
        )));
    }
    match (there.is_dir(), kind.is_dir()) {
        (true, true) => {}
        (true, false) => removal::remove_dir_all(at)?,
        (false, _) => fs::remove_file(at)?,
    }
    Ok(())
}

fn hard_link(directory: &OwnedFd, entry: &tar::Entry<'_, impl Read>, at: &Path) -> Result<()> {
    let target = entry.link_name().map_err(broken)?.unwrap_or_default();
    let source = rooted::open(
        directory.as_fd(),
        &target,
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
    )?;
    nix::unistd::linkat(
        None,
        rooted::path_of(&source).as_path(),
        None,
        at,
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )
    .map_err(std::io::Error::from)?;
    Ok(())
}

/// Long stretches of zeros stay holes.
fn copy(from: &mut impl Read, mut to: std::fs::File) -> Result<()> {
    use std::io::Write as _;
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let mut count = 0;
        while count < buffer.len() {
            match from.read(&mut buffer[count..]).map_err(broken)? {
                0 => break,
                n => count += n,
            }
        }
        if count == 0 {
            break;
        }
        size += count as u64;
        if buffer[..count].iter().all(|b| *b == 0) {
            to.seek(SeekFrom::Current(count as i64))?;
        } else {
            to.write_all(&buffer[..count])?;
        }
    }
    to.set_len(size)?;
    Ok(())
}

fn make_node(at: &Path, header: &tar::Header, kind: EntryType) -> Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let (kind, device) = match kind {
        EntryType::Fifo => (SFlag::S_IFIFO, 0),
        kind => {
            let number = |n: std::io::Result<Option<u32>>| {
                n.map(|n| u64::from(n.unwrap_or_default())).map_err(broken)
            };
            let kind = if kind == EntryType::Char {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFBLK
            };
            let (major, minor) = (
                number(header.device_major())?,
                number(header.device_minor())?,
            );
            (kind, makedev(major, minor))
        }
    };
    mknod(at, kind, Mode::from_bits_truncate(0o600), device).map_err(std::io::Error::from)?;
    Ok(())
}

/// Some writers leave numbers blank.
fn number(value: std::io::Result<u64>) -> u64 {
    value.unwrap_or_default()
}

fn apply(at: &Path, header: &tar::Header, how: &Unpacking) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let archived = how
        .keep_owners
        .then(|| (number(header.uid()) as u32, number(header.gid()) as u32));
    if let Some(wanted) = how.owner.or(archived) {
        let shifted = match &how.maps {
            None => Some(wanted),
            Some(maps) => maps.outside(wanted),
        };
        let (uid, gid) = shifted.ok_or_else(|| {
            let (uid, gid) = wanted;
            Error::invalid(format!(
                "Container ID {uid}:{gid} cannot be mapped to a host ID"
            ))
        })?;
        std::os::unix::fs::lchown(at, Some(uid), Some(gid))?;
    }
    // The container may still run: what has come to this place meanwhile may be a link into the host.
    let file = open_itself(at, OFlag::O_PATH)?;
    let file = rooted::path_of(&file);
    if !fs::metadata(&file)?.is_symlink() {
        let mode = header.mode().map_err(broken)? & 0o7777;
        fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Extended attributes of regular files and folders.
fn attributes(entry: &mut tar::Entry<'_, impl Read>, at: &Path) -> Result<()> {
    let Some(extensions) = entry.pax_extensions().map_err(broken)? else {
        return Ok(());
    };
    let found: Vec<(String, Vec<u8>)> = extensions
        .flatten()
        .filter_map(|e| {
            let name = e.key().ok()?.strip_prefix("SCHILY.xattr.")?;
            // The engine's own marks are no container's.
            (!name.starts_with("trusted.")).then(|| (name.to_owned(), e.value_bytes().to_vec()))
        })
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let Ok(file) = open_itself(at, OFlag::O_NONBLOCK) else {
        return Ok(());
    };
    for (name, value) in found {
        let set = rustix::fs::fsetxattr(
            &file,
            name.as_str(),
            &value,
            rustix::fs::XattrFlags::empty(),
        );
        if let Err(error) = set {
            tracing::debug!(name, %error, fd = file.as_raw_fd(), "an attribute is not kept");
        }
    }
    Ok(())
}

fn times(header: &tar::Header) -> Result<Times> {
    Ok(Times::new(number(header.mtime()) as i64, 0))
}

fn touch(at: &Path, time: Times) -> Result<()> {
    // A folder is named by what is open, and that is a link of `/proc`.
    let flags = if at.starts_with("/proc/self/fd") && at.components().count() == 5 {
        nix::sys::stat::UtimensatFlags::FollowSymlink
    } else {
        nix::sys::stat::UtimensatFlags::NoFollowSymlink
    };
    nix::sys::stat::utimensat(None, at, &time, &time, flags).map_err(std::io::Error::from)?;
    Ok(())
}
