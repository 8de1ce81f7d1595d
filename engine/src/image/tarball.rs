//! A layer's folder as an archive: OCI whiteouts out of overlayfs' own, always in the same order.
//!
//! The same files give the same bytes, so a layer that was made here has one digest wherever it is written again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::container::rooted::DEEPEST;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of file content.
    pub size: u64,
    /// Entries.
    pub entries: u64,
}

/// Whether the folder hides what lower layers have there.
pub(super) fn is_opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            rustix::fs::lgetxattr(path, *name, &mut value)
                .is_ok_and(|n| value.get(..n) == Some(b"y"))
        })
}

/// Whether it is overlayfs' mark of a file removed.
pub(super) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Writes the folder of a layer as an archive. Blocking.
pub fn write_layer(root: &Path, out: impl Write) -> io::Result<Written> {
    write_chosen(root, None, out)
}

/// [`write_layer`], of these paths only.
pub(super) fn write_chosen(
    root: &Path,
    chosen: Option<&BTreeSet<PathBuf>>,
    out: impl Write,
) -> io::Result<Written> {
    let mut writer = LayerWriter {
        tar: tar::Builder::new(out),
        chosen,
        links: BTreeMap::new(),
        written: Written::default(),
    };
    writer.tar.follow_symlinks(false);
    writer.folder(root, Path::new(""))?;
    writer.tar.into_inner()?.flush()?;
    Ok(writer.written)
}

struct LayerWriter<'a, W: Write> {
    tar: tar::Builder<W>,
    chosen: Option<&'a BTreeSet<PathBuf>>,
    /// First names of files that have several, by device and inode.
    links: BTreeMap<(u64, u64), PathBuf>,
    written: Written,
}

impl<W: Write> LayerWriter<'_, W> {
    fn folder(&mut self, root: &Path, inside: &Path) -> io::Result<()> {
        if inside.components().count() > DEEPEST {
            return Err(io::Error::other(format!(
                "files lie more than {DEEPEST} folders deep"
            )));
        }
        let mut names: Vec<OsString> = fs_err::read_dir(root.join(inside))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort_unstable();
        for name in names {
            let path = inside.join(name);
            if self.chosen.is_none_or(|chosen| chosen.contains(&path)) {
                self.entry(root, &path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, root: &Path, inside: &Path) -> io::Result<()> {
        let path = root.join(inside);
        let metadata = fs_err::symlink_metadata(&path)?;
        let kind = metadata.file_type();
        if is_whiteout(&metadata) {
            return self.empty(&beside(inside, b".wh."));
        }
        let mut header = header_of(&metadata);
        if kind.is_socket() {
            // A socket is worth nothing without its process; Docker leaves it out, too.
            return Ok(());
        }
        self.attributes(&path)?;
        self.written.entries += 1;
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            let mut name = inside.as_os_str().as_bytes().to_vec();
            name.push(b'/');
            self.tar.append_data(
                &mut header,
                PathBuf::from(OsString::from_vec(name)),
                io::empty(),
            )?;
            if is_opaque(&path) {
                self.empty(&inside.join(".wh..wh..opq"))?;
            }
            return self.folder(root, inside);
        }
        if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            return self
                .tar
                .append_link(&mut header, inside, fs_err::read_link(&path)?);
        }
        if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() {
            return self.device(&mut header, inside, &metadata);
        }
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&(metadata.dev(), metadata.ino())) {
                header.set_entry_type(tar::EntryType::Link);
                return self.tar.append_link(&mut header, inside, first);
            }
            self.links
                .insert((metadata.dev(), metadata.ino()), inside.to_owned());
        }
        header.set_size(metadata.len());
        self.written.size += metadata.len();
        let file = open_below(root, inside)?;
        // A file that shrinks while it is read must not shift what follows it.
        let padded = io::Read::take(io::Read::chain(file, io::repeat(0)), metadata.len());
        self.tar.append_data(&mut header, inside, padded)
    }

    fn device(
        &mut self,
        header: &mut tar::Header,
        inside: &Path,
        metadata: &Metadata,
    ) -> io::Result<()> {
        let kind = metadata.file_type();
        header.set_entry_type(if kind.is_char_device() {
            tar::EntryType::Char
        } else if kind.is_block_device() {
            tar::EntryType::Block
        } else {
            tar::EntryType::Fifo
        });
        if !kind.is_fifo() {
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        }
        self.tar.append_data(header, inside, io::empty())
    }

    fn empty(&mut self, name: &Path) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(0);
        self.written.entries += 1;
        self.tar.append_data(&mut header, name, io::empty())
    }

    /// Extended attributes that belong to the file and not to overlayfs.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut names = vec![0_u8; 64 * 1024];
        let Ok(length) = rustix::fs::llistxattr(path, &mut names) else {
            return Ok(());
        };
        let mut found = BTreeMap::new();
        for name in names[..length]
            .split(|b| *b == 0)
            .filter(|name| !name.is_empty())
        {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            if !(name.starts_with("user.") || name == "security.capability")
                || name.starts_with("user.overlay.")
            {
                continue;
            }
            let mut value = vec![0_u8; 64 * 1024];
            if let Ok(length) = rustix::fs::lgetxattr(path, name, &mut value) {
                value.truncate(length);
                found.insert(format!("SCHILY.xattr.{name}"), value);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.tar.append_pax_extensions(
            found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice())),
        )
    }
}

