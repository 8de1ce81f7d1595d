//! A container's files as an archive: `docker cp` from it, and `docker export`.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use fs_err as fs;
use nix::fcntl::OFlag;
use tar::EntryType;

use super::error::{Error, Result};
use super::files::{locate, missing};
use super::rooted::{self, DEEPEST};
use crate::userns::Maps;

/// What a name may take in a header; longer ones come before it.
const SHORT: usize = 100;
/// The one attribute that Docker's archives have.
const CAPABILITY: &str = "security.capability";

/// Writes an archive of `path`; `maps` are by what its owners are shifted. Blocking.
pub fn pack(root: &OwnedFd, path: &str, maps: Option<Maps>, out: impl Write) -> Result<()> {
    let place = locate(root, path)?;
    let at = place.path();
    let metadata = std::fs::symlink_metadata(&at).map_err(missing(path))?;
    let mut packer = Packer::new(maps, out);
    if metadata.is_dir() {
        let folder = open_folder(&at)?;
        packer.directory(&folder, place.shown.as_bytes(), 0)?;
    } else {
        packer.entry(&at, place.shown.as_bytes(), &metadata)?;
    }
    packer.finish()
}

/// Writes an archive of everything; blocking.
pub fn pack_all(root: &OwnedFd, maps: Option<Maps>, out: impl Write) -> Result<()> {
    let mut packer = Packer::new(maps, out);
    let folder = open_folder(&rooted::path_of(root).join("."))?;
    packer.directory(&folder, b"", 0)?;
    packer.finish()
}

/// A link that has come to the folder's place is an error: it would lead into the host.
fn open_folder(path: &Path) -> std::io::Result<OwnedFd> {
    open_itself(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// What is at the path, and not what it points to.
pub(super) fn open_itself(path: &Path, flags: OFlag) -> std::io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = flags | OFlag::O_NOFOLLOW;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    Ok(file.into())
}

struct Packer<W: Write> {
    tar: tar::Builder<W>,
    /// Files with several names, by their first one.
    names: HashMap<(u64, u64), Vec<u8>>,
    maps: Option<Maps>,
}

impl<W: Write> Packer<W> {
    fn new(maps: Option<Maps>, out: W) -> Self {
        Self {
            tar: tar::Builder::new(out),
            names: HashMap::new(),
            maps,
        }
    }

    fn finish(self) -> Result<()> {
        self.tar.into_inner()?.flush()?;
        Ok(())
    }

    /// The container may still run and put links in the place of folders: every folder is opened, and named from then on by what is open.
    fn directory(&mut self, folder: &OwnedFd, shown: &[u8], depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::message(format!(
                "{} is more than {DEEPEST} folders deep",
                String::from_utf8_lossy(shown)
            )));
        }
        let at = rooted::path_of(folder);
        let mut prefix = shown.to_vec();
        if !shown.is_empty() && !shown.ends_with(b"/") {
            prefix.push(b'/');
        }
        if !shown.is_empty() {
            let header = self.header(&std::fs::metadata(&at)?);
            self.append(header, &prefix, None, std::io::empty())?;
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
            let shown = [prefix.as_slice(), name.as_bytes()].concat();
            if metadata.is_dir() {
                self.directory(&open_folder(&path)?, &shown, depth + 1)?;
            } else {
                self.entry(&path, &shown, &metadata)?;
            }
        }
        Ok(())
    }

    fn header(&self, metadata: &std::fs::Metadata) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_metadata(metadata);
        header.set_size(0);
        if let Some(maps) = &self.maps {
            let (user, group) = maps.inside((metadata.uid(), metadata.gid()));
            header.set_uid(user.into());
            header.set_gid(group.into());
        }
        header
    }

    fn entry(&mut self, at: &Path, shown: &[u8], metadata: &std::fs::Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = self.header(metadata);
        if kind.is_symlink() {
            let target = fs::read_link(at)?;
            let target = target.as_os_str().as_bytes();
            return self.append(header, shown, Some(target), std::io::empty());
        }
        if !kind.is_file() {
            return self.append(header, shown, None, std::io::empty());
        }
        if metadata.nlink() > 1 {
            let file = (metadata.dev(), metadata.ino());
            if let Some(first) = self.names.get(&file).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.append(header, shown, Some(&first), std::io::empty());
            }
            self.names.insert(file, shown.to_vec());
        }
        // A growing file must not spoil the archive, and what is a pipe by now must not hold it up.
        let file = std::fs::File::from(open_itself(at, OFlag::O_NONBLOCK)?);
        if let Some(value) = capability(&file) {
            let name = format!("SCHILY.xattr.{CAPABILITY}");
            self.tar
                .append_pax_extensions([(name.as_str(), value.as_slice())])?;
        }
        header.set_size(metadata.len());
        // One that shrinks goes on with zeros: its size has been told already.
        let content = std::io::Read::chain(&file, std::io::repeat(0));
        let content = std::io::Read::take(content, metadata.len());
        self.append(header, shown, None, content)
    }

    /// Names go as they are, be they absolute or no text.
    fn append(
        &mut self,
        mut header: tar::Header,
        name: &[u8],
        link: Option<&[u8]>,
        content: impl std::io::Read,
    ) -> Result<()> {
        self.long(name, EntryType::GNULongName)?;
        if let Some(link) = link {
            self.long(link, EntryType::GNULongLink)?;
        }
        let old = header.as_old_mut();
        fill(&mut old.name, name);
        fill(&mut old.linkname, link.unwrap_or_default());
        header.set_cksum();
        self.tar.append(&header, content)?;
        Ok(())
    }

    fn long(&mut self, name: &[u8], kind: EntryType) -> Result<()> {
        if name.len() <= SHORT {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        fill(&mut header.as_old_mut().name, b"././@LongLink");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        header.set_entry_type(kind);
        header.set_cksum();
        self.tar
            .append(&header, [name, b"\0"].concat().as_slice())?;
        Ok(())
    }
}

fn fill(field: &mut [u8; SHORT], text: &[u8]) {
    let count = text.len().min(SHORT);
    field.fill(0);
    field[..count].copy_from_slice(&text[..count]);
}

fn capability(file: &std::fs::File) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let count = rustix::fs::fgetxattr(file, CAPABILITY, &mut value[..]).ok()?;
    Some(value[..count].to_vec())
}
