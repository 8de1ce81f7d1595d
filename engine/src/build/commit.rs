//! The end of a step: what it wrote becomes a layer, what it changed an image.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fgetxattr, fstat, openat, openat2, statat,
    unlinkat,
};

use crate::container::error::Result;
use crate::container::rooted;
use crate::image::{
    HashingWriter, HistoryEntry, ImageConfig, ImageMeta, LocalImages, Pins, exists_below,
    write_layer,
};

/// A step that is done.
pub struct Done<'a> {
    /// The image before it.
    pub parent: Option<&'a str>,
    /// The configuration after it.
    pub config: ImageConfig,
    /// What the cache finds it by.
    pub key: String,
    /// For the history.
    pub shown: String,
    /// Its writable layer.
    pub upper: Option<PathBuf>,
    /// The layers below, the topmost first.
    pub layers: Vec<PathBuf>,
    /// Where something was mounted while it ran, absolute.
    pub mounted: Vec<String>,
}

/// Makes the image; its id. Blocking.
pub fn commit(images: &LocalImages, done: Done<'_>) -> Result<String> {
    let mut config = done.config;
    let layer = match &done.upper {
        Some(upper) => layer_of(images, upper, &done.layers, &done.mounted)?,
        None => None,
    };
    // Nobody takes them away before the image names them.
    let _below = images.store.pin(&config.rootfs.diff_ids);
    let now = crate::container::clock::format(time::OffsetDateTime::now_utc());
    config.created = Some(now.clone());
    config.history.push(HistoryEntry {
        created: Some(now),
        created_by: Some(done.shown),
        author: config.author.clone(),
        empty_layer: layer.is_none().then_some(true),
        ..HistoryEntry::default()
    });
    config.rootfs.kind = "layers".into();
    let (layer, _pins) = layer.unzip();
    config.rootfs.diff_ids.extend(layer);
    let meta = ImageMeta {
        parent: done.parent.map(str::to_owned),
        build_step: Some(done.key),
        ..ImageMeta::default()
    };
    let bytes = serde_json::to_vec(&config).map_err(std::io::Error::from)?;
    Ok(images.store.add(&bytes, &meta)?)
}

/// Turns a writable layer into a layer of the store; `None` if nothing was written.
fn layer_of(
    images: &LocalImages,
    upper: &Path,
    layers: &[PathBuf],
    mounted: &[String],
) -> Result<Option<(String, Pins)>> {
    take_mount_points(upper, layers, mounted)?;
    let mut hash = HashingWriter::new(std::io::sink());
    let written = write_layer(upper, &mut hash)?;
    if written.entries == 0 {
        return Ok(None);
    }
    let diff_id = hash.digest();
    let pins = images.store.pin(std::slice::from_ref(&diff_id));
    let pending = images.store.layers().begin()?;
    fs_err::remove_dir(pending.diff())?;
    fs_err::rename(upper, pending.diff())?;
    pending.commit(&diff_id, written.size)?;
    Ok(Some((diff_id, pins)))
}

/// Files and folders that were made only to mount something on them are not the step's work.
fn take_mount_points(upper: &Path, layers: &[PathBuf], mounted: &[String]) -> Result<()> {
    let always = [
        ".dockerenv",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "dev/console",
        "dev",
        "proc",
        "sys",
        "etc",
    ];
    let mut names: Vec<PathBuf> = always.iter().map(PathBuf::from).collect();
    for target in mounted {
        let target = PathBuf::from(target.trim_matches('/'));
        let above = target
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty());
        names.extend(above.map(Path::to_owned));
    }
    // Inner ones first, so that outer ones are empty.
    names.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    let root = rooted::open_root(upper)?;
    for name in names {
        take_mount_point(root.as_fd(), &name, layers)?;
    }
    Ok(())
}

/// The step may have put links in the way: none is followed, since they lead into the host from here.
fn take_mount_point(root: BorrowedFd<'_>, name: &Path, layers: &[PathBuf]) -> Result<()> {
    let (Some(parent), Some(last)) = (name.parent(), name.file_name()) else {
        return Ok(());
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let Ok(parent) = openat2(
        root,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    ) else {
        return Ok(());
    };
    let Ok(there) = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) else {
        return Ok(());
    };
    if exists_below(layers, name) {
        // A stub that was made and taken away again has brought its folder up.
        if is_unchanged(&parent, last, layers, name) {
            unlinkat(&parent, last, AtFlags::REMOVEDIR).ok();
        }
        return Ok(());
    }
    match FileType::from_raw_mode(there.st_mode) {
        // A folder with something in it stays.
        FileType::Directory => drop(unlinkat(&parent, last, AtFlags::REMOVEDIR)),
        FileType::RegularFile if there.st_size == 0 => {
            unlinkat(&parent, last, AtFlags::empty()).map_err(std::io::Error::from)?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether it is a folder that looks like the one below it, and hides nothing of it.
fn is_unchanged(parent: &OwnedFd, last: &OsStr, layers: &[PathBuf], name: &Path) -> bool {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = openat(parent, last, flags, Mode::empty()) else {
        return false;
    };
    let opaque = fgetxattr(&folder, "trusted.overlay.opaque", &mut [0_u8; 4]).is_ok();
    let below = layers
        .iter()
        .find_map(|layer| fs_err::symlink_metadata(layer.join(name)).ok());
    match (fstat(&folder), below) {
        (Ok(here), Some(below)) => {
            !opaque
                && below.is_dir()
                && (here.st_mode, here.st_uid, here.st_gid)
                    == (below.mode(), below.uid(), below.gid())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_go_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, host) = (dir.path().join("upper"), dir.path().join("host"));
        for folder in [upper.join("a/b"), upper.join("work/keep"), host.clone()] {
            fs_err::create_dir_all(folder).unwrap();
        }
        fs_err::write(host.join("hosts"), "").unwrap();
        std::os::unix::fs::symlink(&host, upper.join("etc")).unwrap();
        take_mount_points(&upper, &[], &["/a/b".to_owned(), "/work".to_owned()]).unwrap();
        assert!(!upper.join("a").exists() && upper.join("work/keep").exists());
        assert!(host.join("hosts").exists());
    }
}
