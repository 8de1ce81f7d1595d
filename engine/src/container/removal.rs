//! Taking folders away whose content is a container's, however deep they are: neither the stack nor the number of open files grows with it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// What lies deeper is moved up first.
const DEEPEST: usize = 32;

/// Removes a folder with everything in it; links are not followed. Not there is an error, as with the standard library.
pub fn remove_dir_all(path: &Path) -> std::io::Result<()> {
    let named = |errno: Errno| {
        let error = std::io::Error::from(errno);
        std::io::Error::new(
            error.kind(),
            format!("failed to remove directory `{}`: {error}", path.display()),
        )
    };
    let top = rustix::fs::open(path, folder_flags(), Mode::empty()).map_err(named)?;
    empty_top(top).map_err(named)?;
    rustix::fs::rmdir(path).map_err(named)
}

/// The same by a name in an open folder.
pub fn remove_dir_all_at(parent: &OwnedFd, name: &OsStr) -> std::io::Result<()> {
    empty_top(openat(parent, name, folder_flags(), Mode::empty())?)?;
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn empty_top(top: OwnedFd) -> rustix::io::Result<()> {
    let mut pit = Pit { top, moved: 0 };
    loop {
        let before = pit.moved;
        empty(&mut pit, None, 0)?;
        if pit.moved == before {
            return Ok(());
        }
    }
}

/// Where too deep folders are moved to.
struct Pit {
    top: OwnedFd,
    moved: u64,
}

fn folder_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC
}

/// Everything in `folder`, or in the top one.
fn empty(pit: &mut Pit, folder: Option<&OwnedFd>, depth: usize) -> rustix::io::Result<()> {
    let entries = Dir::read_from(folder.unwrap_or(&pit.top))?;
    for entry in entries {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let here = folder.unwrap_or(&pit.top);
        if entry.file_type() != FileType::Directory {
            match unlinkat(here, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // The file system does not tell kinds.
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        match unlinkat(here, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if depth >= DEEPEST {
            move_up(pit, folder, name)?;
            continue;
        }
        let inner = openat(here, name, folder_flags(), Mode::empty())?;
        empty(pit, Some(&inner), depth + 1)?;
        drop(inner);
        let here = folder.unwrap_or(&pit.top);
        match unlinkat(here, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn move_up(pit: &mut Pit, folder: Option<&OwnedFd>, name: &OsStr) -> rustix::io::Result<()> {
    loop {
        pit.moved += 1;
        let place = format!(".windlass-{}", pit.moved);
        match renameat(folder.unwrap_or(&pit.top), name, &pit.top, &place) {
            // Left by a removal that was interrupted.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_deep_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs_err::create_dir(&root).unwrap();
        fs_err::write(dir.path().join("kept"), "").unwrap();
        std::os::unix::fs::symlink("..", root.join("link")).unwrap();
        let mut at = rustix::fs::open(&root, folder_flags(), Mode::empty()).unwrap();
        for _ in 0..5000 {
            for name in ["a", "b"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            let flags = OFlags::CREATE | OFlags::WRONLY;
            drop(openat(&at, "file", flags, Mode::RWXU).unwrap());
            at = openat(&at, "a", folder_flags(), Mode::empty()).unwrap();
        }
        drop(at);
        remove_dir_all(&root).unwrap();
        assert!(!root.exists() && dir.path().join("kept").exists());
        let error = remove_dir_all(&root).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("way")).unwrap();
        assert!(remove_dir_all(&dir.path().join("way")).is_err());
        assert!(dir.path().join("kept").exists());
    }
}
