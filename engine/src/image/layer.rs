//! Layers on disk: `<root>/layers/<diff id>/diff` and `layer.json`, shared by all images that name them.
//!
//! A layer appears under its name by one rename, after its digest was checked; what a crash leaves lies in `<root>/tmp`,
//! which is emptied at the next start.

use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::original::replay;
use super::{Error, HashingWriter, Result, write_layer};
use crate::container::removal::remove_dir_all;

/// See `original`.
const RECORD: &str = "archive.gz";

/// What is known of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerInfo {
    /// `sha256:…` of the uncompressed archive.
    pub diff_id: String,
    /// Bytes of file content.
    pub size: u64,
}

/// All layers of one engine.
#[derive(Clone, Debug)]
pub struct LayerStore {
    root: PathBuf,
}

/// A layer being unpacked; dropped without [`PendingLayer::commit`] it is removed.
#[derive(Debug)]
pub struct PendingLayer {
    directory: Option<PathBuf>,
    store: LayerStore,
}

impl LayerStore {
    /// Opens the store under `root` and removes what an interrupted pull left.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self {
            root: root.to_owned(),
        };
        let temporary = store.temporary();
        if temporary.exists() {
            remove_dir_all(&temporary)?;
        }
        fs_err::create_dir_all(&temporary)?;
        spread_folders_of(&temporary);
        fs_err::create_dir_all(root.join("layers"))?;
        Ok(store)
    }

    /// Names of the layers as a chain, the lowest first: each says what lies below it too.
    pub fn chains(diff_ids: &[String]) -> Vec<String> {
        use sha2::{Digest as _, Sha256};
        let mut chains: Vec<String> = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            chains.push(match chains.last() {
                Some(below) => {
                    let both = Sha256::digest(format!("{below} {diff_id}"));
                    format!("sha256:{}", hex::encode(both))
                }
                None => diff_id.clone(),
            });
        }
        chains
    }

    /// Whether the layer is here, whole.
    pub fn has(&self, diff_id: &str) -> bool {
        self.directory(diff_id).join("layer.json").exists()
    }

    /// The directory to mount.
    pub fn diff(&self, diff_id: &str) -> PathBuf {
        self.directory(diff_id).join("diff")
    }

    /// Where the archive's record lies, if the layer came from one.
    pub(super) fn record(&self, diff_id: &str) -> PathBuf {
        self.directory(diff_id).join(RECORD)
    }

    /// Where it is written down which registries have the layer.
    pub(super) fn blobs_file(&self, diff_id: &str) -> PathBuf {
        self.directory(diff_id).join("blobs.json")
    }

    /// The layer's archive, as it came; returns its digest, which is the diff id, unless that archive cannot be made any more.
    /// Blocking.
    pub(super) fn write_archive(&self, diff_id: &str, out: &mut fs_err::File) -> Result<String> {
        let folder = self.diff(diff_id);
        let record = self.record(diff_id);
        if record.exists() {
            match replayed(&record, &folder, out) {
                Ok(digest) if digest == diff_id => return Ok(digest),
                Ok(_) => tracing::warn!(diff_id, "the layer's archive is another one now"),
                Err(error) => tracing::warn!(diff_id, %error, "the layer's archive is lost"),
            }
            out.seek(io::SeekFrom::Start(0))?;
            out.set_len(0)?;
        }
        let buffered = io::BufWriter::with_capacity(1 << 18, &mut *out);
        let mut hashed = HashingWriter::new(buffered);
        write_layer(&folder, &mut hashed)?;
        Ok(hashed.digest())
    }

    /// Size and identity of a layer that is here.
    pub fn info(&self, diff_id: &str) -> Result<LayerInfo> {
        let text = fs_err::read(self.directory(diff_id).join("layer.json"))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Unsupported(format!("layer {diff_id}: {error}")))
    }

    /// Starts a layer.
    pub fn begin(&self) -> Result<PendingLayer> {
        let directory = self
            .temporary()
            .join(hex::encode(rand::random::<[u8; 8]>()));
        fs_err::create_dir_all(directory.join("diff"))?;
        Ok(PendingLayer {
            directory: Some(directory),
            store: self.clone(),
        })
    }

    /// Removes a layer: first out of sight by one rename, then its files.
    pub fn remove(&self, diff_id: &str) -> Result<()> {
        let grave = self
            .temporary()
            .join(hex::encode(rand::random::<[u8; 8]>()));
        match fs_err::rename(self.directory(diff_id), &grave) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(remove_dir_all(&grave)?),
        }
    }

    /// Diff ids of all layers here.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.root.join("layers"))? {
            ids.push(format!("sha256:{}", entry?.file_name().to_string_lossy()));
        }
        Ok(ids)
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Whatever is asked for, it lies directly among the layers.
    fn directory(&self, diff_id: &str) -> PathBuf {
        let hex = diff_id.trim_start_matches("sha256:");
        let plain = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_alphanumeric());
        let name = if plain { hex } else { "none" };
        self.root.join("layers").join(name)
    }
}

fn replayed(record: &Path, folder: &Path, out: &mut fs_err::File) -> Result<String> {
    let buffered = io::BufWriter::with_capacity(1 << 18, out);
    let mut hashed = HashingWriter::new(buffered);
    replay(record, folder, &mut hashed)?;
    Ok(hashed.digest())
}

/// Asks ext4 to place each new folder in there apart from the others, as if it were one of the topmost. Layers that arrive
/// at once then do not wait for each other's part of the disk, nor for places that were freed a short while ago.
fn spread_folders_of(folder: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let set = || -> io::Result<()> {
        let folder = std::fs::File::open(folder)?;
        Ok(ioctl_setflags(
            &folder,
            ioctl_getflags(&folder)? | IFlags::TOPDIR,
        )?)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "this file system does not spread folders");
    }
}

impl PendingLayer {
    /// Where the layer is unpacked.
    pub fn diff(&self) -> PathBuf {
        self.directory
            .as_deref()
            .unwrap_or(Path::new(""))
            .join("diff")
    }

    /// Where to record its archive.
    pub(super) fn record(&self) -> PathBuf {
        self.directory
            .as_deref()
            .unwrap_or(Path::new(""))
            .join(RECORD)
    }

    /// Gives the layer its name. A layer of the same name that came first stays, and this one goes.
    pub fn commit(mut self, diff_id: &str, size: u64) -> Result<()> {
        let Some(directory) = self.directory.take() else {
            return Ok(());
        };
        let info = LayerInfo {
            diff_id: diff_id.to_owned(),
            size,
        };
        let text = serde_json::to_vec(&info).map_err(std::io::Error::from)?;
        fs_err::write(directory.join("layer.json"), text)?;
        match fs_err::rename(&directory, self.store.directory(diff_id)) {
            Ok(()) => Ok(()),
            Err(_) if self.store.has(diff_id) => Ok(remove_dir_all(&directory)?),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for PendingLayer {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.take()
            && let Err(error) = remove_dir_all(&directory)
        {
            tracing::warn!(%error, "an unfinished layer stays until the next start");
        }
    }
}
