//! Root file systems: an image's layers and one writable folder a container, joined by overlayfs.
//!
//! `<root>/rootfs/<container>/{upper,work,merged,image}`. Layers are named through short links in `<root>/l`, since the
//! kernel takes no more than a page of mount options.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_engine_api::types::Change;

use super::difference::differences;
use super::tarball::{is_opaque, is_whiteout};
use super::{Error, Image, ImageStore, Result};
use crate::container::removal::remove_dir_all;
use crate::container::rooted;
use crate::runtime::sys;
use crate::runtime::user_namespace::Assumed;
use crate::userns::Remap;

/// Writable layers and their mounts.
#[derive(Clone, Debug)]
pub struct Overlays {
    root: PathBuf,
}

impl Overlays {
    /// Opens or makes the folders under `root`.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["rootfs", "l", "empty"] {
            fs_err::create_dir_all(root.join(folder))?;
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Mounts a container's root file system, and makes its writable layer at the first time.
    /// With `remap` what lies on the disk with a container's ids is shown with those that stand for them.
    pub fn mount(
        &self,
        container: &str,
        store: &ImageStore,
        image: &Image,
        remap: Option<&Remap>,
    ) -> Result<PathBuf> {
        let folder = self.folder(container);
        let merged = folder.join("merged");
        if is_mounted(&merged)? {
            return Ok(merged);
        }
        for name in ["upper", "work", "merged"] {
            fs_err::create_dir_all(folder.join(name))?;
        }
        fs_err::write(folder.join("image"), &image.id)?;
        let lower = self.lower(store, image)?;
        self.mount_overlay(
            options(&lower, &format!("rootfs/{container}")),
            &merged,
            remap,
        )?;
        Ok(merged)
    }

