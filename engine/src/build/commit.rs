//! The end of a step: what it wrote becomes a layer, what it changed an image.

use std::path::{Path, PathBuf};

use crate::container::error::Result;
use crate::image::{
    HashingWriter, HistoryEntry, ImageConfig, ImageMeta, LocalImages, exists_below, write_layer,
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
}

/// Makes the image; its id. Blocking.
pub fn commit(images: &LocalImages, done: Done<'_>) -> Result<String> {
    let mut config = done.config;
    let layer = match &done.upper {
        Some(upper) => layer_of(images, upper, &done.layers)?,
        None => None,
    };
    let now = crate::container::clock::format(time::OffsetDateTime::now_utc());
    config.created = Some(now.clone());
    config.history.push(HistoryEntry {
        created: Some(now),
        created_by: Some(done.shown),
        empty_layer: layer.is_none().then_some(true),
        ..HistoryEntry::default()
    });
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids.extend(layer);
    let meta = ImageMeta {
        parent: done.parent.map(str::to_owned),
        build_step: Some(done.key),
        last_tagged: None,
    };
    let bytes = serde_json::to_vec(&config).map_err(std::io::Error::from)?;
    Ok(images.store.add(&bytes, &meta)?)
}

/// Turns a writable layer into a layer of the store; `None` if nothing was written.
fn layer_of(images: &LocalImages, upper: &Path, layers: &[PathBuf]) -> Result<Option<String>> {
    take_mount_points(upper, layers)?;
    let mut hash = HashingWriter::new(std::io::sink());
    let written = write_layer(upper, &mut hash)?;
    if written.entries == 0 {
        return Ok(None);
    }
    let diff_id = hash.digest();
    let pending = images.store.layers().begin()?;
    fs_err::remove_dir(pending.diff())?;
    fs_err::rename(upper, pending.diff())?;
    pending.commit(&diff_id, written.size)?;
    Ok(Some(diff_id))
}

/// Files and folders that were made only to mount something on them are not the step's work.
fn take_mount_points(upper: &Path, layers: &[PathBuf]) -> Result<()> {
    for name in [
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "dev/console",
        "dev",
        "proc",
        "sys",
        "etc",
    ] {
        let path = upper.join(name);
        let Ok(metadata) = fs_err::symlink_metadata(&path) else {
            continue;
        };
        if exists_below(layers, Path::new(name)) {
            continue;
        }
        if metadata.is_dir() {
            // A folder with something in it stays.
            std::fs::remove_dir(&path).ok();
        } else if metadata.is_file() && metadata.len() == 0 {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}
