//! Taking names and images away, in Docker's order, with its refusals.
//!
//! Deliberately absent: which images a prune means beyond its filters' values, and who hears of it.

use std::collections::BTreeSet;

use super::names::{familiar_key, is_digest_key, repository_of};
use super::store::short;
use super::{Error, Image, ImageStore, LayerStore, Reference, Result};

/// A container, as far as the removal of images asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Its id.
    pub container: String,
    /// The image that it was made from.
    pub image: String,
    /// It has a process.
    pub running: bool,
}

/// What a removal did, in Docker's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away.
    Untagged(String),
    /// An image is gone, or a layer, which is named by its chain.
    Deleted(String),
}

/// For the events: what happened to which image.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// `untag` or `delete`.
    pub action: &'static str,
    /// The image as it was before.
    pub image: Image,
}

/// All that a removal did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Removal {
    /// For the client.
    pub removed: Vec<Removed>,
    /// For the events.
    pub told: Vec<Told>,
    /// Bytes of the layers that are gone.
    pub won: u64,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemovalOptions {
    /// Stopped containers and several names are no reason against it.
    pub force: bool,
    /// Parents without names stay.
    pub keep_parents: bool,
}

/// Why an image stays.
struct Refusal {
    /// No force helps.
    hard: bool,
    /// A container is the reason.
    used: bool,
    why: String,
}

impl ImageStore {
    /// Takes a name away, and the image with its last one; by id the whole image.
    pub fn remove(
        &self,
        name: &str,
        options: RemovalOptions,
        users: &[ImageUser],
    ) -> Result<Removal> {
        let _one = self.changing();
        let image = self.resolve(name)?;
        let mut done = Removal::default();
        let keys = self.names().all_of(&image.id);
        let by_id = is_prefix_of(name, &image.id);
        if !by_id {
            self.remove_name(name, &image, options, users, &mut done)?;
            if !self.names().all_of(&image.id).is_empty() {
                return Ok(done);
            }
        } else if is_single(&keys) {
            let refusal = self.refusal(&image, users, options.force, false)?;
            refusal.map_or(Ok(()), |refusal| Err(refused(&image, &refusal)))?;
            for key in &keys {
                self.forget(key)?;
                done.untagged(key, &image);
            }
        }
        self.remove_image(&image, options, users, !by_id, &mut done)?;
        Ok(done)
    }

    /// Removes images without a tag (or all) that no container was made from and that pass the test.
    pub fn prune(
        &self,
        tagged_too: bool,
        users: &[ImageUser],
        passes: impl Fn(&Image) -> bool,
    ) -> Result<Removal> {
        let mut done = Removal::default();
        let images = self.list()?;
        for image in &images {
            let used = users.iter().any(|user| user.image == image.id);
            let named = !image.repo_tags.is_empty() || !image.repo_digests.is_empty();
            let parent = images
                .iter()
                .any(|other| other.meta.parent.as_ref() == Some(&image.id));
            let kept = (!named && parent) || (!tagged_too && !image.repo_tags.is_empty());
            if used || kept || !passes(image) {
                continue;
            }
            let mut names = self.names().all_of(&image.id);
            if names.is_empty() {
                names.push(image.id.clone());
            }
            for name in names {
                // What has changed meanwhile, or is in the way of one, is no reason to stop before the others.
                match self.remove(&name, RemovalOptions::default(), users) {
                    Ok(more) => done.join(more),
                    Err(error) => tracing::debug!(name, %error, "not pruned"),
                }
            }
        }
        Ok(done)
    }

    fn remove_name(
        &self,
        name: &str,
        image: &Image,
        options: RemovalOptions,
        users: &[ImageUser],
        done: &mut Removal,
    ) -> Result<()> {
        let keys = self.names().all_of(&image.id);
        let user = users.iter().find(|user| user.image == image.id);
        if let Some(user) = user.filter(|_| !options.force && is_single(&keys)) {
            return Err(Error::Conflict(format!(
                "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its referenced image {}",
                short(&user.container),
                short(&image.id)
            )));
        }
        let key = self.names().key(&Reference::parse(name)?);
        let Some(key) = key else { return Ok(()) };
        self.forget(&key)?;
        done.untagged(&key, image);
        let left = self.names().all_of(&image.id);
        let same = |other: &&String| repository_of(other) == repository_of(&key);
        let still_tagged = left.iter().filter(same).any(|other| !is_digest_key(other));
        if !is_digest_key(&key) && !still_tagged {
            // What is left of the repository are its digests, which go with its last tag.
            for other in left.iter().filter(same) {
                self.forget(other)?;
                done.removed.push(Removed::Untagged(familiar_key(other)));
            }
        }
        Ok(())
    }

