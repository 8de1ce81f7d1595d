//! The parameters of `POST /build`.

use std::collections::{BTreeMap, BTreeSet};

use windlass_engine_api::types::{HostConfig, Ulimit};

use crate::container::error::{Error, Result};
use crate::image::Reference;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names for the result.
    pub names: Vec<Reference>,
    /// Path in the context.
    pub dockerfile: String,
    /// Where the context comes from, if not from the request's body.
    pub remote: Option<String>,
    /// Values for ARG.
    pub build_args: BTreeMap<String, String>,
    /// Names that were given for ARG without a value.
    pub bare_args: BTreeSet<String>,
    /// Labels for the result.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop after; empty: the last.
    pub target: String,
    /// Do not look for steps done before.
    pub no_cache: bool,
    /// Images that steps may be taken from.
    pub cache_from: Vec<String>,
    /// Ask the registry for a newer base.
    pub pull: bool,
    /// Say the result's id only.
    pub quiet: bool,
    /// `os/arch[/variant]` of the bases.
    pub platform: Option<String>,
    /// Network of RUN.
    pub network: String,
    /// Say that the container of a step is gone.
    pub remove: bool,
    /// Also of one that failed.
    pub force_remove: bool,
    /// Limits and names of other hosts for RUN.
    pub host: HostConfig,
}

impl Options {
    /// Reads them; what would have an effect and is not there is refused.
    pub fn read(parameters: &[(String, String)]) -> Result<Self> {
        let mut options = Self {
            dockerfile: "Dockerfile".into(),
            network: "default".into(),
            remove: true,
            ..Self::default()
        };
        let mut seen = BTreeSet::new();
        for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
            // Of what is there twice the first counts, as in Docker: docker-py sends a Dockerfile's text beside its name.
            if !seen.insert(name) && !matches!(name.as_str(), "t" | "extrahosts") {
                continue;
            }
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let flag = !matches!(
            value.trim().to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        );
        match name {
            "t" => self.names.push(tag(value)?),
            "dockerfile" => self.dockerfile = value.to_owned(),
            "remote" => self.remote = Some(value.to_owned()),
            "buildargs" => {
                let given = nullable(name, value)?;
                let bare = given.iter().filter(|(_, value)| value.is_none());
                self.bare_args = bare.map(|(name, _)| name.clone()).collect();
                self.build_args = with_values(given);
            }
            "labels" => self.labels = map(name, value)?,
            "target" => self.target = value.to_owned(),
            "nocache" => self.no_cache = flag,
            "cachefrom" => {
                let list: Option<Vec<String>> = json(name, value)?;
                self.cache_from = list.unwrap_or_default();
            }
            "pull" => self.pull = flag,
            "q" => self.quiet = flag,
            "rm" => self.remove = flag,
            "forcerm" => self.force_remove = flag,
            "platform" => self.platform = Some(platform(value)?),
            "networkmode" => self.network = value.to_owned(),
            "squash" if flag => {
                return Err(Error::invalid(
                    "squash is only supported with experimental mode",
                ));
            }
            "outputs" if !matches!(value, "[]" | "null") => {
                return Err(Error::not_implemented(
                    "build outputs need BuildKit, which windlassd does not have: copy the files out of the image",
                ));
            }
            "isolation" if !value.eq_ignore_ascii_case("default") => {
                return Err(Error::invalid(format!("Unsupported isolation: {value:?}")));
            }
            _ => self.limit(name, value)?,
        }
        Ok(())
    }

