//! The files that came with a build, and which of them a COPY or ADD means.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use super::mode::Mode;
use super::pattern::{Excluded, glob};
use super::tree::{Attributes, Contents, Tree};
use crate::container::error::{Error, Result};
use crate::container::rooted;

/// Of a Dockerfile, a list of what is ignored, or one of users, in bytes.
const LARGEST_TEXT: u64 = 16 << 20;

/// A tree that sources are taken from: the context, or another stage.
pub struct Source {
    root: OwnedFd,
    /// Digests of files that were taken while they arrived.
    contents: Contents,
}

/// How copied files are to look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// User and group; without, as in the source.
    pub owner: Option<(u32, u32)>,
    /// Permission bits, if given.
    pub mode: Option<Mode>,
}

/// One file or folder of the source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// Relative to the source's root.
    pub path: PathBuf,
    /// Whether it is a folder, whose contents are meant.
    pub folder: bool,
    /// The folders that `--parents` keeps, with the last name.
    pub kept: PathBuf,
}

impl Source {
    /// A tree below a folder of the host.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            root: rooted::open_root(path)?,
            contents: Contents::new(),
        })
    }

    /// With what is known of its files' contents, which do not change any more.
    pub fn knowing(mut self, contents: Contents) -> Self {
        self.contents = contents;
        self
    }

    /// A text file of it, of up to 16 MiB.
    pub fn read(&self, path: &str) -> io::Result<String> {
        let text = rooted::read(self.root.as_fd(), Path::new(path), LARGEST_TEXT)?;
        String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Where something really lies on the host, links followed inside the tree.
    pub fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let fd = rooted::open(self.root.as_fd(), path, OFlag::O_PATH)?;
        std::fs::read_link(rooted::path_of(&fd))
    }

    /// Removes what the patterns name, but not what the instruction file needs.
    pub fn remove(&self, excluded: &Excluded) -> io::Result<()> {
        if excluded.is_empty() {
            return Ok(());
        }
        self.remove_below(&rooted::path_of(&self.root), Path::new(""), excluded)
    }

    fn remove_below(&self, at: &Path, inside: &Path, excluded: &Excluded) -> io::Result<()> {
        for name in sorted(at)? {
            let (path, inside) = (at.join(&name), inside.join(&name));
            let folder = std::fs::symlink_metadata(&path)?.is_dir();
            let named = excluded.names(&inside);
            if folder && (!named || excluded.takes_back()) {
                self.remove_below(&path, &inside, excluded)?;
                if named {
                    // Not empty: something in it was taken back.
                    std::fs::remove_dir(&path).ok();
                }
            } else if named && folder {
                crate::container::removal::remove_dir_all(&path)?;
            } else if named {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// What the patterns mean; a pattern that means nothing is an error.
    pub fn find(&self, patterns: &[String]) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for pattern in patterns {
            let parts: Vec<&str> = pattern
                .split('/')
                .filter(|part| !matches!(*part, "" | "."))
                .collect();
            let skipped = pattern.split_once("/./").map_or(0, |(before, _)| {
                before
                    .split('/')
                    .filter(|part| !matches!(*part, "" | "."))
                    .count()
            });
            let mut paths = BTreeSet::new();
            self.matching(pattern, Path::new(""), &parts, &mut paths)?;
            if paths.is_empty() && pattern.contains(['*', '?', '[']) {
                return Err(Error::invalid("no source files were specified"));
            }
            if paths.is_empty() {
                return Err(Error::invalid(format!(
                    "file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
                    pattern.trim_start_matches('/')
                )));
            }
            for path in paths {
                let fd = rooted::open(self.root.as_fd(), &path, OFlag::O_PATH)
                    .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
                let folder = std::fs::metadata(rooted::path_of(&fd))?.is_dir();
                let kept = path.components().skip(skipped).collect();
                found.push(Found { path, folder, kept });
            }
        }
        Ok(found)
    }

    fn matching(
        &self,
        whole: &str,
        at: &Path,
        parts: &[&str],
        paths: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else {
            paths.insert(at.to_owned());
            return Ok(());
        };
        if *first == ".." {
            let mut at = at.to_owned();
            if !at.pop() {
                return Err(Error::invalid(format!(
                    "forbidden path outside the build context: {} ()",
                    whole.trim_start_matches('/')
                )));
            }
            return self.matching(whole, &at, rest, paths);
        }
        if !first.contains(['*', '?', '[', '\\']) {
            let next = at.join(first);
            return match rooted::open(self.root.as_fd(), &next, OFlag::O_PATH) {
                Ok(_) => self.matching(whole, &next, rest, paths),
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) =>
                {
                    Ok(())
                }
                Err(error) => Err(error.into()),
            };
        }
        let Ok(fd) = rooted::open(self.root.as_fd(), at, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
        else {
            return Ok(());
        };
        for entry in std::fs::read_dir(rooted::path_of(&fd))? {
            let name = entry?.file_name();
            if glob(first.as_bytes(), name.as_bytes()) {
                self.matching(whole, &at.join(&name), rest, paths)?;
            }
        }
        Ok(())
    }

    /// A digest of names, kinds, modes and contents; times do not count.
    pub fn digest(&self, item: &Found, excluded: &Excluded) -> Result<String> {
        let mut hash = Sha256::new();
        let fd = rooted::open(
            self.root.as_fd(),
            &item.path,
            OFlag::O_RDONLY | OFlag::O_NONBLOCK,
        )?;
        let digesting = Digesting {
            excluded,
            contents: &self.contents,
        };
        digesting.entry(&rooted::path_of(&fd), Path::new(""), true, &mut hash)?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Copies one found thing to `to`; of a folder what is in it.
    pub fn copy(
        &self,
        item: &Found,
        to: &Path,
        look: &Look,
        excluded: &Excluded,
        tree: &mut Tree,
    ) -> Result<()> {
        // A link that a COPY names is followed, inside the tree.
        let fd = rooted::open(
            self.root.as_fd(),
            &item.path,
            OFlag::O_RDONLY | OFlag::O_NONBLOCK,
        )?;
        let at = rooted::path_of(&fd);
        let mut copying = Copying {
            look,
            excluded,
            tree,
            links: HashMap::new(),
        };
        if item.folder {
            copying.below(&at, to, Path::new(""))
        } else {
            copying.one(&at, to, Path::new(""), std::fs::metadata(&at)?)
        }
    }

    /// Opens one found file.
    pub fn open_file(&self, item: &Found) -> Result<std::fs::File> {
        Ok(rooted::open_file(self.root.as_fd(), &item.path)?)
    }
}

struct Copying<'a> {
    look: &'a Look,
    excluded: &'a Excluded,
    tree: &'a mut Tree,
    /// First new names of files that have several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copying<'_> {
    fn below(&mut self, at: &Path, to: &Path, inside: &Path) -> Result<()> {
        check_depth(inside)?;
        for name in sorted(at)? {
            let inside = inside.join(&name);
            if self.excluded.names(&inside) && !self.excluded.takes_back() {
                continue;
            }
            let path = at.join(&name);
            let metadata = std::fs::symlink_metadata(&path)?;
            if self.excluded.names(&inside) && !metadata.is_dir() {
                continue;
            }
            self.one(&path, &to.join(&name), &inside, metadata)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        at: &Path,
        to: &Path,
        inside: &Path,
        metadata: std::fs::Metadata,
    ) -> Result<()> {
        let kind = metadata.file_type();
        let before = metadata.mode() & 0o7777;
        let attributes = Attributes {
            mode: match &self.look.mode {
                Some(mode) => mode.of(before, kind.is_dir()),
                None => before,
            },
            owner: self.look.owner.unwrap_or((metadata.uid(), metadata.gid())),
            time: (metadata.mtime(), metadata.mtime_nsec()),
        };
        if kind.is_dir() {
            // A folder that is left out stays out, unless something in it was taken back.
            if !self.excluded.names(inside) {
                self.tree.folder(to, &attributes)?;
            }
            return self.below(at, to, inside);
        }
        if kind.is_symlink() {
            return Ok(self
                .tree
                .symlink(to, &std::fs::read_link(at)?, &attributes)?);
        }
        if kind.is_file() {
            if metadata.nlink() > 1 {
                let key = (metadata.dev(), metadata.ino());
                if let Some(first) = self.links.get(&key) {
                    return Ok(self.tree.hardlink(to, first)?);
                }
                self.links.insert(key, to.to_owned());
            }
            return Ok(self.tree.copied(to, &mut open_itself(at)?, &attributes)?);
        }
        if kind.is_socket() {
            return Ok(());
        }
        let kind = rustix::fs::FileType::from_raw_mode(metadata.mode());
        Ok(self.tree.node(to, kind, metadata.rdev(), &attributes)?)
    }
}

/// A path that names an open file is followed; one with a name of its own is not.
fn open_itself(at: &Path) -> io::Result<std::fs::File> {
    let named = at.parent() != Some(Path::new("/proc/self/fd"));
    let flags = libc::O_NONBLOCK | if named { libc::O_NOFOLLOW } else { 0 };
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(at)
}

struct Digesting<'a> {
    excluded: &'a Excluded,
    contents: &'a Contents,
}

impl Digesting<'_> {
    fn entry(&self, at: &Path, inside: &Path, follow: bool, hash: &mut Sha256) -> Result<()> {
        let metadata = match follow {
            true => std::fs::metadata(at)?,
            false => std::fs::symlink_metadata(at)?,
        };
        hash.update(inside.as_os_str().as_bytes());
        hash.update([0]);
        for number in [metadata.mode(), metadata.uid(), metadata.gid()] {
            hash.update(number.to_le_bytes());
        }
        let excluded = self.excluded;
        if metadata.is_dir() {
            check_depth(inside)?;
            for name in sorted(at)? {
                let inside = inside.join(&name);
                if excluded.is_empty() || excluded.takes_back() || !excluded.names(&inside) {
                    self.entry(&at.join(&name), &inside, false, hash)?;
                }
            }
        } else if metadata.is_symlink() {
            hash.update(std::fs::read_link(at)?.as_os_str().as_bytes());
        } else if metadata.is_file() {
            match self.contents.get(&metadata.ino()) {
                Some(digest) => hash.update(digest),
                None => hash.update(content_of(at)?),
            }
        }
        Ok(())
    }
}

