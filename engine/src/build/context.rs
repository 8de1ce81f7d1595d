//! The files that came with a build, and which of them a COPY or ADD means.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use crate::container::error::{Error, Result};
use crate::container::rooted;

/// A tree that sources are taken from: the context, or another stage.
pub struct Source {
    root: OwnedFd,
}

/// How copied files are to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// User and group; 0 without.
    pub owner: (u32, u32),
    /// Permission bits, if given.
    pub mode: Option<u32>,
    /// Keep the owners of the source.
    pub keep_owner: bool,
}

/// One file or folder of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Relative to the source's root.
    pub path: PathBuf,
    /// Whether it is a folder, whose contents are meant.
    pub folder: bool,
}

impl Source {
    /// A tree below a folder of the host.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            root: rooted::open_root(path)?,
        })
    }

    /// A text file of it.
    pub fn read(&self, path: &str) -> io::Result<String> {
        let fd = rooted::open(self.root.as_fd(), Path::new(path), OFlag::O_RDONLY)?;
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text)?;
        Ok(text)
    }

    /// What the patterns mean; a pattern that means nothing is an error.
    pub fn find(&self, patterns: &[String]) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for pattern in patterns {
            let parts: Vec<&str> = pattern
                .split('/')
                .filter(|part| !matches!(*part, "" | "."))
                .collect();
            let mut paths = BTreeSet::new();
            self.matching(Path::new(""), &parts, &mut paths)?;
            if paths.is_empty() {
                return Err(Error::invalid(format!(
                    "COPY failed: file not found in build context or excluded by .dockerignore: stat {pattern}: file does not exist"
                )));
            }
            for path in paths {
                let fd = rooted::open(self.root.as_fd(), &path, OFlag::O_PATH)?;
                let folder = std::fs::metadata(rooted::path_of(&fd))?.is_dir();
                found.push(Found { path, folder });
            }
        }
        Ok(found)
    }

    fn matching(&self, at: &Path, parts: &[&str], paths: &mut BTreeSet<PathBuf>) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else {
            paths.insert(at.to_owned());
            return Ok(());
        };
        if *first == ".." {
            return Err(Error::invalid(
                "COPY failed: forbidden path outside the build context",
            ));
        }
        if !first.contains(['*', '?', '[']) {
            let next = at.join(first);
            return match rooted::open(self.root.as_fd(), &next, OFlag::O_PATH) {
                Ok(_) => self.matching(&next, rest, paths),
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
            if name
                .to_str()
                .is_some_and(|name| glob(first.as_bytes(), name.as_bytes()))
            {
                self.matching(&at.join(&name), rest, paths)?;
            }
        }
        Ok(())
    }

    /// A digest of names, kinds, modes and contents; times and owners do not count.
    pub fn digest(&self, found: &[Found]) -> Result<String> {
        let mut hash = Sha256::new();
        for item in found {
            self.hash_entry(
                &item.path,
                Path::new(item.path.file_name().unwrap_or_default()),
                &mut hash,
            )?;
        }
        Ok(hex::encode(hash.finalize()))
    }

    fn hash_entry(&self, path: &Path, shown: &Path, hash: &mut Sha256) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let at = self.path(path)?;
        let metadata = std::fs::symlink_metadata(&at.1)?;
        hash.update(shown.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(metadata.mode().to_le_bytes());
        if metadata.is_dir() {
            for name in sorted(&at.1)? {
                self.hash_entry(&path.join(&name), &shown.join(&name), hash)?;
            }
        } else if metadata.is_symlink() {
            hash.update(std::fs::read_link(&at.1)?.as_os_str().as_bytes());
        } else if metadata.is_file() {
            hash.update(metadata.len().to_le_bytes());
            io::copy(&mut std::fs::File::open(&at.1)?, &mut HashWriter(hash))?;
        }
        Ok(())
    }

    /// A path for functions that take one: the parent is opened inside the root, the last name is not followed.
    fn path(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let parent = rooted::open(
            self.root.as_fd(),
            path.parent().unwrap_or(Path::new("")),
            OFlag::O_PATH | OFlag::O_DIRECTORY,
        )?;
        let name = path
            .file_name()
            .map_or_else(|| PathBuf::from("."), PathBuf::from);
        let at = rooted::path_of(&parent).join(name);
        Ok((parent, at))
    }

    /// Writes one found thing to an archive under `name`; a folder's contents directly below it.
    pub fn pack(
        &self,
        item: &Found,
        name: &Path,
        look: Look,
        tar: &mut tar::Builder<impl Write>,
    ) -> Result<()> {
        if item.folder {
            let fd = rooted::open(
                self.root.as_fd(),
                &item.path,
                OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            )?;
            return pack_folder(&rooted::path_of(&fd), name, look, tar);
        }
        // A link that a COPY names is followed, inside the tree.
        let fd = rooted::open(self.root.as_fd(), &item.path, OFlag::O_RDONLY)?;
        pack_entry(&rooted::path_of(&fd), name, look, tar, true)
    }

    /// Opens one found file.
    pub fn open_file(&self, item: &Found) -> Result<std::fs::File> {
        Ok(std::fs::File::from(rooted::open(
            self.root.as_fd(),
            &item.path,
            OFlag::O_RDONLY,
        )?))
    }
}

