//! The images of one engine: names, configs and the layers that they share.
//!
//! `<root>/images/<id>.json` is the config, byte for byte, so that its digest stays the id; `<id>.meta.json` is what
//! Docker keeps beside it; `<root>/repositories.json` maps names to ids. Each is replaced by one durable rename.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, ImageConfig, LayerStore, Reference, RegistryConfig, Result};

/// Images and their layers.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    layers: LayerStore,
    registries: RegistryConfig,
    names: Mutex<Names>,
    /// Layers on their way, so that two pulls fetch one once.
    pub(super) arriving: super::arrival::Arrivals,
}

/// Names of images: `registry/repository:tag` and `registry/repository@digest` in full, to ids.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Names {
    tags: BTreeMap<String, String>,
    digests: BTreeMap<String, String>,
}

/// What is kept beside an image's config.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageMeta {
    /// Id of the image that a build or commit began with.
    #[serde(default)]
    pub parent: Option<String>,
    /// The container config of the step that made it, for the build cache.
    #[serde(default)]
    pub build_step: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub last_tagged: Option<String>,
}

/// An image as clients see it.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…` of the config.
    pub id: String,
    /// `httpd:2.4`.
    pub repo_tags: Vec<String>,
    /// `httpd@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Bytes of file content in all layers.
    pub size: u64,
    /// The config.
    pub config: ImageConfig,
    /// What is kept beside it.
    pub meta: ImageMeta,
}

/// What a removal did, in Docker's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away.
    Untagged(String),
    /// An image or layer is gone.
    Deleted(String),
}

