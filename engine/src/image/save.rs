//! `docker save`: an archive that is an OCI layout and Docker's older format at once.
//!
//! Each layer is the archive that it came as. Where that cannot be made again (a file was changed behind the engine's
//! back), the image in the archive has the new digest in its config, and so another id.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::archive::ArchiveEntry;
use super::names::{familiar_key, is_digest_key};
use super::{Error, Image, ImageStore, Reference, Result};

impl ImageStore {
    /// Writes the images to an archive. Blocking.
    pub fn save(&self, references: &[String], out: impl Write) -> Result<()> {
        let mut saving = Saving {
            store: self,
            tar: tar::Builder::new(out),
            written: BTreeSet::new(),
            ids: BTreeSet::new(),
            layers: BTreeMap::new(),
            repositories: BTreeMap::new(),
        };
        let mut entries = Vec::new();
        let mut manifests = Vec::new();
        let wanted = self.wanted(references)?;
        for (image, _) in &wanted {
            saving.ids.insert(image.id.clone());
        }
        for (image, names) in wanted {
            saving.image(&image, names, &mut entries, &mut manifests)?;
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
        saving.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        saving.file("index.json", index.to_string().as_bytes())?;
        let manifest = serde_json::to_vec(&entries).map_err(io::Error::from)?;
        saving.file("manifest.json", &manifest)?;
        if !saving.repositories.is_empty() {
            let names = serde_json::to_vec(&saving.repositories).map_err(io::Error::from)?;
            saving.file("repositories", &names)?;
        }
        saving.tar.into_inner()?.flush()?;
        Ok(())
    }

    /// The ids of what [`ImageStore::save`] would write; an error if one of the names means nothing.
    pub fn saved_ids(&self, references: &[String]) -> Result<Vec<String>> {
        let wanted = self.wanted(references)?;
        Ok(wanted.into_iter().map(|(image, _)| image.id).collect())
    }

    /// The images, each with the names it was asked by, in full: a repository alone means all its tags.
    fn wanted(&self, references: &[String]) -> Result<Vec<(Image, Vec<String>)>> {
        let mut wanted: BTreeMap<String, (Image, BTreeSet<String>)> = BTreeMap::new();
        for name in references {
            let parsed = Reference::parse(name).ok();
            let keys = match &parsed {
                Some(reference) if is_bare(name) => self.names().tags_in(reference),
                Some(reference) => self.names().key(reference).into_iter().collect(),
                None => Vec::new(),
            };
            if keys.is_empty() {
                let image = self.resolve(name)?;
                wanted
                    .entry(image.id.clone())
                    .or_insert((image, BTreeSet::new()));
            }
            for key in keys {
                let image = self.resolve(&key)?;
                let entry = wanted
                    .entry(image.id.clone())
                    .or_insert((image, BTreeSet::new()));
                if !is_digest_key(&key) {
                    entry.1.insert(key);
                }
            }
        }
        Ok(wanted
            .into_values()
            .map(|(image, names)| (image, names.into_iter().collect()))
            .collect())
    }
}

/// Whether the name has neither tag nor digest.
fn is_bare(name: &str) -> bool {
    !name.rsplit('/').next().unwrap_or(name).contains([':', '@'])
}

struct Saving<'a, W: Write> {
    store: &'a ImageStore,
    tar: tar::Builder<W>,
    /// Digests of blobs that are in the archive.
    written: BTreeSet<String>,
    /// Of the images that are to be in it.
    ids: BTreeSet<String>,
    /// Diff ids to what their archive has now: digest and size.
    layers: BTreeMap<String, (String, u64)>,
    /// Names to tags to their topmost layers, for the oldest readers.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl<W: Write> Saving<'_, W> {
    fn image(
        &mut self,
        image: &Image,
        names: Vec<String>,
        entries: &mut Vec<ArchiveEntry>,
        manifests: &mut Vec<serde_json::Value>,
    ) -> Result<()> {
        let mut layers = Vec::new();
        for diff_id in &image.config.rootfs.diff_ids {
            layers.push(self.layer(diff_id)?);
        }
        let digests: Vec<&str> = layers.iter().map(|(digest, _)| digest.as_str()).collect();
        let mut config = self.store.config_bytes(&image.id)?;
        if digests != image.config.rootfs.diff_ids {
            let mut value: serde_json::Value =
                serde_json::from_slice(&config).map_err(io::Error::from)?;
            // One that is a list instead, which a reader may take for it as well, stays as it is.
            if let Some(diff_ids) = value.pointer_mut("/rootfs/diff_ids") {
                *diff_ids = json!(digests);
            }
            config = serde_json::to_vec(&value).map_err(io::Error::from)?;
        }
        let config_digest = self.blob(&config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": layers.iter().map(|(digest, size)| json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
            })).collect::<Vec<_>>(),
        })
        .to_string();
        let manifest_digest = self.blob(manifest.as_bytes())?;
        let descriptor = |name: Option<&String>| {
            let mut descriptor = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest_digest,
                "size": manifest.len(),
            });
            if let Some(name) = name {
                let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                descriptor["annotations"] = json!({
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": tag,
                });
            }
            descriptor
        };
        if names.is_empty() {
            manifests.push(descriptor(None));
        }
        manifests.extend(names.iter().map(|name| descriptor(Some(name))));
        if let Some(top) = digests.last() {
            for key in &names {
                let top = top.trim_start_matches("sha256:");
                let familiar = familiar_key(key);
                if let Some((name, tag)) = familiar.rsplit_once(':') {
                    let tags = self.repositories.entry(name.to_owned()).or_default();
                    tags.insert(tag.to_owned(), top.to_owned());
                }
            }
        }
        let names: Vec<String> = names.iter().map(|key| familiar_key(key)).collect();
        entries.push(ArchiveEntry {
            config: blob_name(&config_digest),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: digests.iter().map(|digest| blob_name(digest)).collect(),
            parent: image.meta.parent.clone().filter(|id| self.ids.contains(id)),
        });
        Ok(())
    }

    /// Puts a layer into the archive, once; the digest and size of its archive.
    fn layer(&mut self, diff_id: &str) -> Result<(String, u64)> {
        if let Some(known) = self.layers.get(diff_id) {
            return Ok(known.clone());
        }
        let scratch = self.store.layers().begin()?;
        let mut file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(scratch.diff().join("layer.tar"))?;
        let digest = self.store.layers().write_archive(diff_id, &mut file)?;
        let size = file.stream_position()?;
        file.seek(SeekFrom::Start(0))?;
        if self.written.insert(digest.clone()) {
            let mut header = header(size);
            self.tar
                .append_data(&mut header, blob_name(&digest), file)?;
        }
        self.layers
            .insert(diff_id.to_owned(), (digest.clone(), size));
        Ok((digest, size))
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<String> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        if self.written.insert(digest.clone()) {
            self.file(&blob_name(&digest), bytes)?;
        }
        Ok(digest)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = header(bytes.len() as u64);
        self.tar
            .append_data(&mut header, Path::new(name), bytes)
            .map_err(Error::from)
    }
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// A writer that hashes what passes through it.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> HashingWriter<W> {
    /// Around another writer.
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// `sha256:…` of everything written.
    pub(crate) fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.hash.finalize()))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageConfig, RegistryConfig, tar_of};

    #[test]
    fn what_is_saved_loads_with_the_same_files_and_names() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |root: &tempfile::TempDir| {
            ImageStore::open(root.path(), RegistryConfig::default()).unwrap()
        };
        let (from, to) = (open(&a), open(&b));
        let files = [
            ("z".to_owned(), (0o755, b"last".to_vec())),
            ("a".to_owned(), (0o644, b"first".to_vec())),
        ];
        let layer = tar_of(&files.into_iter().collect()).unwrap();
        let id = from
            .import(
                &layer[..],
                ImageConfig {
                    os: "linux".into(),
                    ..Default::default()
                },
            )
            .unwrap();
        for name in ["x:1", "x:2"] {
            from.tag(&id, &Reference::parse(name).unwrap()).unwrap();
        }
        let mut archive = Vec::new();
        from.save(&["x:1".into(), "x:2".into()], &mut archive)
            .unwrap();
        let loaded = to.load(&archive[..]).unwrap();
        assert_eq!(loaded[0].names, ["x:1", "x:2"]);
        let image = to.resolve("x:2").unwrap();
        let layer = &to.layer_dirs(&image)[0];
        assert_eq!(fs_err::read_to_string(layer.join("z")).unwrap(), "last");
        let mut again = Vec::new();
        to.save(&["x:1".into(), "x:2".into()], &mut again).unwrap();
        assert!(
            archive == again,
            "an image that was saved once keeps its id"
        );
    }
}
