//! `docker commit`: what a container wrote becomes a layer, its configuration an image's.
//!
//! Deliberately absent: what is in volumes, and holding the container still meanwhile.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::difference::differences;
use super::part::tag_of;
use super::pipeline::MAX_LAYER;
use super::tarball::write_chosen;
use super::unpack::unpack;
use super::{
    Error, HashingWriter, HistoryEntry, ImageConfig, ImageMeta, ImageStore, LocalImages, Result,
    RunConfig,
};
use crate::container::error::{Error as PartError, Result as PartResult};
use crate::container::parts::Commit;

/// Instructions of a Dockerfile that make sense outside of builds.
const CHANGES: [&str; 11] = [
    "cmd",
    "entrypoint",
    "env",
    "expose",
    "healthcheck",
    "label",
    "onbuild",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Applies `--change` instructions, those that Docker takes outside of builds.
pub(super) fn change(config: &mut ImageConfig, changes: &[String]) -> PartResult<()> {
    for line in changes {
        let word = line.split_whitespace().next().unwrap_or_default();
        let word = word.to_ascii_lowercase();
        if !word.is_empty() && !CHANGES.contains(&word.as_str()) {
            return Err(PartError::invalid(format!(
                "{word} is not a valid change command"
            )));
        }
    }
    crate::build::apply_changes(config, changes)
}

impl LocalImages {
    /// Makes the image. Blocking.
    pub(super) fn make_image(&self, wanted: Commit) -> PartResult<String> {
        let name = wanted.name.as_deref().map(tag_of).transpose()?;
        let base = self.store.resolve(&wanted.image)?;
        let run: RunConfig = serde_json::to_value(&wanted.config)
            .and_then(serde_json::from_value)
            .map_err(PartError::internal)?;
        let mut config = ImageConfig {
            config: run,
            ..base.config.clone()
        };
        change(&mut config, &wanted.changes)?;
        let layers = self.store.layer_dirs(&base);
        let upper = self.overlays.upper(&wanted.container);
        let _pins = self.store.pin(&config.rootfs.diff_ids);
        let layer = self.store.layer_from(&upper, &layers)?;
        let now = Some(crate::container::clock::now());
        config.created.clone_from(&now);
        config.author = Some(wanted.author.clone()).filter(|author| !author.is_empty());
        config.comment = None;
        config.docker_version = Some(env!("CARGO_PKG_VERSION").to_owned());
        config.history.push(HistoryEntry {
            created: now,
            created_by: Some(wanted.command),
            author: config.author.clone(),
            comment: Some(wanted.comment).filter(|comment| !comment.is_empty()),
            empty_layer: layer.is_none().then_some(true),
        });
        config.rootfs.kind = "layers".into();
        let pinned = layer.map(|(diff_id, pins)| {
            config.rootfs.diff_ids.push(diff_id);
            pins
        });
        let mut document = serde_json::to_value(&config).map_err(PartError::internal)?;
        document["container"] = json!(wanted.container);
        document["container_config"] =
            serde_json::to_value(&wanted.config).map_err(PartError::internal)?;
        let bytes = serde_json::to_vec(&document).map_err(PartError::internal)?;
        let meta = ImageMeta {
            parent: Some(base.id),
            ..ImageMeta::default()
        };
        let id = self.store.add(&bytes, &meta)?;
        drop(pinned);
        if let Some(name) = name {
            self.store.tag(&id, &name)?;
        }
        Ok(id)
    }
}

impl ImageStore {
    /// Copies a writable layer into the store; `None` if it differs in nothing. Blocking.
    fn layer_from(
        &self,
        upper: &Path,
        layers: &[PathBuf],
    ) -> Result<Option<(String, super::Pins)>> {
        let chosen: BTreeSet<PathBuf> = differences(upper, layers)?
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        if chosen.is_empty() {
            return Ok(None);
        }
        let pending = self.layers().begin()?;
        let (reader, writer) = std::io::pipe()?;
        let mut reader = std::io::BufReader::with_capacity(1 << 16, reader);
        let (diff_id, size) = std::thread::scope(|scope| {
            let writing = scope.spawn(move || -> std::io::Result<String> {
                let buffered = std::io::BufWriter::with_capacity(1 << 16, writer);
                let mut hashed = HashingWriter::new(buffered);
                write_chosen(upper, Some(&chosen), &mut hashed)?;
                Ok(hashed.digest())
            });
            let unpacked = unpack(&mut reader, &pending.diff(), MAX_LAYER);
            // To its end, or the writer waits for ever.
            let rest = discard(reader);
            let written = writing
                .join()
                .map_err(|_| Error::Unsupported("the layer's writer stopped".into()))?;
            rest?;
            Ok::<_, Error>((written?, unpacked?.size))
        })?;
        let pins = self.pin(std::slice::from_ref(&diff_id));
        pending.commit(&diff_id, size)?;
        Ok(Some((diff_id, pins)))
    }
}

fn discard(mut reader: impl Read) -> std::io::Result<u64> {
    std::io::copy(&mut reader, &mut std::io::sink())
}

#[cfg(test)]
mod tests {
    use super::super::RegistryConfig;
    use super::*;

    #[test]
    fn a_writable_layer_becomes_one_of_the_store() {
        let (root, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        assert!(store.layer_from(upper.path(), &[]).unwrap().is_none());
        fs_err::create_dir_all(upper.path().join("etc")).unwrap();
        fs_err::write(upper.path().join("etc/hosts"), "").unwrap();
        assert!(
            store.layer_from(upper.path(), &[]).unwrap().is_none(),
            "a mount point alone is no layer"
        );
        fs_err::write(upper.path().join("new"), vec![7; 300_000]).unwrap();
        let (diff_id, _pins) = store.layer_from(upper.path(), &[]).unwrap().unwrap();
        let folder = store.layers().diff(&diff_id);
        assert_eq!(fs_err::read(folder.join("new")).unwrap().len(), 300_000);
        assert!(!folder.join("etc").exists());
        let mut again = HashingWriter::new(std::io::sink());
        super::super::write_layer(&folder, &mut again).unwrap();
        assert_eq!(again.digest(), diff_id, "written again it is the same");
        assert_eq!(store.layers().info(&diff_id).unwrap().size, 300_000);
    }

    #[test]
    fn builds_have_more_instructions() {
        let mut config = ImageConfig::default();
        let error = change(&mut config, &["SHELL [\"sh\"]".to_owned()]).unwrap_err();
        assert_eq!(error.message, "shell is not a valid change command");
        change(&mut config, &["CMD echo".to_owned(), "USER x".to_owned()]).unwrap();
        assert_eq!(config.config.user, "x");
    }
}
