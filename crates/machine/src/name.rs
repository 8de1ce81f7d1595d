//! Machine names: what is also a valid host name on every provider.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A machine's name: a DNS label of lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

/// Why a name is not a machine name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a machine name: {reason}")]
pub struct NameError {
    /// What was given.
    pub name: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl MachineName {
    /// The longest name: one DNS label.
    pub const MAX_LENGTH: usize = 63;

    /// Checks the rules of a host name.
    pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        match broken_rule(&name) {
            Some(reason) => Err(NameError { name, reason }),
            None => Ok(Self(name)),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn broken_rule(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > MachineName::MAX_LENGTH {
        Some("it is longer than 63 characters")
    } else if name.chars().any(|c| c.is_ascii_uppercase()) {
        Some("use lower-case letters, for it is also a host name")
    } else if !name.chars().all(allowed) {
        Some("use only letters, digits and hyphens, for it is also a host name")
    } else if name.starts_with('-') || name.ends_with('-') {
        Some("it begins or ends with a hyphen")
    } else if name.chars().all(|c| c.is_ascii_digit()) {
        Some("use a letter too, for a number alone reads as an address")
    } else {
        None
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for MachineName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for MachineName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<MachineName> for String {
    fn from(name: MachineName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let long = "a".repeat(64);
        for good in ["web1", "a", "0a", "web-1", &long[..63]] {
            assert!(MachineName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-a", "a-", "Web", "a.b", "a_b", "a b", "../x", "12", "ü", "a/b", &long,
        ] {
            let error = MachineName::new(bad).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
