//! The containers there are: by id, by a prefix of it, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fs_err as fs;
use tokio::sync::{oneshot, watch};

use super::error::{Error, Result};
use super::names;
use super::parts::Attachment;
use super::record::{Record, Status};

/// What waiters look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ends since the engine started.
    pub exits: u64,
    /// The code of the last end.
    pub exit_code: i64,
    /// It runs, or will again by its restart policy.
    pub running: bool,
    /// It is no more.
    pub removed: bool,
}

/// A container in memory.
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Its folder under the engine's root.
    pub folder: PathBuf,
    record: Mutex<Record>,
    /// Where the record goes when its folder takes no more: the folder until the next boot.
    spare: PathBuf,
    is_spared: AtomicBool,
    /// Held while it is started, stopped or removed: one at a time.
    pub operation: tokio::sync::Mutex<()>,
    /// What waiters look at.
    pub progress: watch::Sender<Progress>,
    /// Cancels a delayed restart.
    pub wake: tokio::sync::Notify,
    /// Set during a restart by hand: its end is no reason to remove it.
    pub kept: AtomicBool,
    prober: Mutex<Option<tokio::task::AbortHandle>>,
    attachers: Mutex<Vec<oneshot::Sender<Attachment>>>,
}

impl Container {
    /// Wraps a record.
    pub fn new(record: Record, folder: PathBuf) -> Self {
        let progress = Progress {
            exit_code: record.state.exit_code,
            running: record.state.status.has_process(),
            ..Progress::default()
        };
        Self {
            id: record.id.clone(),
            folder,
            record: Mutex::new(record),
            spare: PathBuf::new(),
            is_spared: AtomicBool::new(false),
            operation: tokio::sync::Mutex::new(()),
            progress: watch::Sender::new(progress),
            wake: tokio::sync::Notify::new(),
            kept: AtomicBool::new(false),
            prober: Mutex::new(None),
            attachers: Mutex::default(),
        }
    }

    /// With a place for the record when the disk is full.
    #[must_use]
    pub fn with_spare(mut self, run: &Path) -> Self {
        self.spare = spare(run, &self.id);
        self.is_spared = AtomicBool::new(self.spare.exists());
        self
    }

    /// After a write of the record: one that failed is made up for elsewhere, so that an engine that starts again knows what was
    /// answered for.
    fn settle(&self, record: &Record, written: &std::io::Result<()>) {
        if let Err(error) = written {
            tracing::error!(id = self.id, %error, "the container's record could not be written");
            match record.save_as(&self.spare) {
                Ok(()) => self.is_spared.store(true, Ordering::Release),
                Err(error) => tracing::error!(id = self.id, %error, "nor its spare"),
            }
        } else if self.is_spared.swap(false, Ordering::AcqRel) {
            std::fs::remove_file(&self.spare).ok();
        }
    }

    /// It is removed: nothing of it stays.
    pub fn forget_spare(&self) {
        if self.is_spared.load(Ordering::Acquire) {
            std::fs::remove_file(&self.spare).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the record.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock())
    }

    /// A copy of the record.
    pub fn snapshot(&self) -> Record {
        self.lock().clone()
    }

    /// Its name, without slash.
    pub fn name(&self) -> String {
        self.read(|r| r.name.clone())
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.read(|r| r.state.status)
    }

    /// Changes the record, and keeps it on disk.
    pub fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.lock();
        let value = change(&mut record);
        self.settle(&record, &record.save(&self.folder));
        value
    }

    /// Changes the record in memory; for what is not worth a write.
    pub fn update_in_memory<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.lock())
    }

    /// Puts the record safely on disk.
    pub fn persist(&self) -> std::io::Result<()> {
        let record = self.lock();
        let written = record.save_durably(&self.folder);
        self.settle(&record, &written);
        written
    }

    /// Labels, name and image: what events carry.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        self.read(|r| {
            let mut attributes = r.config.labels.clone();
            attributes.insert("image".to_owned(), r.config.image.clone());
            attributes.insert("name".to_owned(), r.name.clone());
            attributes
        })
    }

    /// See [`Container::kept`].
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Somebody who wants to be attached at the next start.
    pub fn add_attacher(&self, sender: oneshot::Sender<Attachment>) {
        let mut attachers = self
            .attachers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        attachers.retain(|a| !a.is_closed());
        attachers.push(sender);
    }

    /// Those who still wait.
    pub fn take_attachers(&self) -> Vec<oneshot::Sender<Attachment>> {
        let all = std::mem::take(
            &mut *self
                .attachers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        all.into_iter().filter(|a| !a.is_closed()).collect()
    }

    /// It does not start: nobody waits any more.
    pub fn clear_attachers(&self) {
        self.take_attachers();
    }

    /// Sets or replaces the health prober.
    pub fn set_prober(&self, prober: Option<tokio::task::AbortHandle>) {
        let former = std::mem::replace(
            &mut *self.prober.lock().unwrap_or_else(PoisonError::into_inner),
            prober,
        );
        if let Some(former) = former {
            former.abort();
        }
    }
}

fn spare(run: &Path, id: &str) -> PathBuf {
    run.join("records").join(id)
}

/// All containers.
#[derive(Default)]
pub struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Arc<Container>>,
    names: BTreeMap<String, String>,
}

