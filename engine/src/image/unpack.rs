//! A layer archive into a directory, in overlayfs' own form.
//!
//! Every path is resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`), as if the root were `/`:
//! neither `..`, an absolute path nor a symlink that an earlier entry planted leads out of it.
//! OCI whiteouts become what overlayfs reads: a 0/0 character device, and `trusted.overlay.opaque` on a directory.
//! A whiteout is of the layers below alone: what the same layer brings under that name stays, and hides what is below.
//!
//! A file takes four system calls where owner and mode are what a new file has: open, write, times, close.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    io::{self, BufRead},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};

use super::entries::{Entries, Entry, Kind};
use super::{Error, Result};
use crate::container::removal::remove_dir_all_at;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself; layers of its time still have it.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Of a layer; real ones have up to a few hundred thousand, and each may cost an inode.
const MOST_ENTRIES: u64 = 8 << 20;
/// Files from this size on are refused beforehand where the disk has no room for them.
const LARGE: u64 = 16 << 20;
const SET_ID: u32 = 0o6000;

/// What an archive came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file content.
    pub size: u64,
    /// Entries.
    pub entries: u64,
}

/// Unpacks an uncompressed tar into `root`, which exists. Stops at `max_bytes` of stored file content.
pub fn unpack(archive: impl BufRead, root: &Path, max_bytes: u64) -> Result<Unpacked> {
    let mut target = Target::open(root, max_bytes)?;
    let mut entries = Entries::new(archive);
    let mut entry = Entry::default();
    while entries.next(&mut entry).map_err(broken)? {
        target.entry(&entry, &mut entries)?;
    }
    target.finish()
}

struct Target {
    root: OwnedFd,
    /// The directory of the last entry: archives list a directory's files together.
    parent: Option<Parent>,
    /// What a directory above has in store for new files.
    root_gives_group: bool,
    /// Directory times, set last: every file made inside changes them.
    directories: Vec<(PathBuf, Timestamps)>,
    /// Names that the layer took out of sight: a directory of that name must not show what lies below.
    hidden: HashSet<PathBuf>,
    unpacked: Unpacked,
    stored: u64,
    max_bytes: u64,
    /// What a new file has without being asked for.
    born: Born,
}

struct Parent {
    path: PathBuf,
    fd: OwnedFd,
    /// New files get its group.
    gives_group: bool,
}

struct Born {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Target {
    fn open(root: &Path, max_bytes: u64) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = fs::open(root, flags, Mode::empty()).map_err(io::Error::from)?;
        Ok(Self {
            root_gives_group: gives_group(&root)?,
            root,
            parent: None,
            directories: Vec::new(),
            hidden: HashSet::new(),
            unpacked: Unpacked::default(),
            stored: 0,
            max_bytes,
            born: Born {
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                umask: umask(),
            },
        })
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<()> {
        let named = |error: io::Error| named(error, &entry.path);
        if matches!(entry.kind, Kind::Other(b'g')) {
            return Ok(());
        }
        self.unpacked.entries += 1;
        if self.unpacked.entries > MOST_ENTRIES {
            return Err(Error::Archive(format!("more than {MOST_ENTRIES} entries")));
        }
        let path = clean(&entry.path)?;
        let Some(name) = path.file_name() else {
            return self.root_entry(entry);
        };
        let aufs = |part: &OsStr| part.as_bytes().starts_with(AUFS);
        if name.as_bytes() != OPAQUE && path.iter().any(aufs) {
            return Ok(());
        }
        self.enter(path.parent().unwrap_or(Path::new("")))?;
        if name.as_bytes() == OPAQUE {
            return make_opaque(self.parent_fd()).map_err(|errno| named(errno.into()));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&path, OsStr::from_bytes(hidden));
        }
        match entry.kind {
            Kind::Directory => self.directory(entry, &path, name),
            Kind::Symlink => self.symlink(entry, name).map_err(named),
            Kind::Hardlink => self.hardlink(entry, &path, name),
            Kind::Character | Kind::Block | Kind::Fifo => self.node(entry, name).map_err(named),
            Kind::File => self.file(entry, entries, name),
            Kind::Other(flag) => Err(Error::Archive(format!(
                "{} is of the unknown type {:?}",
                shown(&entry.path),
                char::from(flag)
            ))),
        }
    }

