//! The keys of the declared file: which windlass has, which it may leave aside, and which are Compose's but not there yet.
//!
//! The one list: reading refuses what is not in it, and the user guide's tables are made from it. Deliberately absent: what a key means.

mod deploy;
mod project;
mod service;

use std::fmt::Write as _;

pub use deploy::*;
pub use project::*;
pub use service::*;

/// The keys of one place of the file.
#[derive(Debug)]
pub struct Table {
    /// Like `services.<name>.build`.
    pub place: &'static str,
    /// What is read, with what is worth knowing about it.
    pub supported: &'static [(&'static str, &'static str)],
    /// What is accepted and has no effect, with the reason.
    pub ignored: &'static [(&'static str, &'static str)],
    /// Keys of the Compose Specification that are refused.
    pub later: &'static [&'static str],
}

impl Table {
    /// The nearest known key, if one is near.
    pub(crate) fn suggest(&self, key: &str) -> Option<&'static str> {
        let known = self
            .supported
            .iter()
            .chain(self.ignored)
            .map(|(name, _)| *name);
        nearest(key, known.chain(self.later.iter().copied()))
    }

    pub(crate) fn accepts(&self, key: &str) -> bool {
        self.supported
            .iter()
            .chain(self.ignored)
            .any(|(name, _)| *name == key)
    }
}

/// The candidate with the fewest edits, if a person could have meant it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let furthest = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= furthest)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Our extension keys and where they belong.
pub(crate) const EXTENSIONS: &[(&str, &Table)] = &[("x-fleets", &TOP), ("x-ingress", &SERVICE)];

/// All tables, from the outside in.
pub static TABLES: &[&Table] = &[
    &TOP,
    &SERVICE,
    &BUILD,
    &HEALTHCHECK,
    &PORT,
    &MOUNT,
    &MOUNT_TMPFS,
    &ENV_FILE,
    &DEPENDENCY,
    &SERVICE_NETWORK,
    &LOGGING,
    &DEPLOY,
    &PLACEMENT,
    &RESOURCES,
    &LIMITS,
    &RESERVATIONS,
    &RESTART_POLICY,
    &UPDATE,
    &INGRESS,
    &VOLUME,
    &NETWORK,
    &FLEET,
    &TARGET,
];

/// The tables as the user guide shows them.
pub fn markdown() -> String {
    let mut out = String::new();
    let list = |names: &[&str]| {
        names
            .iter()
            .map(|n| format!("`{n}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for table in TABLES {
        // Writing to a string cannot fail.
        let _ = write!(out, "### `{}`\n\n| key | |\n| --- | --- |\n", table.place);
        for (name, note) in table.supported {
            let _ = writeln!(out, "| `{name}` | {note} |");
        }
        for (name, why) in table.ignored {
            let _ = writeln!(out, "| `{name}` | accepted, without effect: {why} |");
        }
        if !table.later.is_empty() {
            let _ = write!(out, "\nNot there yet: {}.\n", list(table.later));
        }
        out.push('\n');
    }
    out.replace("### `the file`", "### The file")
}
