//! A layer archive into a directory, in overlayfs' own form.
//!
//! Every path is resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`), as if the root were `/`:
//! neither `..`, an absolute path nor a symlink that an earlier entry planted leads out of it.
//! OCI whiteouts become what overlayfs reads: a 0/0 character device, and `trusted.overlay.opaque` on a directory.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        XattrFlags,
    },
    io::Errno,
};
use tar::{Entry, EntryType};

use super::{Error, Result};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an archive came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file content.
    pub size: u64,
    /// Entries.
    pub entries: u64,
}

/// Unpacks an uncompressed tar into `root`, which exists. Stops at `max_bytes` of file content.
pub fn unpack(archive: impl Read, root: &Path, max_bytes: u64) -> Result<Unpacked> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = fs::open(root, flags, Mode::empty()).map_err(io::Error::from)?;
    let mut target = Target {
        root,
        parent: None,
        directories: Vec::new(),
        unpacked: Unpacked::default(),
        max_bytes,
    };
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        target.entry(&mut entry)?;
    }
    target.finish()
}

struct Target {
    root: OwnedFd,
    /// The directory of the last entry: archives list a directory's files together.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directory times, set last: every file made inside changes them.
    directories: Vec<(PathBuf, Timestamps)>,
    unpacked: Unpacked,
    max_bytes: u64,
}