    /// The image, its names, its layers, and then its parent if that has no name of its own. `quiet`: a name was taken
    /// away already, so that an image which has to stay is no failure.
    fn remove_image(
        &self,
        image: &Image,
        options: RemovalOptions,
        users: &[ImageUser],
        quiet: bool,
        done: &mut Removal,
    ) -> Result<()> {
        if let Some(refusal) = self.refusal(image, users, options.force, true)? {
            let nameless = self.names().all_of(&image.id).is_empty();
            let dangling = nameless && !self.has_children(&image.id)?;
            if quiet && (!dangling || refusal.used) {
                return Ok(());
            }
            return Err(refused(image, &refusal));
        }
        let keys = self.names().all_of(&image.id);
        for key in &keys {
            self.forget(key)?;
            done.untagged(key, image);
        }
        self.erase(image, users, done)?;
        let parent = image
            .meta
            .parent
            .as_deref()
            .filter(|_| !options.keep_parents);
        match parent.map(|id| self.image(id)) {
            Some(Ok(parent)) => {
                self.remove_image(&parent, RemovalOptions::default(), users, true, done)
            }
            _ => Ok(()),
        }
    }

    fn refusal(
        &self,
        image: &Image,
        users: &[ImageUser],
        force: bool,
        names_count: bool,
    ) -> Result<Option<Refusal>> {
        let refusal = |hard, used, why: String| Ok(Some(Refusal { hard, used, why }));
        if self.has_children(&image.id)? {
            return refusal(true, false, "image has dependent child images".to_owned());
        }
        let mine = || users.iter().filter(|user| user.image == image.id);
        if let Some(user) = mine().find(|user| user.running) {
            let container = short(&user.container);
            let why = format!("image is being used by running container {container}");
            return refusal(true, true, why);
        }
        if force {
            return Ok(None);
        }
        if names_count && !self.names().all_of(&image.id).is_empty() {
            let why = "image is referenced in multiple repositories".to_owned();
            return refusal(false, false, why);
        }
        match mine().next() {
            Some(user) => {
                let container = short(&user.container);
                let why = format!("image is being used by stopped container {container}");
                refusal(false, true, why)
            }
            None => Ok(None),
        }
    }

    fn has_children(&self, id: &str) -> Result<bool> {
        let images = self.list()?;
        Ok(images
            .iter()
            .any(|other| other.meta.parent.as_deref() == Some(id)))
    }

    fn forget(&self, key: &str) -> Result<()> {
        let mut names = self.names();
        let before = names.clone();
        names.forget(key);
        self.save_names(&mut names, before)
    }

    /// The image's files, and the layers that no other image has and nobody is about to use.
    fn erase(&self, image: &Image, users: &[ImageUser], done: &mut Removal) -> Result<()> {
        if users.iter().any(|user| user.image == image.id) {
            self.hide(&image.id)?;
        } else {
            self.forget_files(&image.id)?;
        }
        done.told.push(Told {
            action: "delete",
            image: image.clone(),
        });
        done.removed.push(Removed::Deleted(image.id.clone()));
        let others = self.list()?;
        let chains: BTreeSet<String> = others
            .iter()
            .flat_map(|other| LayerStore::chains(&other.config.rootfs.diff_ids))
            .collect();
        let kept = self.layers_of_images()?;
        let mine = &image.config.rootfs.diff_ids;
        for (diff_id, chain) in mine.iter().zip(LayerStore::chains(mine)).rev() {
            if !kept.contains(diff_id) {
                let size = self.layers().info(diff_id).map_or(0, |info| info.size);
                if self.remove_unpinned(diff_id)? {
                    done.won += size;
                }
            }
            if !chains.contains(&chain) {
                done.removed.push(Removed::Deleted(chain));
            }
        }
        Ok(())
    }
}

impl Removal {
    fn untagged(&mut self, key: &str, image: &Image) {
        self.removed.push(Removed::Untagged(familiar_key(key)));
        self.told.push(Told {
            action: "untag",
            image: image.clone(),
        });
    }

    fn join(&mut self, more: Removal) {
        self.removed.extend(more.removed);
        self.told.extend(more.told);
        self.won += more.won;
    }
}

fn refused(image: &Image, refusal: &Refusal) -> Error {
    let how = if refusal.hard {
        "cannot be forced"
    } else {
        "must be forced"
    };
    Error::Conflict(format!(
        "conflict: unable to delete {} ({how}) - {}",
        short(&image.id),
        refusal.why
    ))
}

/// Whether the words are the image's id or its beginning.
fn is_prefix_of(words: &str, id: &str) -> bool {
    id.starts_with(words) || id.trim_start_matches("sha256:").starts_with(words)
}