impl Registry {
    /// Reads every container's folder; those without a readable record are reported and left alone.
    pub fn load(root: &Path, run: &Path) -> anyhow::Result<Self> {
        let registry = Self::default();
        let folder = root.join("containers");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let folder = entry?.path();
            // The former engine ended while it was made or removed: nobody was told of it, or everybody that it goes.
            if !folder.join(super::record::FILE).exists() {
                tracing::info!(folder = %folder.display(), "takes away what has no record");
                super::removal::remove_dir_all(&folder)?;
                continue;
            }
            match Record::load(&folder) {
                Ok(record) => {
                    let record = Record::load_from(&spare(run, &record.id)).unwrap_or(record);
                    registry.insert(Container::new(record, folder).with_spare(run));
                }
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "a container's folder without a readable record"
                ),
            }
        }
        Ok(registry)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All, newest first.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.read().containers.values().cloned().collect();
        all.sort_by_cached_key(|c| std::cmp::Reverse(c.read(|r| r.created.clone())));
        all
    }

    /// By full id, name (with or without slash), or a prefix of the id that only one has.
    pub fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let inner = self.read();
        let name = reference.trim_start_matches('/');
        let missing = || Error::not_found(format!("No such container: {reference}"));
        if let Some(container) = inner.containers.get(reference).or_else(|| {
            inner
                .names
                .get(name)
                .and_then(|id| inner.containers.get(id))
        }) {
            return Ok(container.clone());
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut candidates = inner
            .containers
            .range(name.to_owned()..)
            .take_while(|(id, _)| id.starts_with(name));
        match (candidates.next(), candidates.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {name}"
            ))),
            _ => Err(missing()),
        }
    }

    /// Takes a name for `id`; an empty one is generated.
    pub fn reserve_name(&self, wanted: &str, id: &str) -> Result<String> {
        let mut inner = self.write();
        let wanted = wanted.trim_start_matches('/');
        if wanted.is_empty() {
            let mut attempt = 0;
            loop {
                let name = names::generate(rand::random(), attempt);
                if !inner.names.contains_key(&name) {
                    inner.names.insert(name.clone(), id.to_owned());
                    return Ok(name);
                }
                attempt += 1;
            }
        }
        if !names::is_valid(wanted) {
            return Err(Error::invalid(format!(
                "Invalid container name ({wanted}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        if let Some(owner) = inner.names.get(wanted) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{wanted}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        inner.names.insert(wanted.to_owned(), id.to_owned());
        Ok(wanted.to_owned())
    }

    /// Gives a name back.
    pub fn release_name(&self, name: &str) {
        self.write().names.remove(name);
    }

    /// Adds one, with its name.
    pub fn insert(&self, container: impl Into<Arc<Container>>) {
        let container = container.into();
        let mut inner = self.write();
        inner.names.insert(container.name(), container.id.clone());
        inner.containers.insert(container.id.clone(), container);
    }

    /// Forgets it and its name.
    pub fn remove(&self, container: &Container) {
        let mut inner = self.write();
        inner.containers.remove(&container.id);
        inner.names.retain(|_, id| *id != container.id);
    }

    /// Gives another name.
    pub fn rename(&self, container: &Container, name: &str) -> Result<()> {
        let former = container.name();
        if name.trim_start_matches('/') == former {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        if name.trim_start_matches('/').is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let name = self.reserve_name(name, &container.id).map_err(|e| {
            {
                // Docker checks it with its slash.
                let words = e.message.replace("container name (", "container name (/");
                Error::new(e.kind, format!("Error when allocating new name: {words}"))
            }
        })?;
        container.update(|r| r.name = name);
        self.release_name(&former);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(ids: &[(&str, &str)]) -> Registry {
        let registry = Registry::default();
        for (id, name) in ids {
            let record = Record {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                ..Record::default()
            };
            registry.insert(Container::new(record, PathBuf::new()));
        }
        registry
    }

    #[test]
    fn finding() {
        let registry = registry(&[("abc123", "web"), ("abd456", "db"), ("ffff00", "abc")]);
        let id = |reference: &str| {
            registry
                .find(reference)
                .map(|c| c.id.clone())
                .map_err(|e| e.message)
        };
        assert_eq!(id("web").as_deref(), Ok("abc123"));
        assert_eq!(id("/web").as_deref(), Ok("abc123"));
        assert_eq!(id("abd").as_deref(), Ok("abd456"));
        assert_eq!(
            id("abc").as_deref(),
            Ok("ffff00"),
            "a name wins over a prefix"
        );
        assert!(id("ab").unwrap_err().starts_with("multiple IDs"));
        assert!(id("nope").unwrap_err().starts_with("No such container"));
    }

    #[test]
    fn names_are_taken_once() {
        let registry = registry(&[("abc123", "web")]);
        assert!(
            registry
                .reserve_name("web", "x")
                .unwrap_err()
                .message
                .contains("already in use by container \"abc123\"")
        );
        assert!(registry.reserve_name("w b", "x").is_err());
        assert_eq!(registry.reserve_name("/other", "x").unwrap(), "other");
        assert!(!registry.reserve_name("", "y").unwrap().is_empty());
    }
}
