//! `docker ps`: filters and lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    ContainerSummary, ImageSummary, Port, SummaryHostConfig, SummaryNetworkSettings,
};

use super::clock;
use super::error::{Error, Result};
use super::parts::ImageQuery;
use super::record::{Record, State, Status};
use super::registry::Container;
use super::{Engine, inspect};

const KNOWN: [&str; 16] = [
    "id",
    "name",
    "label",
    "label!",
    "status",
    "exited",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
    "health",
    "publish",
    "expose",
    "is-task",
    "isolation",
];
const STATES: [&str; 7] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// What is wanted.
#[derive(Debug, Default)]
pub struct Query {
    /// Stopped ones too.
    pub all: bool,
    /// At most so many, the newest, running or not; 0 is no limit.
    pub limit: usize,
    /// Filters.
    pub filters: Filters,
    /// How much they take on the disk, too.
    pub sizes: Sizes,
}

/// Whether the disk is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sizes {
    /// It takes its time, so only when asked for.
    #[default]
    Unknown,
    /// Counted.
    Counted,
}

impl Engine {
    /// The containers that pass.
    pub fn list(&self, query: &Query) -> Result<Vec<ContainerSummary>> {
        check(&query.filters)?;
        let selection = Selection::new(self, query)?;
        let all = self.containers.all();
        let chosen = all
            .iter()
            .map(|c| c.snapshot())
            .filter(|r| selection.accepts(r));
        let limit = if query.limit > 0 {
            query.limit
        } else {
            usize::MAX
        };
        let mut names = BTreeMap::new();
        let linked = self.names_by_links();
        let mut summaries = Vec::new();
        for record in chosen.take(limit) {
            let mut summary = summary(&record);
            let linked = linked.get(&record.id).into_iter().flatten();
            summary.names.extend(linked.cloned());
            let now = names
                .entry(record.config.image.clone())
                .or_insert_with_key(|name| self.image_id(name));
            // The name means another image by now.
            if now.as_ref() != Some(&record.image_id) {
                summary.image.clone_from(&record.image_id);
            }
            if query.sizes == Sizes::Counted {
                let (own, all) = self.sizes(&record)?;
                (summary.size_rw, summary.size_root_fs) = (Some(own), Some(all));
            }
            summaries.push(summary);
        }
        Ok(summaries)
    }

    /// Bytes that the container has written, and with its image's.
    pub fn sizes(&self, record: &Record) -> Result<(i64, i64)> {
        let own = self.images.written(&record.id)?;
        let image = self.images.inspect(&record.image_id);
        let image = image.map_or(0, |i| i["Size"].as_i64().unwrap_or_default());
        Ok((own, own.saturating_add(image)))
    }
}

/// Filters that there are, with values that there are.
fn check(filters: &Filters) -> Result<()> {
    for key in filters.keys() {
        if !KNOWN.contains(&key) {
            return Err(Error::invalid(format!("invalid filter '{key}'")));
        }
    }
    let strange = |key: &str, known: &[&str]| {
        let mut values = filters.get(key).iter();
        values.find(|v| !known.contains(&v.as_str())).cloned()
    };
    if let Some(value) = strange("status", &STATES) {
        return Err(Error::invalid(format!("invalid filter 'status={value}'")));
    }
    if let Some(value) = strange("health", &HEALTHS) {
        return Err(Error::invalid(format!(
            "unrecognized filter value for health: {value}"
        )));
    }
    let booleans = ["true", "false", "1", "0", "True", "False"];
    if let Some(value) = strange("is-task", &booleans) {
        return Err(Error::invalid(format!(
            "invalid filter 'is-task=[{value}]'"
        )));
    }
    let mut codes = filters.get("exited").iter();
    if let Some(value) = codes.find(|v| v.parse::<i64>().is_err()) {
        return Err(Error::invalid(format!(
            "strconv.Atoi: parsing {value:?}: invalid syntax"
        )));
    }
    for key in ["publish", "expose"] {
        let mut ports = filters.get(key).iter();
        if let Some(value) = ports.find(|v| port_range(v).is_none()) {
            return Err(Error::invalid(format!(
                "error while looking up for {key} {value}: invalid port or range"
            )));
        }
    }
    Ok(())
}

