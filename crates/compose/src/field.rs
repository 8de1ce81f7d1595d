//! Reading a tree by types: each field knows the way to it, and says what was expected and what was found.
//!
//! Deliberately absent: which fields there are (see `keys`).

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Log;
use crate::keys::{self, Table};
use crate::node::{Kind, Mark, Node, Scalar, Value};
use crate::{units, words};

/// A node with the way to it, like `services.web.image`.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub node: &'a Node,
    pub path: String,
}

/// The keys of a mapping whose names were checked.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    pub mark: Mark,
    pub path: String,
    map: &'a Node,
}

impl<'a> Fields<'a> {
    /// A key that is given, and not as nothing.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let node = self.map.get(key).filter(|node| !node.is_null())?;
        let path = self.child_path(key);
        Some(Field { node, path })
    }

    pub fn child_path(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.path),
        }
    }

    pub fn string(&self, key: &str, log: &mut Log) -> Option<String> {
        self.get(key)?.string(log)
    }

    pub fn flag(&self, key: &str, log: &mut Log) -> bool {
        self.get(key)
            .and_then(|field| field.boolean(log))
            .unwrap_or_default()
    }

    pub fn duration(&self, key: &str, log: &mut Log) -> Option<Duration> {
        self.get(key)?.duration(log)
    }

    pub fn strings(&self, key: &str, log: &mut Log) -> Vec<String> {
        self.get(key)
            .map(|field| field.strings(log))
            .unwrap_or_default()
    }

    pub fn pairs(&self, key: &str, log: &mut Log) -> BTreeMap<String, String> {
        let pairs = self
            .get(key)
            .map(|field| field.pairs(log))
            .unwrap_or_default();
        let filled = |(name, value): (String, Option<String>)| (name, value.unwrap_or_default());
        pairs.into_iter().map(filled).collect()
    }
}

impl<'a> Field<'a> {
    pub fn mark(&self) -> Mark {
        self.node.mark
    }

    /// Reports this field, by its path.
    pub fn reject(&self, problem: &str, log: &mut Log) {
        log.error(self.mark(), format!("`{}` {problem}", self.path));
    }

    pub fn reject_with_hint(&self, problem: &str, hint: &str, log: &mut Log) {
        log.error_with_hint(self.mark(), format!("`{}` {problem}", self.path), hint);
    }

    fn expected(&self, what: &str, log: &mut Log) {
        let found = self.node.describe();
        self.reject(&format!("must be {what}, but is {found}"), log);
    }

    fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// A string; a number or boolean must be quoted to be one, as Compose wants it.
    pub fn string(&self, log: &mut Log) -> Option<String> {
        match self.scalar() {
            Some(scalar) if scalar.kind() == Kind::Text => Some(scalar.text.clone()),
            Some(scalar) if scalar.kind() != Kind::Null => {
                let problem = format!("must be a string, but is {}", self.node.describe());
                let hint = format!("put it in quotes: \"{}\"", scalar.text);
                self.reject_with_hint(&problem, &hint, log);
                None
            }
            _ => {
                self.expected("a string", log);
                None
            }
        }
    }

    /// A string, number or boolean, as it was written.
    pub fn text(&self, log: &mut Log) -> Option<String> {
        match self.scalar() {
            Some(scalar) if scalar.kind() != Kind::Null => Some(scalar.text.clone()),
            _ => {
                self.expected("a string or a number", log);
                None
            }
        }
    }

    pub fn boolean(&self, log: &mut Log) -> Option<bool> {
        match self
            .scalar()
            .map(|scalar| scalar.text.to_ascii_lowercase())
            .as_deref()
        {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => {
                self.expected("`true` or `false`", log);
                None
            }
        }
    }

    pub fn number<T: FromStr>(&self, what: &str, log: &mut Log) -> Option<T> {
        let number = self.scalar().and_then(|scalar| scalar.text.parse().ok());
        if number.is_none() {
            self.expected(what, log);
        }
        number
    }

    pub fn duration(&self, log: &mut Log) -> Option<Duration> {
        let duration = self
            .scalar()
            .and_then(|scalar| units::parse_duration(&scalar.text));
        if duration.is_none() {
            self.expected("a duration like `1m30s`", log);
        }
        duration
    }

