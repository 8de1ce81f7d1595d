//! Archives in: the context that a client sends, and what ADD unpacks.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use tar::EntryType;

use super::padding::Padded;
use super::tree::{Attributes, Tree};
use crate::container::error::{Error, Result};

/// The largest content that is unpacked, in bytes: no build's context or archive comes near it, a bomb does.
const MAX_BYTES: u64 = 1 << 40;

/// Whose the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says.
    Archived,
    /// Everything belongs to one.
    One((u32, u32)),
}

/// Unpacks an archive below `base` of the tree; blocking.
pub fn extract(tree: &mut Tree, base: &Path, archive: impl Read, owners: Owners) -> Result<()> {
    let archive = Padded::new(archive);
    let added = archive.added();
    let mut archive = tar::Archive::new(archive);
    let mut total = 0_u64;
    for entry in archive.entries()? {
        let mut entry = entry?;
        total = total.saturating_add(entry.size());
        if total > MAX_BYTES {
            return Err(Error::invalid("the archive has too much content"));
        }
        one(tree, base, &mut entry, owners)?;
        if added.get() > 0 {
            return Err(Error::invalid("unexpected EOF"));
        }
    }
    // To its end: a client that is cut off in the middle of it hears of no answer.
    let (mut rest, before) = (archive.into_inner(), added.get());
    io::copy(&mut rest.by_ref().take(512), &mut io::sink())?;
    if added.get() > before {
        // The second of the two empty blocks at its end is not whole.
        return Err(Error::invalid("unexpected EOF"));
    }
    io::copy(&mut rest, &mut io::sink())?;
    Ok(())
}

fn one(
    tree: &mut Tree,
    base: &Path,
    entry: &mut tar::Entry<'_, impl Read>,
    owners: Owners,
) -> Result<()> {
    let name = inside(base, &entry.path()?)?;
    let path = base.join(&name);
    let header = entry.header();
    let look = Attributes {
        mode: header.mode()?,
        owner: match owners {
            Owners::One(owner) => owner,
            Owners::Archived => (header.uid()? as u32, header.gid()? as u32),
        },
        time: (header.mtime().unwrap_or(0) as i64, 0),
    };
    let link = || -> Result<PathBuf> {
        let link = entry.link_name()?;
        link.map(|link| link.into_owned())
            .ok_or_else(|| Error::invalid(format!("{} links to nothing", name.display())))
    };
    let kind = header.entry_type();
    let done = match kind {
        EntryType::Directory if name.as_os_str().is_empty() => Ok(()),
        EntryType::Directory => tree.folder(&path, &look),
        EntryType::Symlink => tree.symlink(&path, &link()?, &look),
        EntryType::Link => tree.hardlink(&path, &base.join(inside(base, &link()?)?)),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            tree.file(&path, entry, &look)
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
            let device = rustix::fs::makedev(
                number(header.device_major())?,
                number(header.device_minor())?,
            );
            let (kind, device) = match kind {
                EntryType::Char => (FileType::CharacterDevice, device),
                EntryType::Block => (FileType::BlockDevice, device),
                _ => (FileType::Fifo, 0),
            };
            // Number 0:0 means to overlayfs that the file is removed.
            if kind == FileType::CharacterDevice && device == 0 {
                return Err(Error::invalid(format!(
                    "{} is a device of number 0:0",
                    name.display()
                )));
            }
            tree.node(&path, kind, device, &look)
        }
        // Comments and the like.
        _ => Ok(()),
    };
    done.map_err(|error| Error::message(format!("{}: {error}", name.display())))
}

/// The path without `/`, `.` and `..`: nothing is above the tree's own root, and what leads out of `base` is refused.
fn inside(base: &Path, path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::ParentDir if inside.pop() || base.as_os_str().is_empty() => {}
            Component::ParentDir => {
                return Err(Error::invalid(format!(
                    "the archive's entry {} leads out of the directory",
                    path.display()
                )));
            }
            _ => {}
        }
    }
    Ok(inside)
}

/// The archive in a file, if it is one; compressed or not.
pub fn archive_in(file: std::fs::File) -> Result<Option<Box<dyn Read>>> {
    // What is compressed and broken is a file like any other.
    let Ok(mut plain) = crate::image::decompress(file) else {
        return Ok(None);
    };
    let mut block = Vec::new();
    if plain.by_ref().take(512).read_to_end(&mut block).is_err() || !is_header(&block) {
        return Ok(None);
    }
    Ok(Some(Box::new(io::Cursor::new(block).chain(plain))))
}

/// Whether these bytes begin an archive: its first header's checksum is right.
pub fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..512) else {
        return false;
    };
    if block.iter().all(|b| *b == 0) {
        return false;
    }
    let wanted = String::from_utf8_lossy(&block[148..156]);
    let wanted = u32::from_str_radix(wanted.trim_matches([' ', '\0']), 8);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    wanted == Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs_err::create_dir(&root).unwrap();
        let archive = |name: &str, link: Option<&str>| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_uid(7);
            header.set_gid(0);
            header.set_mtime(5);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(link) = link {
                header.set_entry_type(EntryType::Symlink);
                header.set_link_name(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
            builder.into_inner().unwrap()
        };
        let put_in = |base: &str, bytes: &[u8]| {
            let mut tree = Tree::open(&root, (0, 0)).unwrap();
            extract(&mut tree, Path::new(base), bytes, Owners::One((0, 0)))
        };
        let put = |bytes: &[u8]| put_in("in", bytes);
        assert!(put(&archive("../x", None)).is_err());
        assert!(put(&archive("a/../../x", None)).is_err());
        put(&archive("a/../w", None)).unwrap();
        assert!(root.join("in/w").exists());
        put_in("", &archive("../top", None)).unwrap();
        assert!(root.join("top").exists() && !dir.path().join("top").exists());
        put(&archive("out", Some("/"))).unwrap();
        put(&archive("out/y", None)).unwrap();
        assert!(root.join("y").exists() && !Path::new("/y").exists());
        put(&archive(".wh.z", None)).unwrap();
        assert!(root.join("in/.wh.z").is_file());
        let mut whole = archive("a", None);
        whole[124..136].copy_from_slice(b"00000000003\0");
        let mut header = tar::Header::from_byte_slice(&whole[..512]).clone();
        header.set_cksum();
        let last = |content: &[u8]| put(&[&header.as_bytes()[..], content].concat());
        last(b"abc").unwrap();
        assert_eq!(fs_err::read(root.join("in/a")).unwrap(), b"abc");
        assert_eq!(last(b"ab").unwrap_err().message, "unexpected EOF");
        let whole = archive("b", None);
        let cut = put(&whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(cut.message, "unexpected EOF");
        put(&whole[..whole.len() - 512]).unwrap();
        assert!(is_header(&archive("a", None)) && !is_header(&[0; 512]) && !is_header(b"x"));
    }
}
