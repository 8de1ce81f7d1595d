//! `docker images`: which images are listed, and what is said of each; what all of them take on disk.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use windlass_engine_api::Filters;
use windlass_engine_api::types::ImageSummary;

use super::{Error, Image, ImageStore, LayerStore, Result, pattern};
use crate::container::clock;
use crate::container::parts::ImageQuery;

const LISTED_BY: [&str; 7] = [
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];
const PRUNED_BY: [&str; 4] = ["dangling", "label", "label!", "until"];

/// When an image was made; what has no date is as old as can be.
pub(super) fn created(image: &Image) -> OffsetDateTime {
    let text = image.config.created.as_deref();
    text.and_then(clock::parse)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH - time::Duration::days(365 * 1969))
}

/// RFC 3339 to Unix seconds; without a date it is Go's zero time, as in Docker.
pub(super) fn seconds(created: Option<&str>) -> i64 {
    let parsed = created.and_then(clock::parse);
    parsed.map_or(0, OffsetDateTime::unix_timestamp)
}

/// The filters of a list, read.
struct Listed<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<OffsetDateTime>,
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

/// What a prune is asked for.
pub(super) struct Pruned {
    filters: Filters,
    /// Images with a tag, too.
    pub(super) tagged_too: bool,
    until: Option<OffsetDateTime>,
}

fn invalid(what: &str) -> Error {
    Error::Invalid(format!("invalid filter '{what}'"))
}

fn known(filters: &Filters, keys: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !keys.contains(key)) {
        Some(key) => Err(invalid(key)),
        None => Ok(()),
    }
}

fn dangling(filters: &Filters) -> Result<Option<bool>> {
    let words = filters.get("dangling");
    let truth = |word: &String| match word.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(invalid(&format!("dangling=[{}]", words.join(" ")))),
    };
    let all = words.iter().map(truth).collect::<Result<Vec<bool>>>()?;
    match all[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(invalid(&format!("dangling=[{}]", words.join(" ")))),
    }
}

fn until(filters: &Filters) -> Result<Option<OffsetDateTime>> {
    match filters.get("until") {
        [] => Ok(None),
        [text] => clock::parse_until(text, OffsetDateTime::now_utc())
            .map(Some)
            .ok_or_else(|| invalid("until")),
        _ => Err(Error::Invalid(
            "more than one until filter specified".into(),
        )),
    }
}

impl Pruned {
    /// Reads the filters of a prune.
    pub(super) fn new(filters: &Filters) -> Result<Self> {
        known(filters, &PRUNED_BY)?;
        Ok(Self {
            tagged_too: dangling(filters)? == Some(false),
            until: until(filters)?,
            filters: filters.clone(),
        })
    }

    /// Whether the image is meant.
    pub(super) fn passes(&self, image: &Image) -> bool {
        self.until.is_none_or(|until| created(image) <= until) && labels_pass(&self.filters, image)
    }
}

fn labels_pass(filters: &Filters, image: &Image) -> bool {
    let labels = &image.config.config.labels;
    let has = |wanted: &String| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
        None => labels.contains_key(wanted),
    };
    filters.get("label").iter().all(has) && !filters.get("label!").iter().any(has)
}

impl<'a> Listed<'a> {
    fn new(store: &ImageStore, filters: &'a Filters) -> Result<Self> {
        known(filters, &LISTED_BY)?;
        let time_of = |key: &str, newer: fn(OffsetDateTime, OffsetDateTime) -> bool| {
            let mut chosen = None;
            for name in filters.get(key) {
                let time = created(&store.resolve(name)?);
                if chosen.is_none_or(|known| newer(time, known)) {
                    chosen = Some(time);
                }
            }
            Ok::<_, Error>(chosen)
        };
        for pattern in filters.get("reference") {
            if pattern::matches(pattern, "").is_none() {
                return Err(Error::Invalid("syntax error in pattern".into()));
            }
        }
        Ok(Self {
            dangling: dangling(filters)?,
            before: time_of("before", |time, known| time < known)?,
            since: time_of("since", |time, known| time > known)?,
            until: until(filters)?,
            filters,
        })
    }

    fn passes(&self, image: &Image) -> bool {
        let time = created(image);
        self.before.is_none_or(|before| time < before)
            && self.since.is_none_or(|since| time > since)
            && self.until.is_none_or(|until| time <= until)
            && labels_pass(self.filters, image)
    }

    /// The names that the reference filter lets through.
    fn names(&self, names: &[String]) -> Vec<String> {
        let patterns = self.filters.get("reference");
        let fits = |name: &&String| {
            let repository = super::names::repository_of(name);
            let one = |pattern: &String| {
                pattern::matches(pattern, name) == Some(true)
                    || pattern::matches(pattern, repository) == Some(true)
            };
            patterns.is_empty() || patterns.iter().any(one)
        };
        names.iter().filter(fits).cloned().collect()
    }

    fn summary(&self, image: &Image, all: bool, is_parent: bool) -> Option<ImageSummary> {
        let tags = self.names(&image.repo_tags);
        let digests = self.names(&image.repo_digests);
        let nameless = tags.is_empty() && digests.is_empty();
        let shown = if nameless {
            (all || !is_parent)
                && self.dangling != Some(false)
                && self.filters.get("reference").is_empty()
        } else {
            self.dangling != Some(true) || tags.is_empty()
        };
        shown.then(|| ImageSummary {
            id: image.id.clone(),
            parent_id: image.meta.parent.clone().unwrap_or_default(),
            repo_tags: tags,
            repo_digests: digests,
            created: seconds(image.config.created.as_deref()),
            size: i64::try_from(image.size).unwrap_or(i64::MAX),
            shared_size: -1,
            labels: image.config.config.labels.clone(),
            containers: -1,
        })
    }
}

