//! Options of a provider: one declaration for flags, environment variables and YAML.
//!
//! Deliberately absent: reading the environment and parsing flags; the command line hands both in.

use std::collections::BTreeMap;

use crate::{ErrorKind, ProviderError, Result};

/// One option of a provider: a flag (`--<provider>-<name>`), an environment variable and a YAML key alike.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Name without the provider's prefix, in kebab case: `ip-address`.
    pub name: &'static str,
    /// Environment variable that is read when the flag is absent.
    pub env: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
    /// Shown in help, used when nothing is given.
    pub default: Option<&'static str>,
    /// Create fails without it.
    pub required: bool,
    /// A credential: never stored, never printed.
    pub secret: bool,
    /// A path on this computer: what matters of it is copied at create, and the path is not stored.
    pub file: bool,
}

impl OptionSpec {
    /// An optional option without environment variable or default; set the rest with struct update syntax.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            env: None,
            help,
            default: None,
            required: false,
            secret: false,
            file: false,
        }
    }
}

/// Option values by name without prefix, as collected from flags, environment and YAML.
pub type OptionValues = BTreeMap<String, String>;

/// Adds what `lookup` knows of the environment variables of `specs` where `given` has no value. Empty variables count as absent.
pub fn fill_from_environment(
    specs: &[OptionSpec],
    given: &mut OptionValues,
    lookup: impl Fn(&str) -> Option<String>,
) {
    for spec in specs {
        if given.contains_key(spec.name) {
            continue;
        }
        if let Some(value) = spec.env.and_then(&lookup).filter(|value| !value.is_empty()) {
            given.insert(spec.name.to_owned(), value);
        }
    }
}

/// Checks names, adds defaults, and insists on what is required. Names may carry the driver's prefix (`generic-ip-address`).
pub fn resolve(driver: &str, specs: &[OptionSpec], given: &OptionValues) -> Result<OptionValues> {
    let mut values = OptionValues::new();
    for (name, value) in given {
        let spec = find(driver, specs, name)?;
        if values.insert(spec.name.to_owned(), value.clone()).is_some() {
            return Err(invalid(format!(
                "option `{}` of driver `{driver}` is given twice",
                spec.name
            )));
        }
    }
    for spec in specs {
        let empty = values.get(spec.name).is_none_or(String::is_empty);
        match (empty, spec.default) {
            (true, Some(default)) => {
                values.insert(spec.name.to_owned(), default.to_owned());
            }
            (true, None) if spec.required => return Err(missing(driver, spec)),
            (true, None) => {
                values.remove(spec.name);
            }
            (false, _) => {}
        }
    }
    Ok(values)
}

/// The values that may be written to the store: neither secrets nor paths of this computer.
pub fn storable(specs: &[OptionSpec], values: &OptionValues) -> OptionValues {
    let keep = |name: &str| {
        specs
            .iter()
            .any(|spec| spec.name == name && !spec.secret && !spec.file)
    };
    values
        .iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn find<'a>(driver: &str, specs: &'a [OptionSpec], name: &str) -> Result<&'a OptionSpec> {
    let bare = name
        .strip_prefix(driver)
        .and_then(|rest| rest.strip_prefix('-'));
    let matches = |spec: &&OptionSpec| spec.name == name || Some(spec.name) == bare;
    if let Some(spec) = specs.iter().find(matches) {
        return Ok(spec);
    }
    let error = invalid(format!("driver `{driver}` has no option `{name}`"));
    let wanted = bare.unwrap_or(name);
    let nearest = specs
        .iter()
        .map(|spec| (distance(spec.name, wanted), spec.name))
        .min();
    Err(match nearest {
        Some((far, near)) if far <= wanted.len().max(near.len()) / 3 + 1 => {
            error.with_hint(format!("did you mean `{near}`?"))
        }
        Some(_) => {
            let names: Vec<_> = specs.iter().map(|spec| spec.name).collect();
            error.with_hint(format!("its options are: {}", names.join(", ")))
        }
        None => error.with_hint("it takes no options"),
    })
}

fn missing(driver: &str, spec: &OptionSpec) -> ProviderError {
    let environment = spec
        .env
        .map(|name| format!(", set {name}"))
        .unwrap_or_default();
    invalid(format!(
        "driver `{driver}` needs the option `{}`: {}",
        spec.name, spec.help
    ))
    .with_hint(format!(
        "give --{driver}-{}{environment}, or write `{}` under `options` of the fleet",
        spec.name, spec.name
    ))
}

fn invalid(message: String) -> ProviderError {
    ProviderError::new(ErrorKind::Invalid, message)
}

/// Levenshtein distance, in bytes: option names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        OptionSpec {
            required: true,
            env: Some("GENERIC_IP_ADDRESS"),
            ..OptionSpec::new("ip-address", "address of the host")
        },
        OptionSpec {
            default: Some("22"),
            ..OptionSpec::new("ssh-port", "SSH port")
        },
        OptionSpec {
            secret: true,
            ..OptionSpec::new("token", "API token")
        },
        OptionSpec {
            file: true,
            ..OptionSpec::new("ssh-key", "private key")
        },
    ];

    fn given(pairs: &[(&str, &str)]) -> OptionValues {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_prefixes_and_empties() {
        let values = resolve(
            "generic",
            SPECS,
            &given(&[("generic-ip-address", "192.0.2.1"), ("token", "")]),
        )
        .unwrap();
        assert_eq!(
            values,
            given(&[("ip-address", "192.0.2.1"), ("ssh-port", "22")])
        );
    }

    #[test]
    fn mistakes_name_the_option_and_the_way_out() {
        let cases = [
            (
                given(&[("ip-addres", "1")]),
                "driver `generic` has no option `ip-addres`",
                "did you mean `ip-address`?",
            ),
            (
                given(&[("zzzzzzzz", "1")]),
                "driver `generic` has no option `zzzzzzzz`",
                "its options are: ip-address, ssh-port, token, ssh-key",
            ),
            (
                given(&[]),
                "driver `generic` needs the option `ip-address`: address of the host",
                "set GENERIC_IP_ADDRESS",
            ),
            (
                given(&[("ip-address", "a"), ("generic-ip-address", "b")]),
                "given twice",
                "",
            ),
        ];
        for (values, message, hint) in cases {
            let error = resolve("generic", SPECS, &values).unwrap_err();
            assert!(error.message.contains(message), "{error}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{message}");
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
    }

    #[test]
    fn environment_fills_only_gaps_and_secrets_are_not_stored() {
        let mut values = given(&[("token", "s"), ("ssh-key", "/k")]);
        fill_from_environment(SPECS, &mut values, |name| {
            (name == "GENERIC_IP_ADDRESS").then(|| "192.0.2.7".to_owned())
        });
        assert_eq!(values["ip-address"], "192.0.2.7");
        assert_eq!(
            storable(SPECS, &values),
            given(&[("ip-address", "192.0.2.7")])
        );
    }

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
            ("region", "regoin", 2),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
        }
    }
}