    fn parent_fd(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |parent| &parent.fd)
    }

    fn parent_gives_group(&self) -> bool {
        self.parent
            .as_ref()
            .map_or(self.root_gives_group, |parent| parent.gives_group)
    }

    /// Makes `path` (relative, clean) the directory that entries are made in, creating what is missing.
    fn enter(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() {
            self.parent = None;
            return Ok(());
        }
        let known = self.parent.as_ref();
        if known.is_some_and(|parent| parent.path.as_os_str() == path.as_os_str()) {
            return Ok(());
        }
        let fd = match self.open_directory(path) {
            Err(Errno::NOENT) => self.make_directories(path)?,
            other => other.map_err(|errno| no_directory(path, errno))?,
        };
        self.parent = Some(Parent {
            path: path.to_owned(),
            gives_group: gives_group(&fd)?,
            fd,
        });
        Ok(())
    }

    fn open_directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    fn make_directories(&self, path: &Path) -> Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        let mut fd = self.root.try_clone()?;
        for component in path.components() {
            so_far.push(component);
            fd = match self.open_directory(&so_far) {
                Err(Errno::NOENT) => {
                    match fs::mkdirat(&fd, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => self.open_directory(&so_far),
                        Err(errno) => Err(errno),
                    }
                }
                other => other,
            }
            .map_err(|errno| no_directory(&so_far, errno))?;
        }
        Ok(fd)
    }

    /// Runs `make`; where something of that name stands in the way, removes it and tries once more.
    fn replace<T>(
        &mut self,
        name: &OsStr,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(self.parent_fd(), name) {
            Err(Errno::EXIST) => {
                remove_all(self.parent_fd(), name)?;
                let made = make(self.parent_fd(), name);
                // The handle kept may be of a directory that was just removed.
                self.parent = None;
                Ok(made?)
            }
            other => Ok(other?),
        }
    }

    /// What the layer itself has under that name stays; a directory hides what lies below it.
    fn whiteout(&mut self, path: &Path, hidden: &OsStr) -> Result<()> {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            let path = shown(path.as_os_str().as_bytes());
            return Err(Error::Archive(format!("bad whiteout {path}")));
        }
        let hidden_path = path.with_file_name(hidden);
        let made = fs::mknodat(
            self.parent_fd(),
            hidden,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        );
        match made {
            Ok(()) => drop(self.hidden.insert(hidden_path)),
            Err(Errno::EXIST) => match open_child(self.parent_fd(), hidden) {
                Ok(directory) => make_opaque(&directory).map_err(io::Error::from)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(named(errno.into(), path.as_os_str().as_bytes())),
            },
            Err(errno) => return Err(named(errno.into(), path.as_os_str().as_bytes())),
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<()> {
        let named = |error: io::Error| named(error, &entry.path);
        let mode = Mode::from_raw_mode(0o755);
        let made = fs::mkdirat(self.parent_fd(), name, mode);
        let as_born =
            made.is_ok() && entry.mode == 0o755 & !self.born.umask && self.owner_is_given(entry);
        let fd = match made {
            Ok(()) => open_child(self.parent_fd(), name).map_err(io::Error::from),
            Err(Errno::EXIST) => match open_child(self.parent_fd(), name) {
                Err(Errno::NOTDIR | Errno::LOOP) => self.replace(name, |parent, name| {
                    fs::mkdirat(parent, name, mode)?;
                    open_child(parent, name)
                }),
                other => other.map_err(io::Error::from),
            },
            Err(errno) => Err(errno.into()),
        }
        .map_err(named)?;
        if !self.hidden.is_empty() && self.hidden.remove(path) {
            make_opaque(&fd).map_err(|errno| named(errno.into()))?;
        }
        if !as_born {
            set_owner_and_mode(&fd, entry).map_err(named)?;
        }
        set_xattrs(&fd, entry).map_err(named)?;
        self.directories.push((path.to_owned(), times(entry)));
        // Its files come next, most often.
        self.parent = Some(Parent {
            path: path.to_owned(),
            fd,
            gives_group: entry.mode & 0o2000 != 0,
        });
        Ok(())
    }

    /// `./` itself: its mode and owner are the root directory's.
    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::Archive("an entry without a name".into()));
        }
        set_owner_and_mode(&self.root, entry)?;
        set_xattrs(&self.root, entry)?;
        self.root_gives_group = entry.mode & 0o2000 != 0;
        self.directories.push((PathBuf::new(), times(entry)));
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        entries: &mut Entries<R>,
        name: &OsStr,
    ) -> Result<()> {
        let named = |error: io::Error| named(error, &entry.path);
        self.account(entry).map_err(named)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else gets at it before it has its owner.
        let own = self.owner_is_given(entry);
        let mode = if own { entry.mode & 0o777 } else { 0o600 };
        let file = self
            .replace(name, |parent, name| {
                fs::openat(parent, name, flags, Mode::from_raw_mode(mode))
            })
            .map_err(named)?;
        match &entry.sparse {
            None => copy(entries, &file, &mut self.stored, self.max_bytes),
            Some(_) => scatter(entry, entries, &file, &mut self.stored, self.max_bytes),
        }
        .map_err(named)?;
        if !own || entry.mode & (SET_ID | 0o1000 | self.born.umask) != 0 {
            set_owner_and_mode(&file, entry).map_err(named)?;
        }
        set_xattrs(&file, entry).map_err(named)?;
        fs::futimens(&file, &times(entry)).map_err(|errno| named(errno.into()))?;
        Ok(())
    }

    /// Counts a file, and refuses at once what the disk has no room for.
    fn account(&mut self, entry: &Entry) -> io::Result<()> {
        self.unpacked.size = self.unpacked.size.saturating_add(entry.size);
        if entry.sparse.is_none() && entry.size >= LARGE {
            if entry.size > self.max_bytes.saturating_sub(self.stored) {
                return Err(too_large(self.max_bytes));
            }
            let disk = fs::fstatvfs(&self.root)?;
            if entry.size > disk.f_bavail.saturating_mul(disk.f_frsize) {
                return Err(Errno::NOSPC.into());
            }
        }
        Ok(())
    }

    /// Whether a new file in this directory has the entry's owner from the beginning.
    fn owner_is_given(&self, entry: &Entry) -> bool {
        entry.uid == self.born.uid && entry.gid == self.born.gid && !self.parent_gives_group()
    }

    fn symlink(&mut self, entry: &Entry, name: &OsStr) -> io::Result<()> {
        let link = OsStr::from_bytes(&entry.link);
        self.replace(name, |parent, name| fs::symlinkat(link, parent, name))?;
        self.own_without_following(name, entry)
    }

    fn hardlink(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<()> {
        let named = |error: io::Error| named(error, &entry.path);
        let target = clean(&entry.link)?;
        let Some(target_name) = target.file_name() else {
            let path = shown(&entry.path);
            return Err(Error::Archive(format!("{path} links to nothing")));
        };
        let folder = target.parent().unwrap_or(Path::new(""));
        let directory = if folder.as_os_str().is_empty() {
            self.root.try_clone()?
        } else {
            self.open_directory(folder)
                .map_err(|errno| named(errno.into()))?
        };
        if target == path && fs::statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        {
            return Ok(());
        }
        self.replace(name, |parent, name| {
            fs::linkat(&directory, target_name, parent, name, AtFlags::empty())
        })
        .map_err(named)
    }

    fn node(&mut self, entry: &Entry, name: &OsStr) -> io::Result<()> {
        let device = fs::makedev(entry.device.0, entry.device.1);
        let file_type = match entry.kind {
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let mode = Mode::from_raw_mode(entry.mode);
        let born = Mode::from_raw_mode(entry.mode & 0o600);
        self.replace(name, |parent, name| {
            fs::mknodat(parent, name, file_type, born, device)?;
            // The name is new and nobody else's: there is nothing to follow.
            fs::chownat(
                parent,
                name,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            fs::chmodat(parent, name, mode, AtFlags::empty())?;
            fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn own_without_following(&self, name: &OsStr, entry: &Entry) -> io::Result<()> {
        if !self.owner_is_given(entry) {
            fs::chownat(
                self.parent_fd(),
                name,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(fs::utimensat(
            self.parent_fd(),
            name,
            &times(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn finish(self) -> Result<Unpacked> {
        for (path, times) in self.directories.iter().rev() {
            if path.as_os_str().is_empty() {
                fs::futimens(&self.root, times).map_err(io::Error::from)?;
            } else if let Ok(fd) = self.open_directory(path) {
                // A later entry may have replaced the directory.
                fs::futimens(&fd, times).map_err(io::Error::from)?;
            }
        }
        Ok(self.unpacked)
    }
}

fn gives_group(directory: &OwnedFd) -> io::Result<bool> {
    Ok(fs::fstat(directory)?.st_mode & 0o2000 != 0)
}

fn open_child(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// Of this thread; reading it by `umask` would change it for a moment.
fn umask() -> u32 {
    let status = fs_err::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Where it is not known, every mode is set.
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok())
        .unwrap_or(0o777)
}

fn make_opaque(directory: &OwnedFd) -> rustix::io::Result<()> {
    fs::fsetxattr(directory, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: i64::from(entry.mtime.1) as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Owner first: changing it clears the set-id bits.
fn set_owner_and_mode(fd: &impl AsFd, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fs::fchown(fd, Some(uid), Some(gid))?;
    Ok(fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?)
}

/// Writes an entry's content from the stream's own buffer.
fn copy<R: BufRead>(
    entries: &mut Entries<R>,
    file: &OwnedFd,
    stored: &mut u64,
    max_bytes: u64,
) -> io::Result<()> {
    loop {
        let part = entries.content()?;
        if part.is_empty() {
            return Ok(());
        }
        *stored += part.len() as u64;
        if *stored > max_bytes {
            return Err(too_large(max_bytes));
        }
        let n = rustix::io::write(file, part)?;
        *stored -= (part.len() - n) as u64;
        entries.consume(n);
    }
}

/// The same for a file with holes.
fn scatter<R: BufRead>(
    entry: &Entry,
    entries: &mut Entries<R>,
    file: &OwnedFd,
    stored: &mut u64,
    max_bytes: u64,
) -> io::Result<()> {
    for fragment in entry.sparse.iter().flatten() {
        let (mut at, end) = (fragment.offset, fragment.offset + fragment.length);
        while at < end {
            let part = entries.content()?;
            let most = usize::try_from(end - at).unwrap_or(part.len());
            let part = &part[..part.len().min(most)];
            *stored += part.len() as u64;
            if *stored > max_bytes {
                return Err(too_large(max_bytes));
            }
            let n = rustix::io::pwrite(file, part, at)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *stored -= (part.len() - n) as u64;
            entries.consume(n);
            at += n as u64;
        }
    }
    Ok(fs::ftruncate(file, entry.size)?)
}

fn set_xattrs(fd: &impl AsFd, entry: &Entry) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        // overlayfs would obey its own attributes: an archive must not steer it.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match fs::fsetxattr(
            fd,
            OsStr::from_bytes(name),
            value.as_slice(),
            XattrFlags::empty(),
        ) {
            // What the file system or the kind of file does not have is left out, as in Docker.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The path without `/`, `.` and a leading `./`; `..` is refused.
fn clean(path: &[u8]) -> Result<PathBuf> {
    let mut clean = OsString::with_capacity(path.len()).into_vec();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(part) => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part.as_bytes());
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let path = shown(path);
                return Err(Error::Archive(format!("{path} leads out of the layer")));
            }
        }
    }
    Ok(OsString::from_vec(clean).into())
}

fn remove_all(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_dir_all_at(parent, name),
        other => Ok(other?),
    }
}

fn no_directory(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS => {
            named(errno.into(), path.as_os_str().as_bytes())
        }
        _ => Error::Archive(format!(
            "{} is not a directory of the layer: {errno}",
            shown(path.as_os_str().as_bytes())
        )),
    }
}

fn too_large(max_bytes: u64) -> io::Error {
    super::entries::broken(&format!("more than {max_bytes} bytes of content"))
}

/// What the archive is to blame for is a client's error; what the disk is to blame for is ours.
fn broken(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::Io(error),
        None => Error::Archive(format!("broken archive: {error}")),
    }
}

fn named(error: io::Error, path: &[u8]) -> Error {
    let path = shown(path);
    match error.raw_os_error() {
        Some(code) => {
            let text = io::Error::from_raw_os_error(code).to_string();
            // In the words of the C library, as other engines have it.
            let text = text.split(" (os error").next().unwrap_or_default();
            let text = text.to_ascii_lowercase();
            Error::Io(io::Error::new(error.kind(), format!("{path}: {text}")))
        }
        None => Error::Archive(format!("{path}: {error}")),
    }
}

fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("{:?}", text.chars().take(200).collect::<String>())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
