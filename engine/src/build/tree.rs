//! Writing files below a folder: COPY, ADD and the unpacked context. Links in the tree lead nowhere outside of it.
//!
//! Deliberately absent: whiteouts, which mean nothing in archives that users make.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Owner, mode and time of a new file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds since 1970.
    pub time: (i64, i64),
}

impl Attributes {
    fn times(&self) -> Timestamps {
        let time = Timespec {
            tv_sec: self.time.0,
            tv_nsec: self.time.1,
        };
        Timestamps {
            last_access: time,
            last_modification: time,
        }
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        (
            Some(Uid::from_raw(self.owner.0)),
            Some(Gid::from_raw(self.owner.1)),
        )
    }

    /// Owner first: changing it clears the set-id bits.
    fn apply(&self, fd: impl AsFd) -> io::Result<()> {
        let (uid, gid) = self.ids();
        fs::fchown(&fd, uid, gid)?;
        fs::fchmod(&fd, Mode::from_raw_mode(self.mode & 0o7777))?;
        Ok(())
    }
}

/// A tree that is written to.
pub struct Tree {
    root: OwnedFd,
    parent: Option<(PathBuf, OwnedFd)>,
    /// Owner of folders that are made on the way.
    owner: (u32, u32),
    /// Times of folders, set at the end, when nothing is put into them any more.
    folders: Vec<(PathBuf, Timestamps)>,
    /// What files have in them, if that is to be known.
    contents: Option<Contents>,
    /// For contents on their way.
    buffer: Vec<u8>,
}

/// Bytes of a file that are read at once.
const BUFFER: usize = 1 << 17;

/// Links on one way, as many as Linux follows.
const MAX_LINKS: u32 = 40;

/// SHA-256 of files by inode number, as far as it is known.
pub type Contents = HashMap<u64, [u8; 32]>;

impl Tree {
    /// Below `root`; folders on the way to a file belong to `owner`.
    pub fn open(root: &Path, owner: (u32, u32)) -> io::Result<Self> {
        Ok(Self {
            root: crate::container::rooted::open_root(root)?,
            parent: None,
            owner,
            folders: Vec::new(),
            contents: None,
            buffer: Vec::new(),
        })
    }

    /// Digests what is written by [`Tree::file`] from now on, while it passes.
    pub fn digesting(mut self) -> Self {
        self.contents = Some(Contents::new());
        self
    }

    /// Whether the path leads to a folder, through links, too.
    pub fn is_folder(&self, path: &Path) -> bool {
        self.folder_at(&plain(path)).is_ok()
    }

    /// Whether the path leads to anything, through links, too; one that leads nowhere yet does not.
    pub fn exists(&self, path: &Path) -> bool {
        let path = plain(path);
        path.as_os_str().is_empty() || self.open_at(&path, OFlags::PATH).is_ok()
    }

    /// Makes a folder with those that it lies in.
    pub fn make_folders(&mut self, path: &Path) -> io::Result<()> {
        self.enter(&plain(path))
    }

