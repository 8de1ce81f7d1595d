//! Archives of images: `docker save`'s format and OCI layouts in, `docker save`'s format (with an OCI layout inside) out.
//!
//! An archive is written to a scratch folder first, since its index may come last; blobs are taken from there by name.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Descriptor, Error, ImageConfig, ImageMeta, ImageStore, Manifest, PendingLayer, Platform,
    Reference, Result, Unpacked,
    decompress::peeked,
    original::Recording,
    pipeline::{Hashing, MAX_LAYER},
    unpack::unpack,
};

/// Between decompressing and unpacking.
const BUFFER: usize = 1 << 17;
/// Of a manifest, an index or a config, in bytes.
const LARGEST_DESCRIPTION: u64 = 16 << 20;

/// One image of a `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ArchiveEntry {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Vec<String>,
    /// The image that it was made from, where the archive has that one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
}

/// An image that an archive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: String,
    /// The names that it got.
    pub names: Vec<String>,
    /// Names that another image had until now, and that image's id.
    pub moved: Vec<(String, String)>,
}

impl ImageStore {
    /// Loads every image of an archive, gzip-compressed or not. Blocking.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Loaded>> {
        let scratch = self.layers().begin()?;
        let root = scratch.diff();
        read_archive(archive, &root)?;
        let entries = match fs_err::read(root.join("manifest.json")) {
            Ok(text) => serde_json::from_slice::<Option<Vec<ArchiveEntry>>>(&text)
                .map_err(|error| Error::Unsupported(format!("manifest.json: {error}")))?
                .unwrap_or_default(),
            Err(_) => layout_entries(&root)?,
        };
        let load = |entry| self.load_image(&root, entry);
        let loaded = entries.iter().map(load).collect::<Result<Vec<_>>>()?;
        for (image, entry) in loaded.iter().zip(&entries) {
            let parent = loaded.iter().find(|l| Some(&l.id) == entry.parent.as_ref());
            if let Some(parent) = parent {
                self.descend(&image.id, &parent.id)?;
            }
        }
        Ok(loaded)
    }

    fn load_image(&self, root: &Path, entry: &ArchiveEntry) -> Result<Loaded> {
        let config = read_inside(root, &entry.config)?;
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| Error::Unsupported(format!("{}: {error}", entry.config)))?;
        if parsed.rootfs.diff_ids.len() != entry.layers.len() {
            return Err(Error::Unsupported(format!(
                "{}: as many layers as the archive lists are needed",
                entry.config
            )));
        }
        let names: Vec<Reference> = entry
            .repo_tags
            .iter()
            .flatten()
            .map(|name| Reference::parse(name))
            .collect::<Result<_>>()?;
        let _pins = self.pin(&parsed.rootfs.diff_ids);
        for (layer, diff_id) in entry.layers.iter().zip(&parsed.rootfs.diff_ids) {
            self.load_layer(root, layer, diff_id)?;
        }
        let id = self.add(&config, &ImageMeta::default())?;
        let mut moved = Vec::new();
        for name in &names {
            let former = self.resolve(&name.to_string()).ok();
            if let Some(former) = former.filter(|former| former.id != id) {
                moved.push((name.familiar(), former.id));
            }
            self.point(&id, name)?;
        }
        Ok(Loaded {
            id,
            moved,
            names: names.iter().map(Reference::familiar).collect(),
        })
    }

    fn load_layer(&self, root: &Path, layer: &str, diff_id: &str) -> Result<()> {
        if self.layers().has(diff_id) {
            return Ok(());
        }
        let file = open_inside(root, layer)?;
        let pending = self.layers().begin()?;
        let (unpacked, got) = unpack_recorded(file, &pending)?;
        if got != diff_id {
            return Err(Error::Digest {
                what: format!("layer {layer}"),
                expected: diff_id.to_owned(),
                got,
            });
        }
        pending.commit(diff_id, unpacked.size)
    }

    /// Makes an image of one layer from an archive of files; returns its id. Blocking.
    pub fn import(&self, archive: impl Read, mut config: ImageConfig) -> Result<String> {
        let pending = self.layers().begin()?;
        let (unpacked, diff_id) = unpack_recorded(archive, &pending)?;
        let _pins = self.pin(std::slice::from_ref(&diff_id));
        pending.commit(&diff_id, unpacked.size)?;
        config.rootfs = super::RootFs {
            kind: "layers".into(),
            diff_ids: vec![diff_id],
        };
        let config = serde_json::to_vec(&config).map_err(std::io::Error::from)?;
        self.add(&config, &ImageMeta::default())
    }
}