impl Target {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = clean(Path::new(OsStr::from_bytes(&entry.path_bytes())), &shown)?;
        self.unpacked.entries += 1;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        self.enter(&parent_path)?;
        let at = |errno: Errno| {
            Error::Io(io::Error::new(
                io::Error::from(errno).kind(),
                format!("{shown}: {errno}"),
            ))
        };
        if name.as_bytes() == OPAQUE {
            return fs::fsetxattr(
                self.parent_fd(),
                "trusted.overlay.opaque",
                b"y",
                XattrFlags::empty(),
            )
            .map_err(at);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            let hidden = OsStr::from_bytes(hidden).to_owned();
            if hidden.is_empty() || hidden == "." || hidden == ".." {
                return Err(Error::Archive(format!("bad whiteout {shown:?}")));
            }
            return self
                .replace(&hidden, |parent, name| {
                    fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                })
                .map_err(at);
        }
        match kind {
            EntryType::Directory => self.directory(entry, &path, &name),
            EntryType::Symlink => self.symlink(entry, &name, &shown),
            EntryType::Link => self.hardlink(entry, &name, &shown),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self
                .node(entry, &name, kind)
                .map_err(|error| named(error, &shown)),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &name, &shown)
            }
            other => Err(Error::Archive(format!(
                "{shown:?} is of the unknown type {:?}",
                char::from(other.as_byte())
            ))),
        }
    }

    fn parent_fd(&self) -> &OwnedFd {
        self.parent.as_ref().map_or(&self.root, |(_, fd)| fd)
    }

    /// Makes `path` (relative, clean) the directory that entries are made in, creating what is missing.
    fn enter(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() {
            self.parent = None;
            return Ok(());
        }
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let fd = match self.open_directory(path) {
            Err(Errno::NOENT) => self.make_directories(path)?,
            other => other.map_err(|errno| {
                Error::Archive(format!("{path:?} is not a directory of the layer: {errno}"))
            })?,
        };
        self.parent = Some((path.to_owned(), fd));
        Ok(())
    }

    fn open_directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn make_directories(&self, path: &Path) -> Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        let mut fd = self.root.try_clone()?;
        for component in path.components() {
            so_far.push(component);
            fd = match self.open_directory(&so_far) {
                Err(Errno::NOENT) => {
                    let made = fs::mkdirat(&fd, component.as_os_str(), Mode::from_raw_mode(0o755));
                    made.or_else(|errno| {
                        if errno == Errno::EXIST {
                            Ok(())
                        } else {
                            Err(errno)
                        }
                    })
                    .map_err(io::Error::from)?;
                    self.open_directory(&so_far)
                }
                other => other,
            }
            .map_err(|errno| {
                Error::Archive(format!(
                    "{so_far:?} is not a directory of the layer: {errno}"
                ))
            })?;
        }
        Ok(fd)
    }

    /// Runs `make`; where something of that name stands in the way, removes it and tries once more.
    fn replace<T>(
        &mut self,
        name: &OsStr,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match make(self.parent_fd(), name) {
            Err(Errno::EXIST) => {
                remove_all(self.parent_fd(), name)?;
                let made = make(self.parent_fd(), name);
                // The cached handle may be of a directory that was just removed.
                self.parent = None;
                made
            }
            other => other,
        }
    }

    fn directory<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        name: &OsStr,
    ) -> Result<()> {
        let meta = Meta::of(entry)?;
        let made = fs::mkdirat(self.parent_fd(), name, Mode::from_raw_mode(0o755));
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match made {
            Ok(()) => fs::openat(self.parent_fd(), name, flags, Mode::empty()),
            Err(Errno::EXIST) => match fs::openat(self.parent_fd(), name, flags, Mode::empty()) {
                Err(Errno::NOTDIR | Errno::LOOP) => self.replace(name, |parent, name| {
                    fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                    fs::openat(parent, name, flags, Mode::empty())
                }),
                other => other,
            },
            Err(errno) => Err(errno),
        }
        .map_err(|errno| named(errno.into(), &path.to_string_lossy()))?;
        meta.apply(&fd)?;
        set_xattrs(&fd, entry)?;
        self.directories.push((path.to_owned(), meta.times()));
        Ok(())
    }

    /// `./` itself: its mode and owner are the root directory's.
    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err(Error::Archive("an entry without a name".into()));
        }
        let meta = Meta::of(entry)?;
        meta.apply(&self.root)?;
        set_xattrs(&self.root, entry)
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, name: &OsStr, shown: &str) -> Result<()> {
        let meta = Meta::of(entry)?;
        self.unpacked.size = self.unpacked.size.saturating_add(entry.size());
        if self.unpacked.size > self.max_bytes {
            return Err(Error::Archive(format!(
                "more than {} bytes of content",
                self.max_bytes
            )));
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(meta.mode & 0o777);
        let fd = self
            .replace(name, |parent, name| fs::openat(parent, name, flags, mode))
            .map_err(|errno| named(errno.into(), shown))?;
        let mut file = std::fs::File::from(fd);
        copy(entry, &mut file).map_err(|error| named(error, shown))?;
        meta.apply(&file)?;
        set_xattrs(&file, entry)?;
        fs::futimens(&file, &meta.times()).map_err(io::Error::from)?;
        Ok(())
    }

    fn symlink<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &OsStr,
        shown: &str,
    ) -> Result<()> {
        let meta = Meta::of(entry)?;
        let link = link_of(entry, shown)?;
        self.replace(name, |parent, name| fs::symlinkat(&link, parent, name))
            .map_err(|errno| named(errno.into(), shown))?;
        self.own_without_following(name, &meta)
            .map_err(|error| named(error, shown))
    }

    fn hardlink<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &OsStr,
        shown: &str,
    ) -> Result<()> {
        let link = link_of(entry, shown)?;
        let target = clean(Path::new(&link), shown)?;
        let target_name = target
            .file_name()
            .ok_or_else(|| Error::Archive(format!("{shown:?} links to nothing")))?
            .to_owned();
        let directory = match target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => self
                .open_directory(parent)
                .map_err(|errno| named(errno.into(), shown))?,
            None => self.root.try_clone()?,
        };
        self.replace(name, |parent, name| {
            fs::linkat(&directory, &target_name, parent, name, AtFlags::empty())
        })
        .map_err(|errno| named(errno.into(), shown))
    }

    fn node<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &OsStr,
        kind: EntryType,
    ) -> io::Result<()> {
        let meta = Meta::of(entry).map_err(io::Error::other)?;
        let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
        let device = fs::makedev(
            number(entry.header().device_major())?,
            number(entry.header().device_minor())?,
        );
        let file_type = match kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        self.replace(name, |parent, name| {
            fs::mknodat(
                parent,
                name,
                file_type,
                Mode::from_raw_mode(meta.mode),
                device,
            )
        })?;
        fs::chmodat(
            self.parent_fd(),
            name,
            Mode::from_raw_mode(meta.mode),
            AtFlags::empty(),
        )?;
        self.own_without_following(name, &meta)
    }

    fn own_without_following(&self, name: &OsStr, meta: &Meta) -> io::Result<()> {
        if meta.uid != 0 || meta.gid != 0 {
            fs::chownat(
                self.parent_fd(),
                name,
                Some(meta.uid()),
                Some(meta.gid()),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(fs::utimensat(
            self.parent_fd(),
            name,
            &meta.times(),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn finish(self) -> Result<Unpacked> {
        for (path, times) in self.directories.iter().rev() {
            // A later entry may have replaced the directory.
            if let Ok(fd) = self.open_directory(path) {
                fs::futimens(&fd, times).map_err(io::Error::from)?;
            }
        }
        Ok(self.unpacked)
    }
}

/// Owner, mode and time of an entry.
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
}

/// A field that was left empty means zero, as everywhere.
fn number(field: &[u8], value: io::Result<u64>) -> Result<u64> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(0);
    }
    value.map_err(broken)
}

impl Meta {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> Result<Self> {
        let header = entry.header();
        let raw = header.as_old();
        let id = |field: &[u8], value| {
            u32::try_from(number(field, value)?)
                .map_err(|_| Error::Archive("an owner over 32 bits".into()))
        };
        let uid = id(&raw.uid, header.uid())?;
        let gid = id(&raw.gid, header.gid())?;
        let mode = header.mode().map_err(broken)? & 0o7777;
        let mtime = i64::try_from(number(&raw.mtime, header.mtime())?).unwrap_or(0);
        Ok(Self {
            mode,
            uid,
            gid,
            mtime,
        })
    }

    fn uid(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    fn gid(&self) -> Gid {
        Gid::from_raw(self.gid)
    }

    fn times(&self) -> Timestamps {
        let time = Timespec {
            tv_sec: self.mtime,
            tv_nsec: 0,
        };
        Timestamps {
            last_access: time,
            last_modification: time,
        }
    }

    /// Owner first: changing it clears the set-id bits.
    fn apply(&self, fd: &impl std::os::fd::AsFd) -> Result<()> {
        if self.uid != 0 || self.gid != 0 {
            fs::fchown(fd, Some(self.uid()), Some(self.gid())).map_err(io::Error::from)?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(io::Error::from)?;
        Ok(())
    }
}

fn copy(entry: &mut impl Read, file: &mut std::fs::File) -> io::Result<()> {
    let mut buffer = [0_u8; 64 * 1024];
    loop {
        match entry.read(&mut buffer)? {
            0 => return Ok(()),
            n => file.write_all(&buffer[..n])?,
        }
    }
}

fn set_xattrs<R: Read>(fd: &impl std::os::fd::AsFd, entry: &mut Entry<'_, R>) -> Result<()> {
    let Some(extensions) = entry.pax_extensions().map_err(broken)? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension.map_err(broken)?;
        let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else {
            continue;
        };
        // overlayfs would obey its own attributes: an archive must not steer it.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            return Err(Error::Archive("an attribute of overlayfs".into()));
        }
        match fs::fsetxattr(
            fd,
            OsStr::from_bytes(name),
            extension.value_bytes(),
            XattrFlags::empty(),
        ) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}

fn link_of<R: Read>(entry: &Entry<'_, R>, shown: &str) -> Result<OsString> {
    let link = entry
        .link_name_bytes()
        .ok_or_else(|| Error::Archive(format!("{shown:?} links to nothing")))?;
    Ok(OsStr::from_bytes(&link).to_owned())
}

/// The path without `/`, `.` and a leading `./`; `..` is refused.
fn clean(path: &Path, shown: &str) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Archive(format!("{shown:?} leads out of the layer")));
            }
        }
    }
    Ok(clean)
}

fn remove_all(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Mode::empty())?;
    for child in fs::Dir::read_from(&directory)? {
        let child = child?;
        let child_name = OsStr::from_bytes(child.file_name().to_bytes());
        if child_name != "." && child_name != ".." {
            remove_all(&directory, child_name)?;
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn broken(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::Io(error),
        None => Error::Archive(format!("broken archive: {error}")),
    }
}

fn named(error: io::Error, path: &str) -> Error {
    Error::Io(io::Error::new(error.kind(), format!("{path}: {error}")))
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