fn content_of(at: &Path) -> io::Result<[u8; 32]> {
    let mut file = open_itself(at)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&buffer[..length]),
        }
    }
}

fn check_depth(inside: &Path) -> Result<()> {
    if inside.components().count() > rooted::DEEPEST {
        return Err(Error::invalid(format!(
            "files lie more than {} folders deep",
            rooted::DEEPEST
        )));
    }
    Ok(())
}

fn sorted(at: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = std::fs::read_dir(at)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_files_and_never_leave() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.txt", "b.txt", "sub/c.txt"] {
            fs_err::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs_err::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        let source = Source::open(dir.path()).unwrap();
        let names = |patterns: &[&str]| -> Vec<String> {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            source
                .find(&patterns)
                .unwrap()
                .iter()
                .map(|f| f.path.display().to_string())
                .collect()
        };
        assert_eq!(names(&["*.txt"]), ["a.txt", "b.txt"]);
        assert_eq!(names(&["./sub", "[a]*"]), ["sub", "a.txt"]);
        assert_eq!(names(&["*/c.txt", "sub/../b.txt"]), ["sub/c.txt", "b.txt"]);
        for bad in ["../x", "none", "out/passwd", "*.no"] {
            assert!(source.find(&[bad.to_owned()]).is_err(), "{bad}");
        }
        let kept = source.find(&["sub/./c.txt".to_owned()]).unwrap();
        assert_eq!(kept[0].kept, Path::new("c.txt"));
        source
            .remove(&Excluded::parse(["*.txt", "!b.txt", "sub"]))
            .unwrap();
        assert_eq!(names(&["[a-n]*"]), ["b.txt"]);
        assert!(
            source.find(&["*".to_owned()]).is_err(),
            "a link that leads nowhere"
        );
    }

    #[test]
    fn the_digest_follows_the_content() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("a"), "1").unwrap();
        let source = Source::open(dir.path()).unwrap();
        let digest = || {
            let found = source.find(&[".".to_owned()]).unwrap();
            source.digest(&found[0], &Excluded::default()).unwrap()
        };
        let first = digest();
        assert_eq!(first, digest());
        // As it arrives in an archive: the same digest, known already.
        let mut tree = Tree::open(dir.path(), (0, 0)).unwrap().digesting();
        let metadata = fs_err::metadata(dir.path().join("a")).unwrap();
        let look = Attributes {
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            ..Attributes::default()
        };
        tree.file(Path::new("a"), &mut &b"1"[..], &look).unwrap();
        let known = Source::open(dir.path())
            .unwrap()
            .knowing(tree.finish().unwrap());
        assert_eq!(known.contents.len(), 1);
        let found = known.find(&[".".to_owned()]).unwrap();
        assert_eq!(
            first,
            known.digest(&found[0], &Excluded::default()).unwrap()
        );
        fs_err::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(first, digest());
    }
}