    /// Whether this kernel and file system can show files with shifted owners.
    pub fn try_shifted(&self, remap: &Remap) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let name = "userns";
        let folder = self.root.join(name);
        // Of an engine that was killed in the middle of this.
        unmount(folder.join("merged"), UnmountFlags::DETACH).ok();
        match remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        for part in ["upper", "work", "merged"] {
            fs_err::create_dir_all(folder.join(part))?;
        }
        let merged = folder.join("merged");
        let tried = self
            .mount_overlay(options("empty", name), &merged, Some(remap))
            .and_then(|()| {
                let shown = fs_err::metadata(&merged)?;
                unmount(&merged, UnmountFlags::DETACH).map_err(std::io::Error::from)?;
                Ok((shown.uid(), shown.gid()) == remap.maps.root())
            });
        remove_dir_all(&folder)?;
        if tried? {
            return Ok(());
        }
        Err(Error::Unsupported(
            "owners of files are not shifted by overlayfs".into(),
        ))
    }

    /// The lower folders, the topmost first, relative to the root.
    fn lower(&self, store: &ImageStore, image: &Image) -> Result<String> {
        let mut names = Vec::new();
        for folder in store.layer_dirs(image) {
            let inside = folder.strip_prefix(&self.root).unwrap_or(&folder);
            let hex = inside
                .iter()
                .nth(1)
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let short = format!("l/{}", hex.get(..16).unwrap_or(hex));
            match symlink(Path::new("..").join(inside), self.root.join(&short)) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error.into());
                }
                // A layer that comes twice hides its lower copy wholly, and the kernel takes none twice.
                _ if names.contains(&short) => {}
                _ => names.push(short),
            }
        }
        if names.is_empty() {
            names.push("empty".to_owned());
        }
        Ok(names.join(":"))
    }

    /// Mounts from a thread whose working directory is the root, so that the options stay short.
    fn mount_overlay(&self, options: String, target: &Path, remap: Option<&Remap>) -> Result<()> {
        if let Some(remap) = remap {
            return self.mount_shifted(&options, target, remap);
        }
        let (root, target) = (self.root.clone(), target.to_owned());
        let mounting = std::thread::spawn(move || -> std::io::Result<()> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(&root)?;
            let options = std::ffi::CString::new(options)?;
            mount_at(&target, &options)
        });
        let outcome = mounting
            .join()
            .map_err(|_| Error::Unsupported("the mounting thread stopped".into()))?;
        outcome.map_err(|error| {
            let hint = match error.raw_os_error() {
                Some(libc::EINVAL) => " (the engine's folder must lie on a file system like ext4 or xfs, not on overlayfs)",
                Some(libc::ENODEV) => " (the kernel has no overlayfs)",
                _ => "",
            };
            Error::Unsupported(format!("mount the root file system by overlayfs: {error}{hint}"))
        })
    }

    /// From a mount namespace where the engine's folder has its owners shifted, which nobody else sees; the finished mount comes home.
    fn mount_shifted(&self, options: &str, target: &Path, remap: &Remap) -> Result<()> {
        let work = || -> std::io::Result<()> {
            let home = fs_err::File::open("/proc/thread-self/ns/mnt")?;
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
            let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            nix::mount::mount(none, "/", none, private, none)?;
            let path = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes());
            let shifted = sys::detached_mount(&path(&self.root)?)?;
            sys::shift_owners(shifted.as_fd(), remap.namespace.as_fd())?;
            sys::move_mount(shifted.as_fd(), rooted::open_root(&self.root)?.as_fd())?;
            std::env::set_current_dir(&self.root)?;
            // The kernel makes files in the layers as whoever mounts, who must be known there.
            let _root = Assumed::new(remap.maps.root())?;
            mount_at(target, &std::ffi::CString::new(options)?)?;
            let mounted = sys::detached_mount(&path(target)?)?;
            setns(home.file(), CloneFlags::CLONE_NEWNS)?;
            sys::move_mount(mounted.as_fd(), rooted::open_root(target)?.as_fd())
        };
        let outcome = std::thread::scope(|scope| scope.spawn(work).join());
        let outcome =
            outcome.map_err(|_| Error::Unsupported("the mounting thread stopped".into()))?;
        outcome.map_err(|error| {
            Error::Unsupported(format!(
                "mount the root file system by overlayfs with the owners of a user namespace: {error}"
            ))
        })
    }

    /// Unmounts; the writable layer stays.
    pub fn unmount(&self, container: &str) -> Result<()> {
        let merged = self.folder(container).join("merged");
        while is_mounted(&merged)? {
            unmount(&merged, UnmountFlags::DETACH).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    /// Unmounts and removes the writable layer.
    pub fn discard(&self, container: &str) -> Result<()> {
        self.unmount(container)?;
        match remove_dir_all(&self.folder(container)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Who has a writable layer.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in fs_err::read_dir(self.root.join("rootfs"))? {
            all.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(all)
    }

    /// The writable layer.
    pub fn upper(&self, container: &str) -> PathBuf {
        self.folder(container).join("upper")
    }

    /// Keeps an image for a container that has no writable layer yet.
    pub(super) fn claim(&self, container: &str, image: &str) -> Result<()> {
        let folder = self.folder(container);
        fs_err::create_dir_all(&folder)?;
        Ok(fs_err::write(folder.join("image"), image)?)
    }

    /// Writable layers, and the images that they lie on.
    pub fn images_in_use(&self) -> Result<BTreeMap<String, String>> {
        let mut images = BTreeMap::new();
        for entry in fs_err::read_dir(self.root.join("rootfs"))? {
            let entry = entry?;
            if let Ok(image) = fs_err::read_to_string(entry.path().join("image")) {
                images.insert(entry.file_name().to_string_lossy().into_owned(), image);
            }
        }
        Ok(images)
    }

    /// What differs from the image, in the order of the paths.
    pub fn changes(
        &self,
        container: &str,
        store: &ImageStore,
        image: &Image,
    ) -> Result<Vec<Change>> {
        let differences = differences(&self.upper(container), &store.layer_dirs(image))?;
        let changes = differences.into_iter().map(|(path, kind)| Change {
            path: format!("/{}", path.display()),
            kind,
        });
        Ok(changes.collect())
    }

    /// Bytes of the files in the writable layer, each file once.
    pub fn written(&self, container: &str) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let mut folders = vec![self.upper(container)];
        let mut linked = std::collections::BTreeSet::new();
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            // What goes away meanwhile counts no more.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if metadata.nlink() < 2 || linked.insert(metadata.ino()) => {
                        bytes += metadata.len();
                    }
                    _ => {}
                }
            }
        }
        Ok(bytes)
    }

    /// Where its parts lie, by Docker's names.
    pub fn folders(
        &self,
        container: &str,
        store: &ImageStore,
        image: Option<&Image>,
    ) -> std::collections::BTreeMap<String, String> {
        let text = |path: &Path| path.display().to_string();
        let layers = image.map(|i| store.layer_dirs(i)).unwrap_or_default();
        let lower: Vec<String> = layers.iter().map(|l| text(l)).collect();
        let own = self.folder(container);
        [
            ("LowerDir", lower.join(":")),
            ("MergedDir", text(&own.join("merged"))),
            ("UpperDir", text(&own.join("upper"))),
            ("WorkDir", text(&own.join("work"))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn folder(&self, container: &str) -> PathBuf {
        self.root.join("rootfs").join(container)
    }
}

/// `folder` has the parts `upper` and `work`; all is relative to the root.
fn options(lower: &str, folder: &str) -> String {
    // A layer is archived from its folder alone: nothing in it may point to another one.
    format!(
        "lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work,index=off,redirect_dir=off,metacopy=off"
    )
}

fn mount_at(target: &Path, options: &std::ffi::CStr) -> std::io::Result<()> {
    Ok(mount(
        "overlay",
        target,
        "overlay",
        MountFlags::empty(),
        options,
    )?)
}

/// Whether the layers, the topmost first, show something at the path.
pub(crate) fn exists_below(layers: &[PathBuf], path: &Path) -> bool {
    visible_below(layers, path).is_some()
}

/// What the layers, the topmost first, show at the path.
pub(super) fn visible_below(layers: &[PathBuf], path: &Path) -> Option<std::fs::Metadata> {
    for layer in layers {
        if let Ok(metadata) = fs_err::symlink_metadata(layer.join(path)) {
            return Some(metadata).filter(|metadata| !is_whiteout(metadata));
        }
        let hidden = path
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
            .any(|ancestor| {
                let ancestor = layer.join(ancestor);
                fs_err::symlink_metadata(&ancestor)
                    .is_ok_and(|metadata| !metadata.is_dir() || is_opaque(&ancestor))
            });
        if hidden {
            return None;
        }
    }
    None
}

/// A mount point has another device than the folder above it.
fn is_mounted(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(inner), Some(parent)) = (std::fs::metadata(path), path.parent()) else {
        return Ok(false);
    };
    Ok(inner.dev() != fs_err::metadata(parent)?.dev())
}
