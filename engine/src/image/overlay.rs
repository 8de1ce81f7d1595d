//! Root file systems: an image's layers and one writable folder a container, joined by overlayfs.
//!
//! `<root>/rootfs/<container>/{upper,work,merged,image}`. Layers are named through short links in `<root>/l`, since the
//! kernel takes no more than a page of mount options.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use windlass_engine_api::types::Change;

use super::difference::differences;
use super::tarball::{is_opaque, is_whiteout};
use super::{Error, Image, ImageStore, Result};
use crate::container::removal::remove_dir_all;

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
    pub fn mount(&self, container: &str, store: &ImageStore, image: &Image) -> Result<PathBuf> {
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
        let options = [
            format!("lowerdir={lower}"),
            format!("upperdir=rootfs/{container}/upper"),
            format!("workdir=rootfs/{container}/work"),
            // A layer is archived from its folder alone: nothing in it may point to another one.
            "index=off,redirect_dir=off,metacopy=off".to_owned(),
        ]
        .join(",");
        self.mount_overlay(options, &merged)?;
        Ok(merged)
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
    fn mount_overlay(&self, options: String, target: &Path) -> Result<()> {
        let (root, target) = (self.root.clone(), target.to_owned());
        let mounting = std::thread::spawn(move || -> std::io::Result<()> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(&root)?;
            let options = std::ffi::CString::new(options)?;
            mount(
                "overlay",
                &target,
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )?;
            Ok(())
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
