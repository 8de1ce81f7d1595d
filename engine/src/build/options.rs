//! The parameters of `POST /build`.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::error::{Error, Result};
use crate::image::Reference;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names for the result.
    pub names: Vec<Reference>,
    /// Path in the context.
    pub dockerfile: String,
    /// Values for ARG.
    pub build_args: BTreeMap<String, String>,
    /// Labels for the result.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop after; empty: the last.
    pub target: String,
    /// Do not look for steps done before.
    pub no_cache: bool,
    /// Ask the registry for a newer base.
    pub pull: bool,
    /// Say the result's id only.
    pub quiet: bool,
    /// `os/arch[/variant]` of the bases.
    pub platform: Option<String>,
    /// Network of RUN.
    pub network: String,
}

impl Options {
    /// Reads them; what would have an effect and is not there is refused.
    pub fn read(parameters: &[(String, String)]) -> Result<Self> {
        let mut options = Self {
            dockerfile: "Dockerfile".into(),
            network: "default".into(),
            ..Self::default()
        };
        let mut seen = BTreeSet::new();
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
            // Of what is there twice the first counts, as in Docker: docker-py sends a Dockerfile's text beside its name.
            if !seen.insert(name) && name != "t" {
                continue;
            }
            let flag = matches!(value.as_str(), "1" | "true" | "True");
            match name.as_str() {
                "t" => options.names.push(Reference::parse(value)?),
                "dockerfile" => options.dockerfile.clone_from(value),
                "buildargs" => options.build_args = map(name, value)?,
                "labels" => options.labels = map(name, value)?,
                "target" => options.target.clone_from(value),
                "nocache" => options.no_cache = flag,
                "pull" => options.pull = flag,
                "q" => options.quiet = flag,
                "platform" => options.platform = Some(value.clone()),
                "networkmode" => options.network.clone_from(value),
                "squash" if flag => {
                    return Err(Error::not_implemented(
                        "windlassd does not squash images: use a build of several stages",
                    ));
                }
                "outputs" | "extrahosts" => {
                    return Err(Error::not_implemented(format!(
                        "windlassd has no build parameter {name:?}"
                    )));
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// A JSON object of strings; `null` is a name without a value, which has none here either.
fn map(name: &str, value: &str) -> Result<BTreeMap<String, String>> {
    let parsed: BTreeMap<String, Option<String>> = serde_json::from_str(value)
        .map_err(|error| Error::invalid(format!("parameter {name}: {error}")))?;
    Ok(parsed
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_parameter_given_twice_the_first_counts() {
        let parameters = [
            ("dockerfile", ".dockerfile.1"),
            ("dockerfile", "FROM x"),
            ("t", "a"),
            ("t", "b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options::read(&parameters).unwrap();
        assert_eq!(options.dockerfile, ".dockerfile.1");
        assert_eq!(options.names.len(), 2);
    }
}
