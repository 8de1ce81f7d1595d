//! The settings file (`engine.json`): Docker's `daemon.json` as far as it makes sense here.
//!
//! A key that is not known, or that is given by an option of the command line, is an error that names file and key: a setting
//! that nobody heeds is worse than none.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use fs_err as fs;
use serde::Deserialize;
use windlass_engine_api::types::{LogConfig, StringMap, Ulimit};

use crate::container::log_options;
use crate::image::RegistryConfig;

/// What the file says; all of it may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
    log_driver: Option<String>,
    log_opts: StringMap,
    default_ulimits: BTreeMap<String, NamedUlimit>,
    /// `key=value`, shown by `docker info`.
    pub labels: Vec<String>,
    /// Name servers of containers that ask for none.
    pub dns: Vec<String>,
    /// Options of the resolver.
    pub dns_opts: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Bytes, or `64M`.
    default_shm_size: Option<Size>,
    /// Whether containers that say nothing get a small init process.
    pub init: bool,
    live_restore: Option<bool>,
    storage_driver: Option<String>,
    experimental: bool,
    /// Accepted: the engine's end does not stop containers, so that there is nothing to wait for.
    shutdown_timeout: Option<i64>,
    /// Accepted: `WINDLASSD_LOG` says what is logged.
    debug: bool,
    log_level: Option<String>,
    features: BTreeMap<String, bool>,
    /// Whose subordinate ids stand for containers' ids: `default`, `user`, `user:group`.
    pub userns_remap: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct NamedUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(i64),
    Text(String),
}

/// Keys of Docker's whose place is the command line.
const OPTIONS: [(&str, &str); 7] = [
    ("data-root", "--root"),
    ("graph", "--root"),
    ("exec-root", "--run"),
    ("hosts", "--socket"),
    ("bridge", "--bridge"),
    ("bip", "--bridge-subnet"),
    ("pidfile", "none: the service manager knows the process"),
];

impl Config {
    /// Reads the file; that it is missing is no error.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e.into()),
        };
        Self::parse(&text).with_context(|| format!("{} is no settings file", path.display()))
    }

    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let keys: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(text)?;
        for (key, option) in OPTIONS {
            if keys.contains_key(key) {
                bail!("'{key}' is given by an option of windlassd ({option}), not by this file");
            }
        }
        let config: Self = serde_json::from_slice(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.live_restore == Some(false) {
            bail!("'live-restore': containers always outlive the engine");
        }
        if let Some(other) = self.storage_driver.as_deref().filter(|d| *d != "overlay2") {
            bail!("'storage-driver': there is overlay2 alone, not {other}");
        }
        if self.experimental {
            bail!("'experimental': there are no experimental features");
        }
        if let Some(label) = self.labels.iter().find(|l| !l.contains('=')) {
            bail!("'labels': bad attribute format: {label}");
        }
        for (words, key) in [(&self.dns, "dns")] {
            if let Some(bad) = words
                .iter()
                .find(|w| w.parse::<std::net::IpAddr>().is_err())
            {
                bail!("'{key}': {bad} is not an IP address");
            }
        }
        self.shm_size()?;
        log_options::check(&self.log()).context("'log-driver' and 'log-opts'")?;
        Ok(())
    }

    /// Mirrors, and registries without TLS.
    pub fn registries(&self) -> RegistryConfig {
        RegistryConfig {
            registry_mirrors: self.registry_mirrors.clone(),
            insecure_registries: self.insecure_registries.clone(),
            ..RegistryConfig::default()
        }
    }

    /// The log of containers that ask for none.
    pub fn log(&self) -> LogConfig {
        LogConfig {
            kind: self
                .log_driver
                .clone()
                .unwrap_or_else(|| "json-file".to_owned()),
            config: self.log_opts.clone(),
        }
    }

    /// Limits of containers that do not set them.
    pub fn ulimits(&self) -> Vec<Ulimit> {
        let limits = self.default_ulimits.iter();
        limits
            .map(|(key, limit)| Ulimit {
                name: if limit.name.is_empty() {
                    key.clone()
                } else {
                    limit.name.clone()
                },
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect()
    }

    /// Bytes of `/dev/shm`, if the file says it.
    pub fn shm_size(&self) -> anyhow::Result<Option<i64>> {
        let text = match &self.default_shm_size {
            None => return Ok(None),
            Some(Size::Bytes(bytes)) => return Ok(Some(*bytes)),
            Some(Size::Text(text)) => text.trim().to_ascii_lowercase(),
        };
        let plain = text.trim_end_matches('b');
        let (number, unit) = match plain.char_indices().last() {
            Some((at, unit)) if "kmgt".contains(unit) => (&plain[..at], unit),
            _ => (plain, ' '),
        };
        let shift = match unit {
            'k' => 10,
            'm' => 20,
            'g' => 30,
            't' => 40,
            _ => 0,
        };
        let size = number.trim().parse::<i64>().ok();
        let size = size.and_then(|n| n.checked_mul(1 << shift));
        size.map(Some)
            .with_context(|| format!("'default-shm-size': '{text}' is no size like 64M"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_keys() {
        let config = Config::parse(
            br#"{"registry-mirrors": ["http://m"], "log-opts": {"max-size": "1m"},
                "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
                "default-shm-size": "32M", "labels": ["a=b"], "dns": ["10.0.0.1"],
                "live-restore": true, "shutdown-timeout": 5, "storage-driver": "overlay2"}"#,
        )
        .unwrap();
        assert_eq!(config.registries().registry_mirrors, ["http://m"]);
        assert_eq!(config.log().kind, "json-file");
        assert_eq!(config.ulimits()[0].hard, 2);
        assert_eq!(config.shm_size().unwrap(), Some(32 << 20));
        assert!(Config::parse(b"").is_ok());
    }

    #[test]
    fn a_broken_file_is_named_with_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.json");
        assert!(Config::read(&path).unwrap().labels.is_empty());
        for (text, words) in [
            (r#"{"registry-mirrors": "x"}"#, "line 1"),
            (r#"{"other": 1}"#, "unknown field `other`"),
            (
                r#"{"data-root": "/x"}"#,
                "'data-root' is given by an option",
            ),
            (r#"{"live-restore": false}"#, "containers always outlive"),
            (r#"{"labels": ["a"]}"#, "bad attribute format: a"),
            (r#"{"dns": ["x"]}"#, "'dns': x is not an IP address"),
            (r#"{"default-shm-size": "x"}"#, "'default-shm-size'"),
            (r#"{"log-driver": "x"}"#, "plugin \"x\" not found"),
            ("{", "EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let message = format!("{:#}", Config::read(&path).unwrap_err());
            assert!(
                message.contains("engine.json") && message.contains(words),
                "{message}"
            );
        }
    }
}