/// At most one tag, and nothing outside its repository.
fn is_single(keys: &[String]) -> bool {
    let tags = keys.iter().filter(|key| !is_digest_key(key)).count();
    let repositories: BTreeSet<&str> = keys.iter().map(|key| repository_of(key)).collect();
    keys.len() <= 1 || (tags <= 1 && repositories.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::store_with_image;
    use super::*;

    fn user(image: &str, running: bool) -> Vec<ImageUser> {
        vec![ImageUser {
            container: "c".repeat(64),
            image: image.to_owned(),
            running,
        }]
    }

    fn name(store: &ImageStore, id: &str, names: &[&str]) {
        for name in names {
            store.tag(id, &Reference::parse(name).unwrap()).unwrap();
        }
    }

    const FORCE: RemovalOptions = RemovalOptions {
        force: true,
        keep_parents: false,
    };

    #[test]
    fn the_last_name_takes_the_image_and_its_layers_along() {
        let (_root, store, id) = store_with_image();
        let gentle = RemovalOptions::default();
        name(&store, &id, &["a:1", "b:1"]);
        let first = store.remove("a:1", gentle, &user(&id, true)).unwrap();
        assert_eq!(first.removed, [Removed::Untagged("a:1".into())]);
        let words = store
            .remove("b:1", gentle, &user(&id, false))
            .unwrap_err()
            .to_string();
        assert!(
            words.contains("unable to remove repository reference \"b:1\" (must force)"),
            "{words}"
        );
        assert_eq!(
            store.resolve("b:1").unwrap().repo_tags,
            ["b:1"],
            "a refused removal changes nothing"
        );
        let removed = store.remove("b:1", gentle, &[]).unwrap();
        assert_eq!(
            removed.removed[..2],
            [Removed::Untagged("b:1".into()), Removed::Deleted(id)]
        );
        let told: Vec<_> = removed.told.iter().map(|told| told.action).collect();
        assert_eq!((told, removed.won), (vec!["untag", "delete"], 7));
        assert!(store.list().unwrap().is_empty() && store.layers().list().unwrap().is_empty());
    }

    #[test]
    fn by_id() {
        let (_root, store, id) = store_with_image();
        name(&store, &id, &["a:1", "b:1"]);
        let refused = |options, users: &[ImageUser]| {
            let error = store.remove(&id[7..19], options, users).unwrap_err();
            error.to_string()
        };
        let several = refused(RemovalOptions::default(), &[]);
        assert!(
            several.ends_with("(must be forced) - image is referenced in multiple repositories"),
            "{several}"
        );
        let running = refused(FORCE, &user(&id, true));
        assert!(
            running.contains("(cannot be forced) - image is being used by running container ccc"),
            "{running}"
        );
        let removed = store.remove(&id, FORCE, &user(&id, false)).unwrap().removed;
        assert_eq!(removed.len(), 4, "two names, image, layer: {removed:?}");
    }

    #[test]
    fn a_forced_name_leaves_a_dangling_image_to_its_container() {
        let (_root, store, id) = store_with_image();
        name(&store, &id, &["a:1"]);
        let removed = store.remove("a:1", FORCE, &user(&id, true)).unwrap();
        assert_eq!(removed.removed, [Removed::Untagged("a:1".into())]);
        assert!(store.resolve(&id).unwrap().repo_tags.is_empty());
    }

    #[test]
    fn digests_go_with_the_last_tag_of_their_repository() {
        let (_root, store, id) = store_with_image();
        name(&store, &id, &["a:1", "b:1"]);
        let digest = format!("sha256:{}", "d".repeat(64));
        let a = Reference::parse("a:1").unwrap();
        store.remember_digest(&id, &a, &digest).unwrap();
        let removed = store.remove("a:1", RemovalOptions::default(), &[]).unwrap();
        let with = Removed::Untagged(format!("a@{digest}"));
        assert_eq!(removed.removed, [Removed::Untagged("a:1".into()), with]);
        assert_eq!(store.resolve(&id).unwrap().repo_tags, ["b:1"]);
    }

    #[test]
    fn pruning_passes_by_what_is_used_or_tagged() {
        let (_root, store, id) = store_with_image();
        assert!(
            store
                .prune(false, &user(&id, false), |_| true)
                .unwrap()
                .removed
                .is_empty()
        );
        name(&store, &id, &["a:1"]);
        assert!(
            store
                .prune(false, &[], |_| true)
                .unwrap()
                .removed
                .is_empty()
        );
        assert!(
            store
                .prune(true, &[], |_| false)
                .unwrap()
                .removed
                .is_empty()
        );
        let all = store.prune(true, &[], |_| true).unwrap();
        assert_eq!((all.removed.len(), all.won), (3, 7));
    }
}
