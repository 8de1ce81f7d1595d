//! The bus of events, with a short memory for `since`.

use std::collections::VecDeque;
use std::sync::Mutex;

use time::OffsetDateTime;
use tokio::sync::broadcast;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{Actor, Event, StringMap};

const REMEMBERED: usize = 256;
/// Events that a slow listener may be behind.
const BEHIND: usize = 256;

/// Everybody who listens gets every event.
#[derive(Debug)]
pub struct EventBus {
    sender: broadcast::Sender<Event>,
    past: Mutex<VecDeque<Event>>,
}

/// Which of the past is wanted; both ends are part of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    /// Not older.
    pub since: Option<OffsetDateTime>,
    /// Not younger.
    pub until: Option<OffsetDateTime>,
}

impl Span {
    /// Without any end the past is not wanted at all.
    fn has(&self, event: &Event) -> bool {
        let nanos = |t: OffsetDateTime| i64::try_from(t.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        (self.since.is_some() || self.until.is_some())
            && self.since.is_none_or(|t| event.time_nano >= nanos(t))
            && self.until.is_none_or(|t| event.time_nano <= nanos(t))
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(BEHIND).0,
            past: Mutex::default(),
        }
    }
}

impl EventBus {
    /// Tells everybody.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: StringMap) {
        let now = OffsetDateTime::now_utc();
        let legacy = matches!(kind, "container" | "image");
        let event = Event {
            status: if legacy {
                action.to_owned()
            } else {
                String::new()
            },
            id: if legacy { id.to_owned() } else { String::new() },
            from: if kind == "container" {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes,
            },
            scope: "local".to_owned(),
            time: now.unix_timestamp(),
            time_nano: i64::try_from(now.unix_timestamp_nanos()).unwrap_or(i64::MAX),
        };
        if let Ok(mut past) = self.past.lock() {
            if past.len() == REMEMBERED {
                past.pop_front();
            }
            past.push_back(event.clone());
            // Sent under the lock, so that nobody sees an event twice or not at all between `past` and the channel.
            self.sender.send(event).ok();
        }
    }

    /// How many listen.
    pub fn listeners(&self) -> i64 {
        i64::try_from(self.sender.receiver_count()).unwrap_or(i64::MAX)
    }

    /// The remembered events of the span, and a receiver for those to come.
    pub fn subscribe(&self, span: Span) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self
            .past
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = past.iter().filter(|e| span.has(e)).cloned().collect();
        (old, self.sender.subscribe())
    }
}

/// These actions have a text after a colon, and are asked for without it.
const WITH_TEXT: [&str; 3] = ["exec_create", "exec_start", "health_status"];

/// Whether an event passes the filters, as Docker reads them: objects by a prefix of id or name.
pub fn matches(event: &Event, filters: &Filters) -> bool {
    let one_of = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let attributes = &event.actor.attributes;
    let attribute = |name: &str| attributes.get(name).map_or("", String::as_str);
    let name = attribute("name");
    let image = if event.kind == "image" {
        name
    } else {
        attribute("image")
    };
    let id = event.actor.id.as_str();
    let objects = ["container", "volume", "network", "daemon", "plugin"];
    let some_text = filters
        .get("event")
        .iter()
        .any(|w| WITH_TEXT.contains(&w.as_str()));
    one_of("type", &|w| w == event.kind)
        && one_of("event", &|w| {
            w == event.action || (some_text && event.action.starts_with(w))
        })
        && objects
            .iter()
            .all(|kind| one_of(kind, &|w| id.starts_with(w) || name.starts_with(w)))
        && one_of("image", &|w| {
            [id, image, without_tag(id), without_tag(image)].contains(&w)
        })
        && one_of("scope", &|w| w == event.scope)
        && one_of("driver", &|w| w == attribute("driver"))
        && filters.match_labels(attributes)
}

/// `host:5000/box:1` → `host:5000/box`; a digest is cut off too.
fn without_tag(reference: &str) -> &str {
    let name = reference
        .split_once('@')
        .map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_select() {
        let bus = EventBus::default();
        bus.publish(
            "container",
            "health_status: healthy",
            "abc123",
            [("name", "web"), ("image", "host:5000/i:1"), ("tier", "x")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        let since = |since| Span { since, until: None };
        let until = |until| Span { since: None, until };
        let epoch = Some(OffsetDateTime::UNIX_EPOCH);
        assert!(bus.subscribe(Span::default()).0.is_empty());
        assert!(bus.subscribe(until(epoch)).0.is_empty());
        let now = Some(OffsetDateTime::now_utc());
        assert_eq!(bus.subscribe(until(now)).0.len(), 1);
        assert!(bus.subscribe(since(now)).0.is_empty());
        let (past, _) = bus.subscribe(since(epoch));
        let event = &past[0];
        let one = |key: &str, value: &str| Filters::new().with(key, value);
        for (filters, wanted) in [
            (Filters::new(), true),
            (one("event", "health_status"), true),
            (one("event", "health_status: healthy"), true),
            (one("event", "health"), false),
            (one("event", "die"), false),
            (one("container", "web"), true),
            (one("container", "we"), true),
            (one("container", "abc"), true),
            (one("container", "bc"), false),
            (one("container", "no").with("container", "web"), true),
            (one("type", "image"), false),
            (one("image", "host:5000/i"), true),
            (one("image", "host:5000/i:1"), true),
            (one("image", "host:5000/i:2"), false),
            (one("label", "x"), false),
            (one("label", "tier=x"), true),
            (one("scope", "swarm"), false),
            (one("network", "other"), false),
        ] {
            assert_eq!(matches(event, &filters), wanted, "{filters:?}");
        }
    }
}
