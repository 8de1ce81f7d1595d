//! Which registries are spoken to, and how: the keys of Docker's `daemon.json` that concern them.

use std::net::IpAddr;

use serde::Deserialize;

/// Registry settings; unknown keys of the file are another part's business.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RegistryConfig {
    /// Base URLs that are asked before Docker Hub, in this order.
    pub registry_mirrors: Vec<String>,
    /// `host[:port]` of registries that may be spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Connections are kept from one pull to the next.
    #[serde(skip)]
    pub http: super::registry::Http,
}

impl RegistryConfig {
    /// Whether plain HTTP is allowed; the loopback range always is, as in Docker.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let loopback = host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        loopback
            || self
                .insecure_registries
                .iter()
                .any(|known| known == registry || known == host)
    }

    /// Base URLs to try for `registry`, in order.
    pub fn endpoints(&self, registry: &str) -> Vec<String> {
        let mut endpoints = Vec::new();
        if registry == "docker.io" {
            endpoints.extend(
                self.registry_mirrors
                    .iter()
                    .map(|url| url.trim_end_matches('/').to_owned()),
            );
            endpoints.push("https://registry-1.docker.io".to_owned());
        } else if self.is_insecure(registry) {
            endpoints.push(format!("http://{registry}"));
        } else {
            endpoints.push(format!("https://{registry}"));
        }
        endpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_plain_and_the_hub_has_mirrors() {
        let config = RegistryConfig {
            registry_mirrors: vec!["http://127.0.0.1:5000/".into()],
            insecure_registries: vec!["reg.lan:5000".into()],
            ..RegistryConfig::default()
        };
        assert_eq!(
            config.endpoints("docker.io"),
            ["http://127.0.0.1:5000", "https://registry-1.docker.io"]
        );
        assert_eq!(
            config.endpoints("127.0.0.1:5000"),
            ["http://127.0.0.1:5000"]
        );
        assert_eq!(
            config.endpoints("localhost:5000"),
            ["http://localhost:5000"]
        );
        assert_eq!(config.endpoints("reg.lan:5000"), ["http://reg.lan:5000"]);
        assert_eq!(config.endpoints("quay.io"), ["https://quay.io"]);
    }
}
