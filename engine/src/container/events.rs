//! The bus of events, with a short memory for `since`.

use std::collections::VecDeque;
use std::sync::Mutex;

use time::OffsetDateTime;
use tokio::sync::broadcast;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{Actor, Event, StringMap};

const REMEMBERED: usize = 256;

/// Everybody who listens gets every event.
#[derive(Debug)]
pub struct EventBus {
    sender: broadcast::Sender<Event>,
    past: Mutex<VecDeque<Event>>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(64).0,
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

    /// The remembered events since `since`, and a receiver for those to come.
    pub fn subscribe(
        &self,
        since: Option<OffsetDateTime>,
    ) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self
            .past
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let from = since.map(|t| i64::try_from(t.unix_timestamp_nanos()).unwrap_or(i64::MAX));
        let old = match from {
            Some(from) => past
                .iter()
                .filter(|e| e.time_nano >= from)
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        (old, self.sender.subscribe())
    }
}

/// Whether an event passes the filters.
pub fn matches(event: &Event, filters: &Filters) -> bool {
    let one_of = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let attributes = &event.actor.attributes;
    let name = attributes.get("name").map_or("", String::as_str);
    let object = |kind: &'static str| {
        move |w: &str| {
            event.kind == kind && (w == name || (!w.is_empty() && event.actor.id.starts_with(w)))
        }
    };
    one_of("type", &|w| w == event.kind)
        && one_of("event", &|w| {
            w == event.action || event.action.split(':').next() == Some(w)
        })
        && one_of("container", &object("container"))
        && one_of("image", &|w| {
            object("image")(w)
                || (event.kind == "container"
                    && attributes.get("image").is_some_and(|image| image == w))
        })
        && one_of("volume", &object("volume"))
        && one_of("network", &object("network"))
        && one_of("scope", &|w| w == event.scope)
        && filters.match_labels(attributes)
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
            [
                ("name".to_owned(), "web".to_owned()),
                ("image".to_owned(), "i".to_owned()),
            ]
            .into(),
        );
        let (past, _) = bus.subscribe(Some(OffsetDateTime::UNIX_EPOCH));
        let event = &past[0];
        for (filters, wanted) in [
            (Filters::new(), true),
            (Filters::new().with("event", "health_status"), true),
            (Filters::new().with("event", "die"), false),
            (Filters::new().with("container", "web"), true),
            (Filters::new().with("container", "abc"), true),
            (Filters::new().with("type", "image"), false),
            (Filters::new().with("image", "i"), true),
            (Filters::new().with("label", "x"), false),
        ] {
            assert_eq!(matches(event, &filters), wanted, "{filters:?}");
        }
    }
}
