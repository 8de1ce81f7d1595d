//! The `filters` query parameter.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Filters of a list call: a key with any number of accepted values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// No filter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an accepted value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.entry(key.to_owned()).or_default().push(value.into());
        self
    }

    /// Only objects that carry the label with this value.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.with("label", format!("{name}={value}"))
    }

    /// The values given for `key`.
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the query parameter.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Reads both forms that clients send: `{"k":["v"]}` and `{"k":{"v":true}}`.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: BTreeMap<String, Values> = serde_json::from_str(text)?;
        Ok(Self(
            raw.into_iter()
                .map(|(key, values)| match values {
                    Values::List(list) => (key, list),
                    Values::Set(set) => (
                        key,
                        set.into_iter()
                            .filter(|(_, on)| *on)
                            .map(|(value, _)| value)
                            .collect(),
                    ),
                })
                .collect(),
        ))
    }

    /// Whether `labels` satisfy every `label` filter (`name` or `name=value`).
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::Filters;

    #[test]
    fn both_forms_mean_the_same() {
        let list = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let set = Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false}}"#).unwrap();
        assert_eq!(list, set);
        let labels = [
            ("a".to_owned(), "b".to_owned()),
            ("c".to_owned(), "x".to_owned()),
        ]
        .into();
        assert!(list.match_labels(&labels));
        assert!(!list.clone().label("a", "z").match_labels(&labels));
        assert_eq!(Filters::parse("").unwrap(), Filters::new());
    }
}