    fn limit(&mut self, name: &str, value: &str) -> Result<()> {
        // Docker takes what is no number for 0 here.
        let number = value.parse::<i64>().unwrap_or(0);
        let host = &mut self.host;
        match name {
            "extrahosts" => host.extra_hosts.push(value.to_owned()),
            "shmsize" => host.shm_size = number,
            "memory" => host.memory = number,
            "memswap" => host.memory_swap = number,
            "cpushares" => host.cpu_shares = number,
            "cpuperiod" => host.cpu_period = number,
            "cpuquota" => host.cpu_quota = number,
            "cpusetcpus" => host.cpuset_cpus = value.to_owned(),
            "cpusetmems" => host.cpuset_mems = value.to_owned(),
            "cgroupparent" => host.cgroup_parent = value.to_owned(),
            "ulimits" => {
                let list: Option<Vec<Ulimit>> = json(name, value)?;
                host.ulimits = list.unwrap_or_default();
            }
            "securityopt" => {
                let list: Option<Vec<String>> = json(name, value)?;
                host.security_opt = list.unwrap_or_default();
            }
            _ => {}
        }
        Ok(())
    }
}

fn tag(value: &str) -> Result<Reference> {
    let reference = Reference::parse(value)?;
    if reference.digest.is_some() {
        return Err(Error::invalid("build tag cannot contain a digest"));
    }
    Ok(reference)
}

/// What containerd calls processors.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

/// `linux/ARCH[/VARIANT]`, or one of the two alone.
fn platform(value: &str) -> Result<String> {
    let host = crate::image::Platform::host();
    let value = value.to_ascii_lowercase();
    let wrong = || {
        Error::invalid(format!(
            "\"{value}\": unknown operating system or architecture: invalid argument"
        ))
    };
    let (architecture, variant) = match value.split('/').collect::<Vec<_>>()[..] {
        ["linux"] => (host.architecture.as_str(), None),
        ["linux", architecture] | [architecture] => (architecture, None),
        ["linux", architecture, variant] => (architecture, Some(variant)),
        _ => return Err(wrong()),
    };
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" => "arm",
        "i386" => "386",
        other => other,
    };
    if !ARCHITECTURES.contains(&architecture) {
        return Err(wrong());
    }
    let variant = variant.map(|variant| format!("/{variant}"));
    Ok(format!(
        "linux/{architecture}{}",
        variant.unwrap_or_default()
    ))
}

fn json<T: serde::de::DeserializeOwned>(name: &str, value: &str) -> Result<T> {
    serde_json::from_str(value)
        .map_err(|error| Error::invalid(format!("error reading {name}: {error}")))
}

/// A JSON object of strings; `null` is a name without a value, which has none here either.
fn map(name: &str, value: &str) -> Result<BTreeMap<String, String>> {
    Ok(with_values(nullable(name, value)?))
}

fn nullable(name: &str, value: &str) -> Result<BTreeMap<String, Option<String>>> {
    let parsed: Option<_> = json(name, value)?;
    Ok(parsed.unwrap_or_default())
}

fn with_values(given: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    let whole = given.into_iter();
    whole
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &[(&str, &str)]) -> Result<Options> {
        let list: Vec<_> = list
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Options::read(&list)
    }

    #[test]
    fn parameters() {
        let options = read(&[
            ("t", "a:1"),
            ("t", "b"),
            ("dockerfile", ".dockerfile.1"),
            ("dockerfile", "FROM x"),
            ("buildargs", r#"{"A":"1","B":null}"#),
            ("cachefrom", "null"),
            ("extrahosts", "a:10.0.0.1"),
            ("extrahosts", "b:host-gateway"),
            ("ulimits", r#"[{"Name":"nofile","Soft":1,"Hard":2}]"#),
            ("memory", "1000"),
            ("rm", "0"),
            ("platform", "linux/arm64"),
        ])
        .unwrap();
        assert_eq!((options.names.len(), options.build_args.len()), (2, 1));
        assert!(options.bare_args.contains("B") && options.bare_args.len() == 1);
        assert_eq!(options.dockerfile, ".dockerfile.1", "the first counts");
        assert_eq!(options.host.extra_hosts.len(), 2);
        assert_eq!(
            (options.host.ulimits[0].hard, options.host.memory),
            (2, 1000)
        );
        assert!(!options.remove && options.cache_from.is_empty());
        for bad in [
            ("t", "A:B:C"),
            ("buildargs", "["),
            ("platform", "windows/amd64"),
            ("platform", "foobar"),
            ("squash", "1"),
            ("outputs", r#"[{"Type":"local"}]"#),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
