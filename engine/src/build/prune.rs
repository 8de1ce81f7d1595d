//! What builds keep: listed for `docker system df`, and removed by `docker builder prune`.

use std::collections::BTreeSet;

use super::LocalBuilder;
use super::cache::CacheMount;
use crate::container::clock;
use crate::container::error::{Error, Result};
use crate::container::parts::{CacheItem, PruneBuild, RemovalOptions};

impl LocalBuilder {
    /// Cache mounts, as `docker system df -v` shows them. Blocking.
    pub(super) fn items(&self) -> Result<Vec<CacheItem>> {
        let item = |mount: CacheMount| CacheItem {
            id: mount.key,
            kind: "exec.cachemount".into(),
            description: format!("cached mount {}", mount.info.name),
            in_use: mount.in_use,
            shared: false,
            size: mount.size,
            created_at: mount.info.created,
            last_used_at: mount.info.last_used,
            usage_count: mount.info.uses,
        };
        Ok(self.cache.mounts()?.into_iter().map(item).collect())
    }

    /// Removes what is not in use; names and bytes. Blocking.
    pub(super) fn prune_now(&self, wanted: &PruneBuild) -> Result<(Vec<String>, u64)> {
        let mounts = self.cache.mounts()?;
        let (mut gone, mut won) = (Vec::new(), 0);
        let mut kept: u64 = mounts.iter().map(|mount| mount.size).sum();
        for mount in &mounts {
            if kept <= wanted.keep_bytes && wanted.keep_bytes > 0 {
                break;
            }
            if !passes(mount, wanted)? || !self.cache.remove_mount(mount)? {
                continue;
            }
            kept -= mount.size;
            won += mount.size;
            gone.push(mount.key.clone());
        }
        if wanted.all && wanted.filters.is_empty() && wanted.keep_bytes == 0 {
            let (images, bytes) = self.prune_steps()?;
            gone.extend(images);
            won += bytes;
        }
        Ok((gone, won))
    }

    /// Images of steps that no named image and no container came of, and that are no build's result.
    fn prune_steps(&self) -> Result<(Vec<String>, u64)> {
        let store = &self.images.store;
        let before = self.layer_bytes()?;
        let mut gone = Vec::new();
        loop {
            let images = store.list()?;
            let parents: BTreeSet<&String> = images
                .iter()
                .filter_map(|image| image.meta.parent.as_ref())
                .collect();
            let used = self.images.overlays.images_in_use()?;
            let unused = images.iter().find(|image| {
                image.meta.build_step.is_some()
                    && image.repo_tags.is_empty()
                    && image.repo_digests.is_empty()
                    && !parents.contains(&image.id)
                    && !used.contains_key(&image.id)
                    && !self.cache.is_result(&image.id)
                    && !gone.contains(&image.id)
            });
            let Some(image) = unused else { break };
            store.remove(&image.id, RemovalOptions::default(), &[])?;
            gone.push(image.id.clone());
        }
        self.cache.forget_steps()?;
        Ok((gone, before.saturating_sub(self.layer_bytes()?)))
    }

    fn layer_bytes(&self) -> Result<u64> {
        let layers = self.images.store.layers();
        let sizes = layers.list()?;
        Ok(sizes
            .iter()
            .filter_map(|id| layers.info(id).ok())
            .map(|info| info.size)
            .sum())
    }
}

fn passes(mount: &CacheMount, wanted: &PruneBuild) -> Result<bool> {
    let last = clock::parse(&mount.info.last_used);
    for key in ["until", "unused-for"] {
        for text in wanted.filters.get(key) {
            let ago = super::health::nanoseconds(text)
                .map(|ago| time::OffsetDateTime::now_utc() - time::Duration::nanoseconds(ago));
            let limit = ago.or_else(|| clock::parse_flexible(text)).ok_or_else(|| {
                Error::invalid(format!("{key} filter: '{text}' is no time or duration"))
            })?;
            if last.is_some_and(|last| last > limit) {
                return Ok(false);
            }
        }
    }
    let ids = wanted.filters.get("id");
    let types = wanted.filters.get("type");
    Ok(
        (ids.is_empty() || ids.iter().any(|id| mount.key.starts_with(id.as_str())))
            && (types.is_empty() || types.iter().any(|kind| kind == "exec.cachemount")),
    )
}