    pub fn bytes(&self, log: &mut Log) -> Option<u64> {
        let bytes = self
            .scalar()
            .and_then(|scalar| units::parse_bytes(&scalar.text));
        if bytes.is_none() {
            self.expected("a size like `512m`", log);
        }
        bytes
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)], log: &mut Log) -> Option<T> {
        let text = self.scalar().map(|scalar| scalar.text.as_str());
        let same = |(word, _): &&(&str, T)| Some(*word) == text;
        let found = choices.iter().find(same).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<String> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            self.expected(&words.join(" or "), log);
        }
        found
    }

    /// The elements of a list.
    pub fn items(&self, log: &mut Log) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::List(items) => self.number_items(items),
            _ => {
                self.expected("a list", log);
                Vec::new()
            }
        }
    }

    fn number_items(&self, items: &'a [Node]) -> Vec<Field<'a>> {
        let number = |(at, node)| {
            let path = format!("{}[{at}]", self.path);
            Field { node, path }
        };
        items.iter().enumerate().map(number).collect()
    }

    /// The elements of a list, or the one value itself.
    pub fn one_or_more(&self) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::List(items) => self.number_items(items),
            _ => vec![self.clone()],
        }
    }

    /// One string or a list of them.
    pub fn strings(&self, log: &mut Log) -> Vec<String> {
        self.one_or_more()
            .iter()
            .filter_map(|item| item.string(log))
            .collect()
    }

    /// A list of arguments, or a text that is split as a shell does.
    pub fn arguments(&self, log: &mut Log) -> Option<Vec<String>> {
        let Some(scalar) = self.scalar() else {
            return Some(
                self.items(log)
                    .iter()
                    .filter_map(|item| item.string(log))
                    .collect(),
            );
        };
        match words::split(&scalar.text) {
            Ok(words) => Some(words),
            Err(error) => {
                self.reject(&format!("cannot be split into words: {error}"), log);
                None
            }
        }
    }

    /// The members of a mapping whose keys are free.
    pub fn members(&self, log: &mut Log) -> Vec<(&'a str, Field<'a>)> {
        let Value::Map(entries) = &self.node.value else {
            self.expected("a mapping", log);
            return Vec::new();
        };
        let member = |entry: &'a crate::node::Entry| {
            let path = format!("{}.{}", self.path, entry.key);
            let node = &entry.value;
            (entry.key.as_str(), Field { node, path })
        };
        entries.iter().map(member).collect()
    }

    /// `NAME=value` lines or a mapping. `None` where no value is given.
    pub fn pairs(&self, log: &mut Log) -> Vec<(String, Option<String>)> {
        if let Value::List(_) = self.node.value {
            return self
                .items(log)
                .iter()
                .filter_map(|item| item.assignment(log))
                .collect();
        }
        let mut pairs = Vec::new();
        for (name, field) in self.members(log) {
            let value = match field.node.is_null() {
                true => None,
                false => field.text(log),
            };
            pairs.push((name.to_owned(), value));
        }
        pairs
    }

    fn assignment(&self, log: &mut Log) -> Option<(String, Option<String>)> {
        let text = self.string(log)?;
        let pair = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        if pair.0.is_empty() {
            self.reject("has no name before the `=`", log);
            return None;
        }
        Some(pair)
    }

    /// A mapping with the keys of a table; others are reported.
    pub fn fields(&self, table: &'static Table, log: &mut Log) -> Option<Fields<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.expected("a mapping", log);
            return None;
        };
        let fields = Fields {
            mark: self.mark(),
            path: self.path.clone(),
            map: self.node,
        };
        for entry in entries {
            check_key(&entry.key, entry.mark, &fields, table, log);
        }
        Some(fields)
    }
}

fn check_key(key: &str, mark: Mark, fields: &Fields<'_>, table: &'static Table, log: &mut Log) {
    if table.accepts(key) {
        return;
    }
    let path = fields.child_path(key);
    if key.starts_with("x-") {
        return check_extension(key, &path, mark, table, log);
    }
    if table.later.contains(&key) {
        return log.error(
            mark,
            format!("`{path}` is Compose's, but windlass does not have it yet"),
        );
    }
    let message = format!("`{path}` is not a known key");
    match table.suggest(key) {
        Some(near) => log.error_with_hint(mark, message, format!("did you mean `{near}`?")),
        None => log.error(mark, message),
    }
}

/// Other tools' extensions are none of our business, unless they look like a slip of ours.
fn check_extension(key: &str, path: &str, mark: Mark, table: &'static Table, log: &mut Log) {
    let known = keys::EXTENSIONS.iter().map(|(name, _)| *name);
    let Some(near) = keys::nearest(key, known) else {
        return;
    };
    let home = keys::EXTENSIONS.iter().find(|(name, _)| *name == near);
    let place = home.map_or(table.place, |(_, table)| table.place);
    if key == near {
        let message = format!("`{path}` has no effect here");
        return log.error_with_hint(mark, message, format!("`{near}` belongs to {place}"));
    }
    let message = format!("`{path}` looks misspelt");
    log.error_with_hint(mark, message, format!("did you mean `{near}`?"));
}