fn pack_folder(
    at: &Path,
    shown: &Path,
    look: Look,
    tar: &mut tar::Builder<impl Write>,
) -> Result<()> {
    for name in sorted(at)? {
        pack_entry(&at.join(&name), &shown.join(&name), look, tar, false)?;
    }
    Ok(())
}

fn pack_entry(
    at: &Path,
    shown: &Path,
    look: Look,
    tar: &mut tar::Builder<impl Write>,
    follow: bool,
) -> Result<()> {
    let metadata = if follow {
        std::fs::metadata(at)?
    } else {
        std::fs::symlink_metadata(at)?
    };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    if !look.keep_owner {
        header.set_uid(look.owner.0.into());
        header.set_gid(look.owner.1.into());
    }
    header.set_mode(look.mode.unwrap_or(metadata.permissions().mode() & 0o7777));
    if metadata.is_dir() {
        header.set_size(0);
        tar.append_data(&mut header, shown, io::empty())?;
        return pack_folder(at, shown, look, tar);
    }
    if metadata.is_symlink() {
        tar.append_link(&mut header, shown, std::fs::read_link(at)?)?;
    } else if metadata.is_file() {
        tar.append_data(
            &mut header,
            shown,
            std::fs::File::open(at)?.take(metadata.len()),
        )?;
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

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Go's `path.Match`: `*`, `?`, `[a-z]`, `[^a]`, and a backslash before what is meant literally.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((b'[', rest)) => {
            let Some(end) = rest
                .iter()
                .skip(1)
                .position(|b| *b == b']')
                .map(|at| at + 1)
            else {
                return false;
            };
            let Some((first, tail)) = text.split_first() else {
                return false;
            };
            in_class(&rest[..end], *first) && glob(&rest[end + 1..], tail)
        }
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, tail)| glob(rest, tail)),
        Some((b'\\', rest)) => match (rest.split_first(), text.split_first()) {
            (Some((want, rest)), Some((got, tail))) => want == got && glob(rest, tail),
            _ => false,
        },
        Some((want, rest)) => text
            .split_first()
            .is_some_and(|(got, tail)| want == got && glob(rest, tail)),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, class) = match class.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut at = 0;
    let mut inside = false;
    while at < class.len() {
        if at + 2 < class.len() && class[at + 1] == b'-' {
            inside |= (class[at]..=class[at + 2]).contains(&byte);
            at += 3;
        } else {
            inside |= class[at] == byte;
            at += 1;
        }
    }
    inside != negated
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
        assert_eq!(names(&["*/c.txt"]), ["sub/c.txt"]);
        for bad in ["../x", "none", "out/passwd"] {
            assert!(source.find(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_digest_follows_the_content() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("a"), "1").unwrap();
        let source = Source::open(dir.path()).unwrap();
        let digest = || {
            source
                .digest(&source.find(&[".".to_owned()]).unwrap())
                .unwrap()
        };
        let first = digest();
        assert_eq!(first, digest());
        fs_err::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(first, digest());
    }
}
