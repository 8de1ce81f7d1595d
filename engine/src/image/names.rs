//! Names of images: tags and registries' digests, in full (`docker.io/library/httpd:2.4`), to ids.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Reference;

/// All names of one engine, as `repositories.json` keeps them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Names {
    /// `registry/repository:tag` → id.
    pub(super) tags: BTreeMap<String, String>,
    /// `registry/repository@digest` → id.
    pub(super) digests: BTreeMap<String, String>,
}

impl Names {
    /// Tags of an image, in full.
    pub(super) fn tags_of(&self, id: &str) -> Vec<String> {
        of(&self.tags, id)
    }

    /// Digests of an image, in full.
    pub(super) fn digests_of(&self, id: &str) -> Vec<String> {
        of(&self.digests, id)
    }

    /// Everything that leads to the image: digests and tags, sorted as Docker sorts them.
    pub(super) fn all_of(&self, id: &str) -> Vec<String> {
        let mut all = self.tags_of(id);
        all.extend(self.digests_of(id));
        all.sort();
        all
    }

    /// Takes a name away.
    pub(super) fn forget(&mut self, key: &str) {
        self.tags.remove(key);
        self.digests.remove(key);
    }

    /// The key under which a reference is known here, if it is.
    pub(super) fn key(&self, reference: &Reference) -> Option<String> {
        let base = reference.full_name();
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
            .filter(|key| self.digests.contains_key(key))
            .or_else(|| by_tag.filter(|key| self.tags.contains_key(key)))
    }

    /// The id behind a key.
    pub(super) fn id(&self, key: &str) -> Option<&String> {
        self.tags.get(key).or_else(|| self.digests.get(key))
    }

    /// Tags of a repository, in full.
    pub(super) fn tags_in(&self, reference: &Reference) -> Vec<String> {
        let prefix = format!("{}:", reference.full_name());
        let tags = self.tags.keys().filter(|key| key.starts_with(&prefix));
        tags.cloned().collect()
    }
}

fn of(map: &BTreeMap<String, String>, id: &str) -> Vec<String> {
    map.iter()
        .filter(|(_, owner)| *owner == id)
        .map(|(key, _)| key.clone())
        .collect()
}

/// Whether the key names a digest.
pub(super) fn is_digest_key(key: &str) -> bool {
    key.contains('@')
}

/// A key without its tag or digest.
pub(super) fn repository_of(key: &str) -> &str {
    match key.split_once('@') {
        Some((name, _)) => name,
        None => key.rsplit_once(':').map_or(key, |(name, _)| name),
    }
}

/// A key as people write it: `httpd:2.4`.
pub(super) fn familiar_key(key: &str) -> String {
    let short = key.strip_prefix("docker.io/").unwrap_or(key);
    short
        .strip_prefix("library/")
        .filter(|_| key.starts_with("docker.io/"))
        .unwrap_or(short)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart() {
        for (key, repository, familiar) in [
            ("docker.io/library/a:1", "docker.io/library/a", "a:1"),
            ("docker.io/u/a:1", "docker.io/u/a", "u/a:1"),
            ("h:5000/a:1", "h:5000/a", "h:5000/a:1"),
            ("h:5000/a@sha256:x", "h:5000/a", "h:5000/a@sha256:x"),
        ] {
            assert_eq!(
                (repository_of(key), familiar_key(key).as_str()),
                (repository, familiar)
            );
        }
    }
}