    /// A folder; one that is there keeps what is in it.
    pub fn folder(&mut self, path: &Path, look: &Attributes) -> io::Result<()> {
        let path = plain(path);
        let Some(name) = path.file_name() else {
            return look.apply(&self.root);
        };
        self.enter_parent(&path)?;
        let mode = Mode::from_raw_mode(0o755);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let open = |parent: BorrowedFd<'_>| fs::openat(parent, name, flags, Mode::empty());
        let fd = match fs::mkdirat(self.parent_fd(), name, mode) {
            Ok(()) => open(self.parent_fd())?,
            Err(Errno::EXIST) => match open(self.parent_fd()) {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    fs::unlinkat(self.parent_fd(), name, AtFlags::empty())?;
                    fs::mkdirat(self.parent_fd(), name, mode)?;
                    open(self.parent_fd())?
                }
                other => other?,
            },
            Err(errno) => return Err(errno.into()),
        };
        look.apply(&fd)?;
        self.folders.push((path, look.times()));
        Ok(())
    }

    /// A file with a content.
    pub fn file(
        &mut self,
        path: &Path,
        content: &mut dyn Read,
        look: &Attributes,
    ) -> io::Result<()> {
        let mut file = self.new_file(path)?;
        let mut hash = self.contents.is_some().then(Sha256::new);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        let done = loop {
            match content.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    if let Some(hash) = &mut hash {
                        hash.update(&buffer[..length]);
                    }
                    if let Err(error) = file.write_all(&buffer[..length]) {
                        break Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        done?;
        if let (Some(contents), Some(hash)) = (&mut self.contents, hash) {
            contents.insert(fs::fstat(&file)?.st_ino, hash.finalize().into());
        }
        self.dress(&file, look)
    }

    /// A file from another one; the kernel copies where it can.
    pub fn copied(
        &mut self,
        path: &Path,
        content: &mut std::fs::File,
        look: &Attributes,
    ) -> io::Result<()> {
        let mut file = self.new_file(path)?;
        io::copy(content, &mut file)?;
        let mut capability = [0_u8; 64];
        if let Ok(length) = fs::fgetxattr(&*content, "security.capability", &mut capability) {
            self.dress(&file, look)?;
            let value = &capability[..length];
            fs::fsetxattr(&file, "security.capability", value, fs::XattrFlags::empty())?;
            return Ok(());
        }
        self.dress(&file, look)
    }

    fn dress(&self, file: &std::fs::File, look: &Attributes) -> io::Result<()> {
        look.apply(file)?;
        fs::futimens(file, &look.times())?;
        Ok(())
    }

    fn new_file(&mut self, path: &Path) -> io::Result<std::fs::File> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.make(path, |parent, name| {
            fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })?;
        Ok(made.into())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &Path, to: &Path, look: &Attributes) -> io::Result<()> {
        self.make(path, |parent, name| fs::symlinkat(to, parent, name))?;
        self.dress_link(path, look)
    }

    /// Another name of a file of this tree.
    pub fn hardlink(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        let to = plain(to);
        let folder = self.folder_at(to.parent().unwrap_or(Path::new("")))?;
        let target = to.file_name().unwrap_or_default().to_owned();
        self.make(path, |parent, name| {
            fs::linkat(&folder, &target, parent, name, AtFlags::empty())
        })
    }

    /// A device or pipe.
    pub fn node(
        &mut self,
        path: &Path,
        kind: FileType,
        device: u64,
        look: &Attributes,
    ) -> io::Result<()> {
        let mode = Mode::from_raw_mode(look.mode & 0o7777);
        self.make(path, |parent, name| {
            fs::mknodat(parent, name, kind, mode, device)
        })?;
        let path = plain(path);
        let name = path.file_name().unwrap_or_default();
        self.dress_link(&path, look)?;
        fs::chmodat(self.parent_fd(), name, mode, AtFlags::empty())?;
        Ok(())
    }

    fn dress_link(&self, path: &Path, look: &Attributes) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let (uid, gid) = look.ids();
        fs::chownat(self.parent_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let times = look.times();
        Ok(fs::utimensat(
            self.parent_fd(),
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Sets what had to wait; what is known of contents.
    pub fn finish(self) -> io::Result<Contents> {
        for (path, times) in self.folders.iter().rev() {
            // A later file may have taken the folder's place.
            if let Ok(fd) = self.folder_at(path) {
                fs::futimens(&fd, times)?;
            }
        }
        Ok(self.contents.unwrap_or_default())
    }

    fn make<T>(
        &mut self,
        path: &Path,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let path = plain(path);
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        self.enter_parent(&path)?;
        match make(self.parent_fd(), name) {
            Err(Errno::EXIST) => {
                match fs::unlinkat(self.parent_fd(), name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => {
                        return Err(io::Error::other(format!(
                            "cannot overwrite directory {} with non-directory",
                            path.display()
                        )));
                    }
                    other => other?,
                }
                Ok(make(self.parent_fd(), name)?)
            }
            other => Ok(other?),
        }
    }

    fn parent_fd(&self) -> BorrowedFd<'_> {
        self.parent
            .as_ref()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn enter_parent(&mut self, path: &Path) -> io::Result<()> {
        self.enter(path.parent().unwrap_or(Path::new("")))
    }

    /// Makes `path` the folder that files are made in.
    fn enter(&mut self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            self.parent = None;
            return Ok(());
        }
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let fd = match self.folder_at(path) {
            Err(Errno::NOENT) => self.made(path)?,
            other => other?,
        };
        self.parent = Some((path.to_owned(), fd));
        Ok(())
    }

    /// Makes what is missing on the way, also where a link leads to what is not there: from the root on again, never above it.
    fn made(&self, path: &Path) -> io::Result<OwnedFd> {
        // Without links, so that `..` is the folder above indeed.
        let mut so_far = PathBuf::new();
        let mut fd = self.root.try_clone()?;
        let mut left: Vec<OsString> = parts_reversed(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                so_far.pop();
                fd = self.folder_at(&so_far)?;
                continue;
            }
            match fs::statat(&fd, &part, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let to = fs::readlinkat(&fd, &part, Vec::new())?;
                    let to = Path::new(OsStr::from_bytes(to.as_bytes()));
                    if to.is_absolute() {
                        so_far.clear();
                        fd = self.root.try_clone()?;
                    }
                    left.extend(parts_reversed(to));
                    continue;
                }
                Ok(_) => {}
                Err(Errno::NOENT) => self.make_folder(&fd, &part)?,
                Err(errno) => return Err(errno.into()),
            }
            so_far.push(part);
            fd = self.folder_at(&so_far)?;
        }
        Ok(fd)
    }

    fn make_folder(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let made = fs::openat(parent, name, flags, Mode::empty())?;
        let look = Attributes {
            mode: 0o755,
            owner: self.owner,
            ..Attributes::default()
        };
        look.apply(&made)
    }

    fn folder_at(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        self.open_at(path, OFlags::DIRECTORY | OFlags::RDONLY)
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        fs::openat2(
            &self.root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }
}

/// Names and `..` of a path, the last one first.
fn parts_reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// The path without `/` and `.`; `..` takes the folder before it away, as text.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_and_kinds_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs_err::create_dir_all(root.join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("/", root.join("out")).unwrap();
        let look = Attributes {
            mode: 0o4755,
            time: (1000, 0),
            ..Attributes::default()
        };
        let mut tree = Tree::open(&root, (0, 0)).unwrap();
        tree.file(Path::new("/lib/a"), &mut &b"1"[..], &look)
            .unwrap();
        tree.file(Path::new("out/b"), &mut &b"2"[..], &look)
            .unwrap();
        tree.file(Path::new("../../c"), &mut &b"3"[..], &look)
            .unwrap();
        tree.hardlink(Path::new("deep/er/d"), Path::new("usr/lib/a"))
            .unwrap();
        assert!(tree.file(Path::new("usr"), &mut &b""[..], &look).is_err());
        tree.folder(Path::new("usr"), &look).unwrap();
        std::os::unix::fs::symlink("/../../..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("up/new/er", root.join("nowhere")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(!tree.exists(Path::new("nowhere")) && tree.exists(Path::new("usr/lib/a")));
        tree.file(Path::new("nowhere/e"), &mut &b"5"[..], &look)
            .unwrap();
        assert!(root.join("new/er/e").is_file() && !dir.path().join("new").exists());
        assert!(tree.make_folders(Path::new("loop/x")).is_err());
        tree.finish().unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let metadata = |name: &str| fs_err::metadata(root.join(name)).unwrap();
        assert_eq!(metadata("usr/lib/a").mode() & 0o7777, 0o4755);
        assert_eq!(
            (metadata("usr").mtime(), metadata("deep/er/d").nlink()),
            (1000, 2)
        );
        assert!(root.join("b").exists() && root.join("c").exists());
    }
}