impl ImageStore {
    /// Opens or makes the store under `root`.
    pub fn open(root: &Path, registries: RegistryConfig) -> Result<Self> {
        fs_err::create_dir_all(root.join("images"))?;
        let layers = LayerStore::open(root)?;
        let names = match fs_err::read(root.join("repositories.json")) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::Unsupported(format!("repositories.json: {error}")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Names::default(),
            Err(error) => return Err(error.into()),
        };
        let store = Self {
            root: root.to_owned(),
            layers,
            registries,
            names: Mutex::new(names),
            arriving: Default::default(),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The layers.
    pub fn layers(&self) -> &LayerStore {
        &self.layers
    }

    /// The registry settings.
    pub fn registries(&self) -> &RegistryConfig {
        &self.registries
    }

    /// Directories to mount as lower ones, the topmost first.
    pub fn layer_dirs(&self, image: &Image) -> Vec<PathBuf> {
        image
            .config
            .rootfs
            .diff_ids
            .iter()
            .rev()
            .map(|id| self.layers.diff(id))
            .collect()
    }

    /// Finds an image by name, digest, id or a prefix of an id.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let id = self.resolve_id(name)?;
        self.image(&id)
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Result<Vec<Image>> {
        self.ids()?.iter().map(|id| self.image(id)).collect()
    }

    /// Gives an image one more name; the name leaves the image that had it.
    pub fn tag(&self, id: &str, reference: &Reference) -> Result<()> {
        let mut names = self.names();
        let before = names.clone();
        let key = format!(
            "{}/{}:{}",
            reference.registry,
            reference.repository,
            reference.tag.as_deref().unwrap_or("latest")
        );
        names.tags.insert(key, id.to_owned());
        self.save_names(&mut names, before)
    }

    /// Remembers the registry's digest of an image.
    pub fn remember_digest(
        &self,
        id: &str,
        reference: &Reference,
        manifest_digest: &str,
    ) -> Result<()> {
        let mut names = self.names();
        let before = names.clone();
        names.digests.insert(
            format!(
                "{}/{}@{manifest_digest}",
                reference.registry, reference.repository
            ),
            id.to_owned(),
        );
        self.save_names(&mut names, before)
    }

    /// Adds an image whose layers are all here; `config` is stored byte for byte. Returns the id.
    pub fn add(&self, config: &[u8], meta: &ImageMeta) -> Result<String> {
        let parsed: ImageConfig = serde_json::from_slice(config)
            .map_err(|error| Error::Unsupported(format!("image config: {error}")))?;
        if let Some(missing) = parsed
            .rootfs
            .diff_ids
            .iter()
            .find(|diff_id| !self.layers.has(diff_id))
        {
            return Err(Error::Unsupported(format!(
                "layer {missing} of the image is not here"
            )));
        }
        let id = format!("sha256:{}", hex::encode(Sha256::digest(config)));
        if !self.config_path(&id).exists() {
            let meta = serde_json::to_vec(meta).map_err(std::io::Error::from)?;
            write_durably(&self.meta_path(&id), &meta)?;
            write_durably(&self.config_path(&id), config)?;
        }
        Ok(id)
    }

    /// Takes a name away, or by id the whole image. `users` says which containers use an image id.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        users: impl Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        let image = self.resolve(name)?;
        let by_id = image.id == name || image.id.trim_start_matches("sha256:").starts_with(name);
        let mut names = self.names();
        let before = names.clone();
        let mine =
            |map: &BTreeMap<String, String>| map.iter().filter(|(_, id)| **id == image.id).count();
        let mut removed = Vec::new();
        if by_id {
            if mine(&names.tags) > 1 && !force {
                let short = short(&image.id);
                return Err(Error::Conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
                )));
            }
            for key in names
                .tags
                .iter()
                .filter(|(_, id)| **id == image.id)
                .map(|(key, _)| key)
            {
                removed.push(Removed::Untagged(familiar_key(key)));
            }
            names.tags.retain(|_, id| *id != image.id);
        } else if let Some(key) = name_key(&Reference::parse(name)?, &names) {
            removed.push(Removed::Untagged(familiar_key(&key)));
            names.tags.remove(&key);
            names.digests.remove(&key);
        }
        if mine(&names.tags) > 0 {
            self.save_names(&mut names, before)?;
            return Ok(removed);
        }
        let in_use = users(&image.id);
        if let Some(container) = in_use.first().filter(|_| !force || by_id) {
            let words = if by_id {
                "cannot be forced"
            } else {
                "must be forced"
            };
            *names = before;
            return Err(Error::Conflict(format!(
                "conflict: unable to {} {name} ({words}) - container {} is using its referenced image {}",
                if by_id {
                    "delete"
                } else {
                    "remove repository reference"
                },
                short(container),
                short(&image.id)
            )));
        }
        if in_use.is_empty() {
            for key in names
                .digests
                .iter()
                .filter(|(_, id)| **id == image.id)
                .map(|(key, _)| key)
            {
                removed.push(Removed::Untagged(familiar_key(key)));
            }
            names.digests.retain(|_, id| *id != image.id);
        }
        self.save_names(&mut names, before)?;
        drop(names);
        if in_use.is_empty() {
            self.delete(&image, &mut removed)?;
        }
        Ok(removed)
    }

    /// Removes images without a name, or all, that are not in `used`; with the bytes of the layers won.
    pub fn prune(&self, all: bool, used: &[String]) -> Result<(Vec<Removed>, u64)> {
        let (mut removed, mut won) = (Vec::new(), 0);
        // Children go before their parents, which they keep.
        loop {
            let mut progress = false;
            for image in self.list()? {
                let named = !image.repo_tags.is_empty() && !all;
                if named || used.contains(&image.id) {
                    continue;
                }
                let before = self.layers_size()?;
                let mut gone = Vec::new();
                self.delete(&image, &mut gone)?;
                if !gone.is_empty() {
                    self.forget_names(&image.id, &mut removed)?;
                    won += before.saturating_sub(self.layers_size()?);
                    progress = true;
                    removed.append(&mut gone);
                }
            }
            if !progress {
                return Ok((removed, won));
            }
        }
    }

    fn layers_size(&self) -> Result<u64> {
        let layers = self.layers.list()?;
        Ok(layers
            .iter()
            .filter_map(|id| self.layers.info(id).ok())
            .map(|info| info.size)
            .sum())
    }

    fn forget_names(&self, id: &str, removed: &mut Vec<Removed>) -> Result<()> {
        let mut names = self.names();
        let before = names.clone();
        for map in [&before.tags, &before.digests] {
            removed.extend(
                map.iter()
                    .filter(|(_, owner)| *owner == id)
                    .map(|(key, _)| Removed::Untagged(familiar_key(key))),
            );
        }
        names.tags.retain(|_, owner| owner != id);
        names.digests.retain(|_, owner| owner != id);
        self.save_names(&mut names, before)
    }

    fn delete(&self, image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        if self
            .list()?
            .iter()
            .any(|other| other.meta.parent.as_ref() == Some(&image.id))
        {
            return Ok(());
        }
        fs_err::remove_file(self.config_path(&image.id))?;
        fs_err::remove_file(self.meta_path(&image.id))?;
        removed.push(Removed::Deleted(image.id.clone()));
        let kept: BTreeSet<String> = self
            .list()?
            .into_iter()
            .flat_map(|other| other.config.rootfs.diff_ids)
            .collect();
        for diff_id in image
            .config
            .rootfs
            .diff_ids
            .iter()
            .rev()
            .filter(|id| !kept.contains(*id))
        {
            self.layers.remove(diff_id)?;
            removed.push(Removed::Deleted(diff_id.clone()));
        }
        self.delete_step_before(image, removed)
    }

    /// The steps that a build went through have no names of their own and go with what they led to.
    fn delete_step_before(&self, image: &Image, removed: &mut Vec<Removed>) -> Result<()> {
        let Some(parent) = image
            .meta
            .parent
            .as_deref()
            .and_then(|id| self.image(id).ok())
        else {
            return Ok(());
        };
        if parent.repo_tags.is_empty() && parent.repo_digests.is_empty() {
            self.delete(&parent, removed)?;
        }
        Ok(())
    }

    /// Layers of no image, and names of none, are what a crash in the middle left.
    fn sweep(&self) -> Result<()> {
        let images = self.list()?;
        let mut names = self.names();
        let before = names.clone();
        let known = |id: &String| images.iter().any(|image| image.id == *id);
        names.tags.retain(|_, id| known(id));
        names.digests.retain(|_, id| known(id));
        if *names != before {
            self.save_names(&mut names, before)?;
        }
        drop(names);
        let kept: BTreeSet<String> = images
            .into_iter()
            .flat_map(|image| image.config.rootfs.diff_ids)
            .collect();
        for diff_id in self.layers.list()?.iter().filter(|id| !kept.contains(*id)) {
            tracing::info!(diff_id, "removing a layer of no image");
            self.layers.remove(diff_id)?;
        }
        Ok(())
    }

    fn resolve_id(&self, name: &str) -> Result<String> {
        let names = self.names();
        if let Ok(reference) = Reference::parse(name)
            && let Some(key) = name_key(&reference, &names)
        {
            let id = names.tags.get(&key).or_else(|| names.digests.get(&key));
            return id
                .cloned()
                .ok_or_else(|| Error::NoSuchImage(name.to_owned()));
        }
        drop(names);
        let prefix = name.trim_start_matches("sha256:");
        let hexadecimal = !prefix.is_empty()
            && prefix.len() <= 64
            && prefix.bytes().all(|b| b.is_ascii_hexdigit());
        let ids = if hexadecimal { self.ids()? } else { Vec::new() };
        let mut found = ids
            .into_iter()
            .filter(|id| id.trim_start_matches("sha256:").starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(Error::Conflict(format!(
                "image ID prefix {prefix} is ambiguous"
            ))),
            (None, _) if Reference::parse(name).is_err() => {
                Err(Error::InvalidReference(name.to_owned()))
            }
            (None, _) => Err(Error::NoSuchImage(missing_name(name))),
        }
    }

    fn image(&self, id: &str) -> Result<Image> {
        let config = fs_err::read(self.config_path(id))?;
        let config: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| Error::Unsupported(format!("image config {id}: {error}")))?;
        let meta = fs_err::read(self.meta_path(id))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let size = config
            .rootfs
            .diff_ids
            .iter()
            .filter_map(|id| self.layers.info(id).ok())
            .map(|info| info.size)
            .sum();
        let names = self.names();
        let of = |map: &BTreeMap<String, String>| -> Vec<String> {
            map.iter()
                .filter(|(_, owner)| *owner == id)
                .map(|(key, _)| familiar_key(key))
                .collect()
        };
        Ok(Image {
            id: id.to_owned(),
            repo_tags: of(&names.tags),
            repo_digests: of(&names.digests),
            size,
            config,
            meta,
        })
    }

    /// The config of an image, byte for byte.
    pub fn config_bytes(&self, id: &str) -> Result<Vec<u8>> {
        Ok(fs_err::read(self.config_path(id))?)
    }

    fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.root.join("images"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(hex) = name.strip_suffix(".json").filter(|hex| hex.len() == 64) {
                ids.push(format!("sha256:{hex}"));
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save_names(&self, names: &mut Names, before: Names) -> Result<()> {
        let text = serde_json::to_vec_pretty(&*names).map_err(std::io::Error::from)?;
        write_durably(&self.root.join("repositories.json"), &text).inspect_err(|_| *names = before)
    }

    fn config_path(&self, id: &str) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn meta_path(&self, id: &str) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}.meta.json", id.trim_start_matches("sha256:")))
    }
}