struct Selection<'a> {
    filters: &'a Filters,
    stopped_too: bool,
    images: Vec<String>,
    before: Option<String>,
    since: Option<String>,
}

impl<'a> Selection<'a> {
    fn new(engine: &Engine, query: &'a Query) -> Result<Self> {
        let filters = &query.filters;
        let created = |key: &str| -> Result<Option<String>> {
            filters
                .get(key)
                .first()
                .map(|name| {
                    engine
                        .containers
                        .find(name)
                        .map(|c: Arc<Container>| c.read(|r| r.created.clone()))
                })
                .transpose()
        };
        let ancestors = filters.get("ancestor").iter();
        let mut images: Vec<String> = ancestors.filter_map(|n| engine.image_id(n)).collect();
        if !images.is_empty() {
            let every = ImageQuery {
                all: true,
                ..ImageQuery::default()
            };
            descend(&mut images, &engine.images.list(&every)?);
        }
        Ok(Self {
            filters,
            stopped_too: query.all || query.limit > 0 || !filters.get("status").is_empty(),
            images,
            before: created("before")?,
            since: created("since")?,
        })
    }

    fn accepts(&self, r: &Record) -> bool {
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            let wanted = self.filters.get(key);
            wanted.is_empty() || wanted.iter().any(|w| test(w))
        };
        let state = &r.state;
        (self.stopped_too || state.status.has_process() || state.status == Status::Restarting)
            && any("id", &|w| matches(&r.id, w))
            && any("name", &|w| {
                matches(&r.name, w) || matches(&format!("/{}", r.name), w)
            })
            && any("is-task", &|w| matches!(w, "false" | "False" | "0"))
            && any("status", &|w| w == state.status.as_str())
            && any("exited", &|w| {
                state.status == Status::Exited && w.parse() == Ok(state.exit_code)
            })
            && any("volume", &|w| {
                r.mounts.iter().any(|m| {
                    let named = if m.name.is_empty() {
                        &m.source
                    } else {
                        &m.name
                    };
                    named == w || m.destination == w
                })
            })
            && any("network", &|w| {
                inspect::network_names(r).iter().any(|n| n == w)
                    || state
                        .endpoints
                        .values()
                        .any(|e| !w.is_empty() && e.network_id.starts_with(w))
            })
            && any("health", &|w| {
                w == state.health.as_ref().map_or("none", |h| h.status.as_str())
            })
            && any("publish", &|w| {
                inspect::ports(r)
                    .iter()
                    .any(|p| p.public_port.is_some_and(|n| port_matches(n, &p.kind, w)))
            })
            && any("expose", &|w| {
                inspect::ports(r)
                    .iter()
                    .any(|p| port_matches(p.private_port, &p.kind, w))
            })
            && (self.filters.get("ancestor").is_empty() || self.images.contains(&r.image_id))
            && self.before.as_ref().is_none_or(|t| r.created < *t)
            && self.since.as_ref().is_none_or(|t| r.created > *t)
            && self.filters.match_labels(&r.config.labels)
    }
}

/// Images built on those that are there.
fn descend(images: &mut Vec<String>, all: &[ImageSummary]) {
    let mut at = 0;
    while at < images.len() {
        let parent = images[at].clone();
        for child in all.iter().filter(|i| i.parent_id == parent) {
            if !images.contains(&child.id) {
                images.push(child.id.clone());
            }
        }
        at += 1;
    }
}

/// A regular expression somewhere in the text; what is none is taken as it is.
fn matches(text: &str, pattern: &str) -> bool {
    regex_lite::Regex::new(pattern).is_ok_and(|r| r.is_match(text)) || text == pattern
}

