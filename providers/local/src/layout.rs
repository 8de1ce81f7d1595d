//! Where the files are: the lasting ones below the state folder, those of this boot below `/run`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::sys::statfs::statfs;
use sha2::{Digest as _, Sha256};
use windlass_provider::{ErrorKind, ProviderError, Result};

use crate::failure;

/// Folder of what all state folders of this computer share, and of the sockets, whose paths have to be short.
pub const RUN: &str = "/run/windlass-local";

/// The paths of one state folder.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Lasting files.
    pub base: PathBuf,
    /// Files of this boot.
    pub run: PathBuf,
    /// Six hex digits that are this state folder's own.
    pub tag: String,
}

impl Layout {
    /// The layout as it is; nothing is made.
    pub fn new(state: &Path) -> Self {
        let base = state.join("local");
        // The same folder by two names must have one engine.
        let base = fs::canonicalize(&base)
            .or_else(|_| std::path::absolute(&base))
            .unwrap_or(base);
        let digest = hex::encode(Sha256::digest(base.as_os_str().as_encoded_bytes()));
        Self {
            base,
            run: Path::new(RUN).join(&digest[..12]),
            tag: digest[..6].to_owned(),
        }
    }

    /// Makes the folders, closed to others, and checks the file system.
    pub fn made(state: &Path) -> Result<Self> {
        let base = state.join("local");
        fs::create_dir_all(&base).map_err(failure::of_host("cannot make the state folder"))?;
        let layout = Self::new(state);
        for folder in [
            &layout.base,
            &layout.machines(),
            &layout.programs(),
            &layout.engine(),
        ] {
            private(folder)?;
        }
        fs::create_dir_all(RUN)
            .and_then(|()| private_io(&layout.run))
            .map_err(failure::of_host("cannot make the folder of the sockets"))?;
        check_file_system(&layout.base)?;
        Ok(layout)
    }

    /// The engine's data.
    pub fn engine(&self) -> PathBuf {
        self.base.join("engine")
    }

    /// The engine's output.
    pub fn log(&self) -> PathBuf {
        self.base.join("engine.log")
    }

    /// Unpacked binaries.
    pub fn programs(&self) -> PathBuf {
        self.base.join("programs")
    }

    /// A folder for each machine's keys; empty when there are no machines.
    pub fn machines(&self) -> PathBuf {
        self.base.join("machines")
    }

    /// Held shared while a machine is made, and exclusively while things are taken away.
    pub fn making(&self) -> PathBuf {
        self.base.join("making.lock")
    }

    /// Held while the engine is started or stopped.
    pub fn switching(&self) -> PathBuf {
        self.base.join("engine.lock")
    }

    /// The engine's API.
    pub fn socket(&self) -> PathBuf {
        self.run.join("engine.sock")
    }

    /// The engine's bridge.
    pub fn bridge(&self) -> String {
        format!("wl-{}", self.tag)
    }

    /// Whether any machine was made here and not removed.
    pub fn has_machines(&self) -> bool {
        fs::read_dir(self.machines()).is_ok_and(|mut entries| entries.next().is_some())
    }
}

fn private(folder: &Path) -> Result<()> {
    private_io(folder).map_err(failure::of_host("cannot make a folder for local machines"))
}

fn private_io(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

/// The engine stacks file systems, which not every file system can carry.
fn check_file_system(folder: &Path) -> Result<()> {
    let found = statfs(folder)
        .map_err(|errno| failure::of_host("cannot look at the file system")(errno.into()))?;
    // As in <linux/magic.h>; nix lacks most of them on musl.
    let name = match found.filesystem_type().0 as u32 {
        0x794c_7630 => "overlayfs",
        0x6969 => "NFS",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "SMB",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9p",
        0x4d44 => "FAT",
        _ => return Ok(()),
    };
    Err(ProviderError::new(
        ErrorKind::Unsupported,
        format!(
            "{} lies on {name}, and local machines cannot be made there",
            folder.display()
        ),
    )
    .with_hint("set WINDLASS_HOME to a folder on a disk of this computer (ext4, xfs, btrfs)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_closed_and_sockets_short() {
        let state = tempfile::tempdir().unwrap();
        let deep = state.path().join("d".repeat(100));
        let layout = Layout::new(&deep);
        assert!(
            layout.socket().as_os_str().len() < 100,
            "{:?}",
            layout.socket()
        );
        assert!(layout.bridge().len() <= 15, "{}", layout.bridge());
        assert!(!layout.has_machines());
        assert!(!deep.exists(), "looking makes nothing");
        let link = state.path().join("link");
        fs::create_dir_all(deep.join("local")).unwrap();
        fs::os::unix::fs::symlink(&deep, &link).unwrap();
        assert_eq!(Layout::new(&link).tag, Layout::new(&deep).tag);
    }

    #[test]
    fn unsuitable_file_systems_are_named() {
        let error = check_file_system(Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Other);
        assert!(check_file_system(Path::new("/")).is_ok() || cfg!(not(target_os = "linux")));
    }
}