/// A file by a path without links: a container that still runs may have put one in a folder's place meanwhile.
fn open_below(root: &Path, inside: &Path) -> io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let root = fs_err::File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(&root, inside, flags, Mode::empty(), resolve)?.into())
}

fn header_of(metadata: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(metadata.mtime().max(0).unsigned_abs());
    header.set_size(0);
    header
}

/// The same folder, with `prefix` before the name.
fn beside(path: &Path, prefix: &[u8]) -> PathBuf {
    let mut name = prefix.to_vec();
    name.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
    path.with_file_name(OsString::from_vec(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn an_archive_unpacks_to_the_same_archive() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = from.path();
        fs_err::create_dir_all(root.join("etc/deep")).unwrap();
        fs_err::write(root.join("etc/a"), "hello").unwrap();
        fs_err::hard_link(root.join("etc/a"), root.join("etc/b")).unwrap();
        fs_err::set_permissions(root.join("etc/a"), PermissionsExt::from_mode(0o4755)).unwrap();
        symlink("../etc/a", root.join("etc/link")).unwrap();
        fs_err::write(root.join("x".repeat(150)), "long").unwrap();
        let device = |name: &str| {
            let file_type = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, root.join(name), file_type, 0o600.into(), 0)
        };
        device("etc/gone").unwrap();
        rustix::fs::lsetxattr(
            root.join("etc/deep"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        rustix::fs::lsetxattr(
            root.join("etc/a"),
            "user.color",
            b"red",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let mut first = Vec::new();
        let written = write_layer(root, &mut first).unwrap();
        assert_eq!(written.size, 9);
        super::super::unpack(&first[..], to.path(), 1 << 20).unwrap();
        assert!(is_opaque(&to.path().join("etc/deep")));
        assert!(is_whiteout(
            &fs_err::symlink_metadata(to.path().join("etc/gone")).unwrap()
        ));
        let mut second = Vec::new();
        write_layer(to.path(), &mut second).unwrap();
        assert!(first == second, "the archive changed on its way");
    }

    #[test]
    fn content_is_never_read_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs_err::create_dir_all(&root).unwrap();
        fs_err::write(dir.path().join("secret"), "host").unwrap();
        fs_err::write(root.join("file"), "own").unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("folder")).unwrap();
        std::os::unix::fs::symlink("file", root.join("link")).unwrap();
        assert!(open_below(&root, Path::new("file")).is_ok());
        assert!(open_below(&root, Path::new("folder/secret")).is_err());
        assert!(open_below(&root, Path::new("link")).is_err());
    }
}