/// Unpacks a layer, compressed or not, so that its archive can be written again; with the digest of what it is
/// uncompressed, to the last byte.
fn unpack_recorded(archive: impl Read, pending: &PendingLayer) -> Result<(Unpacked, String)> {
    let archive = Recording::new(Hashing::new(peeked(archive)?), &pending.record())?;
    let mut archive = BufReader::with_capacity(BUFFER, archive);
    let unpacked = unpack(&mut archive, &pending.diff(), MAX_LAYER)?;
    std::io::copy(&mut archive, &mut std::io::sink())?;
    Ok((unpacked, archive.into_inner().finish()?.digest()))
}

/// Writes the archive's files into `root` as they are.
fn read_archive(archive: impl Read, root: &Path) -> Result<()> {
    let mut archive = BufReader::with_capacity(BUFFER, peeked(archive)?);
    unpack(&mut archive, root, MAX_LAYER)?;
    // To its end: a client that is cut off in the middle of it hears of no answer.
    std::io::copy(&mut archive, &mut std::io::sink())?;
    Ok(())
}

/// The images of an OCI layout, in the words of `manifest.json`.
fn layout_entries(root: &Path) -> Result<Vec<ArchiveEntry>> {
    let index = read_inside(root, "index.json").map_err(|_| {
        Error::Unsupported(
            "the archive has neither manifest.json nor index.json: it is not an image".into(),
        )
    })?;
    let index: Manifest = serde_json::from_slice(&index)
        .map_err(|error| Error::Unsupported(format!("index.json: {error}")))?;
    let mut entries = Vec::new();
    for descriptor in &index.manifests {
        let annotation = |key: &str| descriptor.annotations.get(key).cloned();
        // The second is often a tag alone, which is no name.
        let name = annotation("io.containerd.image.name").or_else(|| {
            annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']))
        });
        if let Some(manifest) = image_manifest(root, descriptor, 0)?
            && let Some(config) = &manifest.config
        {
            let layers = manifest.layers.iter();
            entries.push(ArchiveEntry {
                config: blob_path(&config.digest),
                repo_tags: name.map(|name| vec![name]),
                layers: layers.map(|layer| blob_path(&layer.digest)).collect(),
                parent: None,
            });
        }
    }
    Ok(entries)
}

/// The manifest behind a descriptor: of an index the one for this host, else the first that is in the archive.
fn image_manifest(root: &Path, descriptor: &Descriptor, depth: usize) -> Result<Option<Manifest>> {
    let manifest: Manifest = serde_json::from_slice(&read_blob(root, descriptor)?)
        .map_err(|error| Error::Unsupported(format!("{}: {error}", descriptor.digest)))?;
    if manifest.config.is_some() || depth > 2 {
        return Ok(Some(manifest));
    }
    let host = Platform::host();
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|p| host.accepts(p));
    let (ours, others): (Vec<_>, Vec<_>) = manifest.manifests.iter().partition(fits);
    for entry in ours.into_iter().chain(others) {
        // An index names all platforms, an archive need not have them.
        if open_inside(root, blob_path(&entry.digest)).is_ok() {
            return image_manifest(root, entry, depth + 1);
        }
    }
    Ok(None)
}