/// `80`, `80-90`, each with `/udp`.
fn port_range(text: &str) -> Option<(u16, u16, &str)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    Some((first.parse().ok()?, last.parse().ok()?, protocol))
}

fn port_matches(number: u16, kind: &str, wanted: &str) -> bool {
    port_range(wanted)
        .is_some_and(|(first, last, protocol)| (first..=last).contains(&number) && protocol == kind)
}

fn summary(r: &Record) -> ContainerSummary {
    let command: Vec<String> = r.command();
    ContainerSummary {
        id: r.id.clone(),
        names: vec![format!("/{}", r.name)],
        image: r.config.image.clone(),
        image_id: r.image_id.clone(),
        command: match command.split_first() {
            Some((path, rest)) => std::iter::once(path.clone())
                .chain(rest.iter().map(|w| quote(w)))
                .collect::<Vec<_>>()
                .join(" "),
            None => String::new(),
        },
        created: clock::parse(&r.created).map_or(0, |t| t.unix_timestamp()),
        ports: inspect::ports(r),
        labels: r.config.labels.clone(),
        state: r.state.status.as_str().to_owned(),
        status: status_text(&r.state),
        host_config: SummaryHostConfig {
            network_mode: r.host_config.network_mode.clone(),
            annotations: r.host_config.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings {
            networks: inspect::networks(r),
        },
        mounts: r.mounts.iter().filter_map(|m| m.to_wire()).collect(),
        ..ContainerSummary::default()
    }
}

fn quote(word: &str) -> String {
    if word.contains(' ') {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

/// `Up 5 minutes (healthy)`.
pub fn status_text(state: &State) -> String {
    let up = || format!("Up {}", clock::human_since(&state.started_at));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Paused => format!("{} (Paused)", up()),
        Status::Running => match &state.health {
            Some(health) if health.status == "starting" => format!("{} (health: starting)", up()),
            Some(health) => format!("{} ({})", up(), health.status),
            None => up(),
        },
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            clock::human_since(&state.finished_at)
        ),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            clock::human_since(&state.finished_at)
        ),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
    }
}

/// A `Port` line sorts by its numbers.
pub fn sort_ports(ports: &mut [Port]) {
    ports.sort_by(|a, b| {
        (a.private_port, &a.kind, a.public_port, &a.ip).cmp(&(
            b.private_port,
            &b.kind,
            b.public_port,
            &b.ip,
        ))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_match() {
        for (name, pattern, wanted) in [
            ("web", "we", true),
            ("web", "^web$", true),
            ("web", "^w.b", true),
            ("webs", "^web$", false),
            ("x", "y", false),
            ("x", "[", false),
        ] {
            assert_eq!(matches(name, pattern), wanted, "{name} {pattern}");
        }
        assert!(
            port_matches(80, "tcp", "80")
                && port_matches(80, "tcp", "70-90/tcp")
                && !port_matches(80, "udp", "80")
        );
    }

    #[test]
    fn filters_that_make_no_sense() {
        for (key, value, words) in [
            ("nosuch", "x", "invalid filter 'nosuch'"),
            ("status", "y", "invalid filter 'status=y'"),
            ("health", "y", "unrecognized filter value for health: y"),
            ("exited", "y", "parsing \"y\""),
            ("is-task", "y", "invalid filter 'is-task=[y]'"),
            ("publish", "y", "publish y"),
        ] {
            let error = check(&Filters::new().with(key, value)).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    #[test]
    fn children_of_children() {
        let image = |id: &str, parent: &str| ImageSummary {
            id: id.to_owned(),
            parent_id: parent.to_owned(),
            ..ImageSummary::default()
        };
        let all = [
            image("c", "b"),
            image("b", "a"),
            image("x", ""),
            image("a", ""),
        ];
        let mut found = vec!["a".to_owned()];
        descend(&mut found, &all);
        assert_eq!(found, ["a", "b", "c"]);
    }
}
