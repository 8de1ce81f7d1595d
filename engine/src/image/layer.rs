//! Layers on disk: `<root>/layers/<diff id>/diff` and `layer.json`, shared by all images that name them.
//!
//! A layer appears under its name by one rename, after its digest was checked; what a crash leaves lies in `<root>/tmp`,
//! which is emptied at the next start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::container::removal::remove_dir_all;

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
        fs_err::create_dir_all(root.join("layers"))?;
        Ok(store)
    }

    /// Whether the layer is here, whole.
    pub fn has(&self, diff_id: &str) -> bool {
        self.directory(diff_id).join("layer.json").exists()
    }

    /// The directory to mount.
    pub fn diff(&self, diff_id: &str) -> PathBuf {
        self.directory(diff_id).join("diff")
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

impl PendingLayer {
    /// Where the layer is unpacked.
    pub fn diff(&self) -> PathBuf {
        self.directory
            .as_deref()
            .unwrap_or(Path::new(""))
            .join("diff")
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