fn read_blob(root: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let bytes = read_inside(root, &blob_path(&descriptor.digest))?;
    let got = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    if got != descriptor.digest {
        return Err(Error::Digest {
            what: "blob".into(),
            expected: descriptor.digest.clone(),
            got,
        });
    }
    Ok(bytes)
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn read_inside(root: &Path, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_inside(root, name)?;
    file.take(LARGEST_DESCRIPTION + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_DESCRIPTION {
        return Err(Error::Archive(format!(
            "{name} is over {LARGEST_DESCRIPTION} bytes"
        )));
    }
    Ok(bytes)
}

/// Opens a file of the archive; its links (old archives have them between layers) stay inside, and its devices are not opened.
pub(super) fn open_inside(root: &Path, name: impl AsRef<Path>) -> Result<std::fs::File> {
    use crate::container::rooted;
    use std::os::fd::AsFd as _;
    let opened = rooted::open_root(root)
        .and_then(|directory| rooted::open_file(directory.as_fd(), name.as_ref()));
    opened.map_err(|error| {
        let name = name.as_ref();
        Error::Unsupported(format!("the archive has no usable {name:?}: {error}"))
    })
}

/// A tar of the files given, for tests and for images made in memory.
pub fn tar_of(files: &BTreeMap<String, (u32, Vec<u8>)>) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, (mode, content)) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, name, content.as_slice())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RegistryConfig;

    fn files(list: &[(&str, &[u8])]) -> BTreeMap<String, (u32, Vec<u8>)> {
        list.iter()
            .map(|(name, content)| ((*name).to_owned(), (0o644, content.to_vec())))
            .collect()
    }

    fn digest(bytes: &[u8]) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
    }

    fn store() -> (tempfile::TempDir, ImageStore) {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        (root, store)
    }

    fn docker_archive(diff_id: &str, layer: &[u8]) -> Vec<u8> {
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let manifest = r#"[{"Config":"c.json","RepoTags":["hello:1"],"Layers":["l/layer.tar"]}]"#;
        tar_of(&files(&[
            ("c.json", config.as_bytes()),
            ("l/layer.tar", layer),
            ("manifest.json", manifest.as_bytes()),
        ]))
        .unwrap()
    }

    #[test]
    fn a_docker_archive_is_loaded_and_named() {
        let (_root, store) = store();
        let layer = tar_of(&files(&[("etc/motd", b"hi")])).unwrap();
        let archive = docker_archive(&digest(&layer), &layer);
        let loaded = store.load(&archive[..]).unwrap();
        assert_eq!(loaded[0].names, ["hello:1"]);
        let image = store.resolve("hello:1").unwrap();
        assert_eq!((&image.id, image.size), (&loaded[0].id, 2));
        assert_eq!(
            fs_err::read_to_string(store.layer_dirs(&image)[0].join("etc/motd")).unwrap(),
            "hi"
        );
        assert_eq!(
            store.load(&archive[..]).unwrap(),
            loaded,
            "loading again changes nothing"
        );
    }

    #[test]
    fn a_wrong_digest_or_no_image_leaves_nothing() {
        let (root, store) = store();
        let layer = tar_of(&files(&[("a", b"a")])).unwrap();
        let lie = docker_archive(&digest(b"other"), &layer);
        assert!(matches!(store.load(&lie[..]), Err(Error::Digest { .. })));
        assert!(matches!(store.load(&layer[..]), Err(Error::Unsupported(_))));
        let outside = tar_of(&files(&[(
            "manifest.json",
            br#"[{"Config":"../../../../etc/passwd","Layers":[]}]"#,
        )]))
        .unwrap();
        assert!(matches!(
            store.load(&outside[..]),
            Err(Error::Unsupported(_))
        ));
        assert!(store.list().unwrap().is_empty() && store.layers().list().unwrap().is_empty());
        assert_eq!(
            fs_err::read_dir(root.path().join("tmp")).unwrap().count(),
            0
        );
    }

    /// What would make a part of one layer, and what it links to, another one.
    #[test]
    fn layers_are_named_by_digests_alone() {
        let (_root, store) = store();
        let layer = tar_of(&files(&[("evil/layer.json", b"{}"), ("evil/diff/a", b"a")])).unwrap();
        let loaded = store.load(&docker_archive(&digest(&layer), &layer)[..]);
        assert_eq!(loaded.unwrap().len(), 1);
        let part = format!("{}/diff/evil", digest(&layer));
        let error = store
            .load(&docker_archive(&part, &layer)[..])
            .unwrap_err()
            .to_string();
        assert!(error.contains("no sha256 digest"), "{error}");
        assert!(!store.layers().has(&part));
    }

    #[test]
    fn an_oci_layout_is_loaded() {
        let (_root, store) = store();
        let layer = tar_of(&files(&[("a", b"a")])).unwrap();
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(&layer)
        );
        let descriptor =
            |bytes: &[u8]| format!(r#"{{"digest":"{}","size":{}}}"#, digest(bytes), bytes.len());
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor(config.as_bytes()),
            descriptor(&layer)
        );
        // An index in the index, as builders write it; the platform that is not in the archive is passed by.
        let inner = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","platform":{{"os":"linux","architecture":"{}"}}}},{{"digest":"{}"}}]}}"#,
            digest(b"elsewhere"),
            Platform::host().architecture,
            digest(manifest.as_bytes())
        );
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","annotations":{{"org.opencontainers.image.ref.name":"oci:2"}}}},
            {{"digest":"{}","annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
            digest(inner.as_bytes()),
            digest(manifest.as_bytes())
        );
        let blob = |bytes: &[u8]| blob_path(&digest(bytes));
        let (b1, b2, b3) = (
            blob(&layer),
            blob(config.as_bytes()),
            blob(manifest.as_bytes()),
        );
        let archive = tar_of(&files(&[
            (&b1, &layer),
            (&b2, config.as_bytes()),
            (&b3, manifest.as_bytes()),
            (&blob(inner.as_bytes()), inner.as_bytes()),
            ("index.json", index.as_bytes()),
        ]))
        .unwrap();
        let loaded = store.load(&archive[..]).unwrap();
        assert_eq!(loaded[0].names, ["oci:2"]);
        assert!(loaded[1].names.is_empty(), "a tag alone is no name");
    }
}