impl ImageStore {
    /// The images that pass, the newest first.
    pub(super) fn summaries(&self, query: &ImageQuery) -> Result<Vec<ImageSummary>> {
        let listed = Listed::new(self, &query.filters)?;
        let mut images = self.list()?;
        images.sort_by_key(|image| std::cmp::Reverse(created(image)));
        let parents: BTreeSet<&String> = images
            .iter()
            .filter_map(|image| image.meta.parent.as_ref())
            .collect();
        let mut shown = Vec::new();
        for image in images.iter().filter(|image| listed.passes(image)) {
            let is_parent = parents.contains(&image.id);
            if let Some(summary) = listed.summary(image, query.all, is_parent) {
                shown.push((image, summary));
            }
        }
        if query.shared_size {
            self.add_shared_sizes(&mut shown);
        }
        Ok(shown.into_iter().map(|(_, summary)| summary).collect())
    }

    fn add_shared_sizes(&self, shown: &mut [(&Image, ImageSummary)]) {
        let mut uses: BTreeMap<String, usize> = BTreeMap::new();
        for (image, _) in shown.iter() {
            for chain in LayerStore::chains(&image.config.rootfs.diff_ids) {
                *uses.entry(chain).or_default() += 1;
            }
        }
        for (image, summary) in shown.iter_mut() {
            let diff_ids = &image.config.rootfs.diff_ids;
            let shared = LayerStore::chains(diff_ids)
                .into_iter()
                .zip(diff_ids)
                .filter(|(chain, _)| uses.get(chain).is_some_and(|uses| *uses > 1))
                .filter_map(|(_, diff_id)| self.layers().info(diff_id).ok())
                .map(|info| info.size)
                .sum::<u64>();
            summary.shared_size = i64::try_from(shared).unwrap_or(i64::MAX);
        }
    }

    /// Bytes of all layers, each counted once.
    pub(super) fn layers_size(&self) -> Result<u64> {
        let layers = self.layers().list()?;
        let infos = layers.iter().filter_map(|id| self.layers().info(id).ok());
        Ok(infos.map(|info| info.size).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::store_with_image;
    use super::super::{ImageMeta, Reference};
    use super::*;

    /// Three images: `old` with two names, `new` with none and made from it, and `mid` between them, with a label.
    fn three() -> (tempfile::TempDir, ImageStore, [String; 3]) {
        let (root, store, _) = store_with_image();
        let layer = store.list().unwrap()[0].config.rootfs.diff_ids[0].clone();
        let add = |year: u32, label: &str, parent: Option<String>| {
            let config = format!(
                r#"{{"created":"{year}-01-01T00:00:00Z","os":"linux","config":{{"Labels":{{"is":"{label}"}}}},"rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
            );
            let meta = ImageMeta {
                parent,
                ..ImageMeta::default()
            };
            store.add(config.as_bytes(), &meta).unwrap()
        };
        let old = add(2001, "old", None);
        let mid = add(2002, "mid", Some(old.clone()));
        let new = add(2003, "new", Some(mid.clone()));
        for name in ["h:1/app:v1", "app:v1"] {
            store.tag(&old, &Reference::parse(name).unwrap()).unwrap();
        }
        (root, store, [old, mid, new])
    }

    fn listed(store: &ImageStore, all: bool, filters: Filters) -> Vec<String> {
        let query = ImageQuery {
            all,
            filters,
            ..ImageQuery::default()
        };
        let list = store.summaries(&query).unwrap();
        list.into_iter()
            .filter(|summary| summary.created > 0)
            .map(|summary| summary.id)
            .collect()
    }

    #[test]
    fn filters_choose() {
        let (_root, store, [old, mid, new]) = three();
        let with = |key: &str, value: &str| Filters::new().with(key, value);
        assert_eq!(
            listed(&store, false, Filters::new()),
            [new.clone(), old.clone()]
        );
        let all = [new.clone(), mid, old.clone()];
        assert_eq!(listed(&store, true, Filters::new()), all);
        for (filters, wanted) in [
            (with("dangling", "true"), Some(&new)),
            (with("dangling", "false"), Some(&old)),
            (with("reference", "app"), Some(&old)),
            (with("reference", "h:1/*:v1"), Some(&old)),
            (with("reference", "nosuch"), None),
            (with("label", "is=old"), Some(&old)),
            (with("label!", "is=old"), Some(&new)),
            (with("before", "app:v1"), None),
            (with("since", "app:v1"), Some(&new)),
            (with("before", &new), Some(&old)),
            (with("until", "2002-06-01T00:00:00Z"), Some(&old)),
        ] {
            let wanted: Vec<String> = wanted.into_iter().cloned().collect();
            assert_eq!(
                listed(&store, false, filters.clone()),
                wanted,
                "{filters:?}"
            );
        }
        let query = |filters| ImageQuery {
            filters,
            ..ImageQuery::default()
        };
        let one = store.summaries(&query(with("reference", "app:*"))).unwrap();
        assert_eq!(one[0].repo_tags, ["app:v1"], "only the names that pass");
        for bad in [
            with("bad", "x"),
            with("dangling", "x"),
            with("until", "x"),
            with("before", "nosuch"),
            with("reference", "["),
        ] {
            assert!(store.summaries(&query(bad.clone())).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shared_bytes_are_those_of_other_images_too() {
        let (_root, store, _) = three();
        let query = ImageQuery {
            all: true,
            shared_size: true,
            filters: Filters::new(),
        };
        let list = store.summaries(&query).unwrap();
        assert!(list.iter().all(|s| s.shared_size == 7 && s.size == 7));
        assert_eq!(store.layers_size().unwrap(), 7);
    }
}