/// Twelve hex digits.
fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

fn name_key(reference: &Reference, names: &Names) -> Option<String> {
    let base = format!("{}/{}", reference.registry, reference.repository);
    let by_digest = reference
        .digest
        .as_ref()
        .map(|digest| format!("{base}@{digest}"));
    let by_tag = reference
        .tag
        .as_ref()
        .filter(|_| reference.digest.is_none())
        .map(|tag| format!("{base}:{tag}"));
    by_digest
        .filter(|key| names.digests.contains_key(key))
        .or_else(|| by_tag.filter(|key| names.tags.contains_key(key)))
}

fn familiar_key(key: &str) -> String {
    let short = key.strip_prefix("docker.io/").unwrap_or(key);
    short
        .strip_prefix("library/")
        .filter(|_| key.starts_with("docker.io/"))
        .unwrap_or(short)
        .to_owned()
}

fn missing_name(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

/// Writes beside `path`, syncs, renames over it, and syncs the directory.
fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = path.with_extension(format!("{}.new", hex::encode(rand::random::<[u8; 4]>())));
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs_err::rename(&temporary, path)?;
    Ok(fs_err::File::open(directory)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_with_image() -> (tempfile::TempDir, ImageStore, String) {
        let root = tempfile::tempdir().unwrap();
        let store = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        let diff_id = format!("sha256:{}", "1".repeat(64));
        store.layers().begin().unwrap().commit(&diff_id, 7).unwrap();
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","config":{{"Env":null,"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let id = store.add(config.as_bytes(), &ImageMeta::default()).unwrap();
        (root, store, id)
    }

    #[test]
    fn an_image_is_found_by_every_name_it_has() {
        let (root, store, id) = store_with_image();
        store
            .tag(&id, &Reference::parse("httpd:2.4").unwrap())
            .unwrap();
        let digest = format!("sha256:{}", "d".repeat(64));
        store
            .remember_digest(&id, &Reference::parse("httpd:2.4").unwrap(), &digest)
            .unwrap();
        let reopened = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        let by_digest = format!("httpd@{digest}");
        for name in [
            "httpd:2.4",
            "docker.io/library/httpd:2.4",
            &id,
            &id[7..19],
            &by_digest,
        ] {
            let image = reopened.resolve(name).unwrap();
            assert_eq!(
                (
                    image.id.as_str(),
                    image.size,
                    image.config.config.cmd.unwrap().len()
                ),
                (id.as_str(), 7, 1),
                "{name}"
            );
        }
        assert!(
            matches!(reopened.resolve("httpd"), Err(Error::NoSuchImage(name)) if name == "httpd:latest")
        );
    }

    #[test]
    fn the_last_name_takes_the_image_and_its_layers_along() {
        let (_root, store, id) = store_with_image();
        for name in ["a:1", "b:1"] {
            store.tag(&id, &Reference::parse(name).unwrap()).unwrap();
        }
        assert_eq!(
            store.remove("a:1", false, |_| vec![]).unwrap(),
            [Removed::Untagged("a:1".into())]
        );
        assert!(matches!(
            store.remove("b:1", false, |_| vec!["c".repeat(64)]),
            Err(Error::Conflict(_))
        ));
        assert_eq!(
            store.resolve("b:1").unwrap().repo_tags,
            ["b:1"],
            "a refused removal changes nothing"
        );
        let removed = store.remove("b:1", false, |_| vec![]).unwrap();
        assert_eq!(
            removed[..2],
            [Removed::Untagged("b:1".into()), Removed::Deleted(id)]
        );
        assert!(store.list().unwrap().is_empty() && store.layers().list().unwrap().is_empty());
    }

    #[test]
    fn layers_of_no_image_are_swept_at_the_start() {
        let (root, store, _) = store_with_image();
        store
            .layers()
            .begin()
            .unwrap()
            .commit(&format!("sha256:{}", "2".repeat(64)), 1)
            .unwrap();
        let unfinished = store.layers().begin().unwrap();
        std::mem::forget(unfinished);
        let store = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        assert_eq!(store.layers().list().unwrap().len(), 1);
        assert_eq!(
            fs_err::read_dir(root.path().join("tmp")).unwrap().count(),
            0
        );
    }
}
