//! The images of one engine: names, configs and the layers that they share.
//!
//! `<root>/images/<id>.json` is the config, byte for byte, so that its digest stays the id; `<id>.meta.json` is what
//! Docker keeps beside it; `<root>/repositories.json` maps names to ids. Each is replaced by one rename. What has a name is
//! on the disk before the name is; images without one, as steps of a build leave by the dozen, get there when the kernel
//! writes them, and what a power cut left of one is removed at the next start.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::names::{Names, familiar_key};
use super::{Error, ImageConfig, LayerStore, Reference, RegistryConfig, Result};

/// Images and their layers.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    layers: LayerStore,
    registries: RegistryConfig,
    names: Mutex<Names>,
    changing: Mutex<()>,
    /// Layers that somebody is about to make an image of, once for each of them.
    pinned: Arc<Mutex<Vec<String>>>,
    /// Layers on their way, so that two pulls fetch one once.
    pub(super) arriving: super::arrival::Arrivals,
}

/// What is kept beside an image's config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq)]
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

/// See [`ImageStore::pin`].
#[derive(Debug)]
pub struct Pins {
    pinned: Arc<Mutex<Vec<String>>>,
    diff_ids: Vec<String>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        for diff_id in &self.diff_ids {
            if let Some(at) = pinned.iter().position(|id| id == diff_id) {
                pinned.swap_remove(at);
            }
        }
    }
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
            changing: Mutex::default(),
            pinned: Arc::default(),
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
        let _one = self.changing();
        self.put_name(id, reference)?;
        self.update_meta(id, |meta| {
            meta.last_tagged = Some(crate::container::clock::now());
        })
    }

    /// Gives it a name that it had elsewhere, which is nobody's tagging here.
    pub fn point(&self, id: &str, reference: &Reference) -> Result<()> {
        let _one = self.changing();
        self.put_name(id, reference)
    }

    fn put_name(&self, id: &str, reference: &Reference) -> Result<()> {
        // It may have been removed just now.
        self.image(id)
            .map_err(|_| Error::NoSuchImage(id.to_owned()))?;
        self.settle(id)?;
        let mut names = self.names();
        let before = names.clone();
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let key = format!("{}:{tag}", reference.full_name());
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
        self.settle(id)?;
        let mut names = self.names();
        let before = names.clone();
        names.digests.insert(
            format!("{}@{manifest_digest}", reference.full_name()),
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
        // An image that is being removed is gone before it can be found again.
        let _one = self.changing();
        if !self.config_path(&id).exists() {
            let meta = serde_json::to_vec(meta).map_err(std::io::Error::from)?;
            replace(&self.meta_path(&id), &meta)?;
            replace(&self.config_path(&id), config)?;
        }
        Ok(id)
    }

    /// Layers of no image, and names of none, are what a crash in the middle left.
    fn sweep(&self) -> Result<()> {
        for id in self.ids()? {
            // Zeros or nothing: it had no name yet when the power went.
            if matches!(self.image(&id), Err(Error::Unsupported(_))) {
                tracing::warn!(id, "removing an image whose config is broken");
                fs_err::remove_file(self.config_path(&id))?;
            }
        }
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
        let kept = self.layers_of_images()?;
        for diff_id in self.layers.list()?.iter().filter(|id| !kept.contains(*id)) {
            tracing::info!(diff_id, "removing a layer of no image");
            self.layers.remove(diff_id)?;
        }
        self.sweep_files()
    }

    /// What is kept beside an image comes before it and goes after it; a file with another ending was never finished.
    fn sweep_files(&self) -> Result<()> {
        let folder = self.root.join("images");
        let files = fs_err::read_dir(&folder)?.chain(fs_err::read_dir(&self.root)?);
        for entry in files {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let owner = name.split('.').next().unwrap_or_default();
            let beside = path.parent() == Some(&folder);
            let unfinished = name.ends_with(".new") && (beside || owner == "repositories");
            // A removed image that a container still has is released with the last such container.
            let lost = beside
                && !name.ends_with(".hidden")
                && !folder.join(format!("{owner}.json")).exists();
            if unfinished || lost {
                tracing::info!(file = %path.display(), "removing what belongs to no image");
                fs_err::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn resolve_id(&self, name: &str) -> Result<String> {
        let whole = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if whole(name.trim_start_matches("sha256:")) && self.config_path(name).exists() {
            return Ok(format!("sha256:{}", name.trim_start_matches("sha256:")));
        }
        let names = self.names();
        if let Ok(reference) = Reference::parse(name)
            && let Some(key) = names.key(&reference)
        {
            return names
                .id(&key)
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
            (None, _) if hexadecimal && prefix.len() == 64 => {
                Err(Error::NoSuchImage(name.to_owned()))
            }
            (None, _) => match Reference::parse(name) {
                Ok(reference) => Err(Error::NoSuchImage(reference.to_string())),
                Err(error) => Err(error),
            },
        }
    }

    pub(super) fn image(&self, id: &str) -> Result<Image> {
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
        let familiar = |keys: Vec<String>| keys.iter().map(|key| familiar_key(key)).collect();
        Ok(Image {
            id: id.to_owned(),
            repo_tags: familiar(names.tags_of(id)),
            repo_digests: familiar(names.digests_of(id)),
            size,
            config,
            meta,
        })
    }

    /// Changes what is kept beside an image's config.
    /// Remembers what an image was made from, where that begins like it.
    pub(super) fn descend(&self, id: &str, parent: &str) -> Result<()> {
        let _one = self.changing();
        let (Ok(image), Ok(parent)) = (self.image(id), self.image(parent)) else {
            return Ok(());
        };
        let layers = &image.config.rootfs.diff_ids;
        if image.id != parent.id && layers.starts_with(&parent.config.rootfs.diff_ids) {
            self.update_meta(id, |meta| meta.parent = Some(parent.id))?;
        }
        Ok(())
    }

    fn update_meta(&self, id: &str, change: impl FnOnce(&mut ImageMeta)) -> Result<()> {
        let mut meta = self.image(id)?.meta;
        change(&mut meta);
        let meta = serde_json::to_vec(&meta).map_err(std::io::Error::from)?;
        // Without it an image is as good, but for its parent and the time of its name.
        replace(&self.meta_path(id), &meta)
    }

    /// Has an image's config on the disk. Costs nothing when it is there already.
    fn settle(&self, id: &str) -> Result<()> {
        Ok(fs_err::File::open(self.config_path(id))?.sync_data()?)
    }

    /// Removes config and facts of an image, nothing else.
    pub(super) fn forget_files(&self, id: &str) -> Result<()> {
        fs_err::remove_file(self.config_path(id))?;
        Ok(fs_err::remove_file(self.meta_path(id))?)
    }

    /// Takes an image out of sight, but not from the containers that were made from it.
    pub(super) fn hide(&self, id: &str) -> Result<()> {
        fs_err::rename(self.config_path(id), self.hidden_path(id))?;
        Ok(fs_err::remove_file(self.meta_path(id))?)
    }

    /// The image of a container, even if it is removed.
    pub fn image_of_container(&self, id: &str) -> Result<Image> {
        match self.image(id) {
            Ok(image) => Ok(image),
            Err(error) => self.hidden(id).map_err(|_| error),
        }
    }

    fn hidden(&self, id: &str) -> Result<Image> {
        let config = fs_err::read(self.hidden_path(id))?;
        let config = serde_json::from_slice(&config)
            .map_err(|error| Error::Unsupported(format!("image config {id}: {error}")))?;
        Ok(Image {
            id: id.to_owned(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: 0,
            config,
            meta: ImageMeta::default(),
        })
    }

    /// Images that only containers have.
    pub(super) fn all_hidden(&self) -> Result<Vec<Image>> {
        let ids = self.ids_with(".hidden")?;
        Ok(ids.iter().filter_map(|id| self.hidden(id).ok()).collect())
    }

    /// Removes hidden images that no container was made from, and layers of no image.
    pub(super) fn release(&self, used: impl Fn(&str) -> bool) -> Result<()> {
        let hidden = self.all_hidden()?;
        if hidden.is_empty() {
            return Ok(());
        }
        let _one = self.changing();
        for image in hidden.iter().filter(|image| !used(&image.id)) {
            fs_err::remove_file(self.hidden_path(&image.id))?;
        }
        let kept = self.layers_of_images()?;
        let layers = hidden
            .iter()
            .flat_map(|image| &image.config.rootfs.diff_ids);
        for diff_id in layers.filter(|id| !kept.contains(*id)) {
            self.remove_unpinned(diff_id)?;
        }
        Ok(())
    }

    /// Layers that an image has, hidden ones too.
    pub(super) fn layers_of_images(&self) -> Result<BTreeSet<String>> {
        let images = self.list()?.into_iter().chain(self.all_hidden()?);
        Ok(images
            .flat_map(|image| image.config.rootfs.diff_ids)
            .collect())
    }

    /// One at a time adds or removes images.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps layers from being removed while the answer lives: an image is about to be made of them.
    pub fn pin(&self, diff_ids: &[String]) -> Pins {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.extend(diff_ids.iter().cloned());
        Pins {
            pinned: Arc::clone(&self.pinned),
            diff_ids: diff_ids.to_vec(),
        }
    }

    /// Removes a layer unless it is pinned; whether it did.
    pub(super) fn remove_unpinned(&self, diff_id: &str) -> Result<bool> {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.iter().any(|id| id == diff_id) {
            return Ok(false);
        }
        self.layers.remove(diff_id)?;
        Ok(true)
    }

    /// The config of an image, byte for byte.
    pub fn config_bytes(&self, id: &str) -> Result<Vec<u8>> {
        Ok(fs_err::read(self.config_path(id))?)
    }

    fn ids(&self) -> Result<Vec<String>> {
        self.ids_with(".json")
    }

    fn ids_with(&self, suffix: &str) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs_err::read_dir(self.root.join("images"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(hex) = name.strip_suffix(suffix).filter(|hex| hex.len() == 64) {
                ids.push(format!("sha256:{hex}"));
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn save_names(&self, names: &mut Names, before: Names) -> Result<()> {
        let text = serde_json::to_vec_pretty(&*names).map_err(std::io::Error::from)?;
        write_durably(&self.root.join("repositories.json"), &text).inspect_err(|_| *names = before)
    }

    fn config_path(&self, id: &str) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn hidden_path(&self, id: &str) -> PathBuf {
        self.config_path(id).with_extension("hidden")
    }

    fn meta_path(&self, id: &str) -> PathBuf {
        self.root
            .join("images")
            .join(format!("{}.meta.json", id.trim_start_matches("sha256:")))
    }
}

/// Twelve hex digits.
pub(super) fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

/// Writes beside `path`, syncs, renames over it, and syncs the directory.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    written_beside(path, content, |file| file.sync_all())?;
    Ok(fs_err::File::open(directory)?.sync_all()?)
}

/// Writes beside `path` and renames over it: whole after the engine's end at any moment, not after a power cut.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    written_beside(path, content, |_| Ok(()))
}

fn written_beside(
    path: &Path,
    content: &[u8],
    settle: impl FnOnce(&fs_err::File) -> std::io::Result<()>,
) -> Result<()> {
    let temporary = path.with_extension(format!("{}.new", hex::encode(rand::random::<[u8; 4]>())));
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(content)?;
    settle(&file)?;
    Ok(fs_err::rename(&temporary, path)?)
}

#[cfg(test)]
pub(in crate::image) mod tests {
    use super::*;

    pub(in crate::image) fn store_with_image() -> (tempfile::TempDir, ImageStore, String) {
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
        let lost = "3".repeat(64);
        for file in [
            format!("images/{lost}.meta.json"),
            format!("images/{lost}.0.new"),
            "repositories.0.new".to_owned(),
        ] {
            fs_err::write(root.path().join(file), "").unwrap();
        }
        // What a power cut makes of a config that was just written.
        let broken = root.path().join(format!("images/{}.json", "4".repeat(64)));
        fs_err::write(&broken, [0; 20]).unwrap();
        let before = fs_err::read_dir(root.path()).unwrap().count();
        let store = ImageStore::open(root.path(), RegistryConfig::default()).unwrap();
        assert_eq!(store.layers().list().unwrap().len(), 1);
        assert!(!broken.exists());
        let after = fs_err::read_dir(root.path()).unwrap().count();
        assert_eq!(after, before - 1);
        for entry in fs_err::read_dir(root.path().join("images")).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(!name.to_string_lossy().starts_with(&lost));
        }
        assert_eq!(
            fs_err::read_dir(root.path().join("tmp")).unwrap().count(),
            0
        );
    }
}
