//! `docker ps`: filters and lines.

use std::sync::Arc;

use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    ContainerSummary, Port, SummaryHostConfig, SummaryNetworkSettings,
};

use super::clock;
use super::error::{Error, Result};
use super::record::{Record, State, Status};
use super::registry::Container;
use super::{Engine, inspect};

const KNOWN: [&str; 14] = [
    "id", "name", "label", "label!", "status", "exited", "ancestor", "before", "since", "volume",
    "network", "health", "publish", "expose",
];

/// What is wanted.
#[derive(Debug, Default)]
pub struct Query {
    /// Stopped ones too.
    pub all: bool,
    /// At most so many, the newest, running or not; 0 is no limit.
    pub limit: usize,
    /// Filters.
    pub filters: Filters,
}

impl Engine {
    /// The containers that pass.
    pub fn list(&self, query: &Query) -> Result<Vec<ContainerSummary>> {
        for key in query.filters.keys() {
            if !KNOWN.contains(&key) {
                return Err(Error::invalid(format!("invalid filter '{key}'")));
            }
        }
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
        Ok(chosen.take(limit).map(|r| summary(&r)).collect())
    }
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
        let images = filters
            .get("ancestor")
            .iter()
            .map(|name| engine.image_id(name).unwrap_or_else(|| name.clone()))
            .collect();
        Ok(Self {
            filters,
            stopped_too: query.all
                || query.limit > 0
                || ["status", "exited", "before", "since"]
                    .iter()
                    .any(|k| !filters.get(k).is_empty()),
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
            && any("id", &|w| r.id.starts_with(w))
            && any("name", &|w| name_matches(&r.name, w))
            && any("status", &|w| w == state.status.as_str())
            && any("exited", &|w| {
                state.status == Status::Exited && w.parse() == Ok(state.exit_code)
            })
            && any("volume", &|w| {
                r.mounts.iter().any(|m| m.name == w || m.destination == w)
            })
            && any("network", &|w| {
                inspect::network_name(r) == w || state.endpoint.network_id == w
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
            && (self.images.is_empty()
                || self.images.contains(&r.image_id)
                || self.images.contains(&r.config.image))
            && self.before.as_ref().is_none_or(|t| r.created < *t)
            && self.since.as_ref().is_none_or(|t| r.created > *t)
            && self.filters.match_labels(&r.config.labels)
    }
}

/// Docker takes a regular expression; here `^` and `$` anchor, the rest is literal.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (start, rest) = pattern
        .strip_prefix('^')
        .map_or((false, pattern), |r| (true, r));
    let (end, text) = rest.strip_suffix('$').map_or((false, rest), |r| (true, r));
    let (text, name) = (text.trim_start_matches('/'), name.trim_start_matches('/'));
    match (start, end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

fn port_matches(number: u16, kind: &str, wanted: &str) -> bool {
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let in_range = port.split_once('-').map_or_else(
        || port.parse() == Ok(number),
        |(a, b)| {
            a.parse::<u16>().is_ok_and(|a| a <= number)
                && b.parse::<u16>().is_ok_and(|b| number <= b)
        },
    );
    in_range && protocol == kind
}

fn summary(r: &Record) -> ContainerSummary {
    let command: Vec<String> = r.command();
    ContainerSummary {
        id: r.id.clone(),
        names: vec![format!("/{}", r.name)],
        image: r.config.image.clone(),
        image_id: r.image_id.clone(),
        command: command
            .iter()
            .map(|w| quote(w))
            .collect::<Vec<_>>()
            .join(" "),
        created: clock::parse(&r.created).map_or(0, |t| t.unix_timestamp()),
        ports: inspect::ports(r),
        labels: r.config.labels.clone(),
        state: r.state.status.as_str().to_owned(),
        status: status_text(&r.state),
        host_config: SummaryHostConfig {
            network_mode: r.host_config.network_mode.clone(),
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
            ("web", "^/web$", true),
            ("webs", "^web$", false),
            ("x", "y", false),
        ] {
            assert_eq!(name_matches(name, pattern), wanted, "{name} {pattern}");
        }
        assert!(
            port_matches(80, "tcp", "80")
                && port_matches(80, "tcp", "70-90/tcp")
                && !port_matches(80, "udp", "80")
        );
    }
}
