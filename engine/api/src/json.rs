//! Reading JSON as Go clients write it: `null` means absent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize as _};
use serde_json::Value;

/// Parses `bytes`, taking each `null` member of an object as absent.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let mut value: Value = serde_json::from_slice(bytes)?;
    strip_nulls(&mut value);
    serde_json::from_value(value)
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// A command: a list of words, or one string as the first API versions had it.
pub(crate) fn words<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Words>::deserialize(deserializer)?.map(|words| match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }),
    )
}

/// Accepts `null` where a default will do.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Docker's `null` for a list that nobody gave.
pub(crate) fn null_when_empty<S, T>(list: &[T], serializer: S) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
    T: serde::Serialize,
{
    if list.is_empty() {
        serializer.serialize_none()
    } else {
        list.serialize(serializer)
    }
}

/// [`null_when_empty`] for a map.
pub(crate) fn null_when_no_entries<S, T>(
    map: &std::collections::BTreeMap<String, T>,
    serializer: S,
) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
    T: serde::Serialize,
{
    if map.is_empty() {
        serializer.serialize_none()
    } else {
        map.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use crate::types::ContainerConfig;

    #[test]
    fn null_is_absent_and_a_string_is_a_command() {
        let config: ContainerConfig = super::from_slice(
            br#"{"Env":null,"Cmd":"ls","Labels":null,"ExposedPorts":{"80/tcp":{}}}"#,
        )
        .unwrap();
        assert_eq!(config.cmd, Some(vec!["ls".to_owned()]));
        assert!(config.env.is_empty() && config.labels.is_empty());
        assert!(config.exposed_ports.contains_key("80/tcp"));
    }
}
