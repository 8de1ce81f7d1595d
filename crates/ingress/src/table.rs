//! The route table and the status of a proxy, as they go over the admin socket; and what makes a table valid.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything a proxy routes by. A proxy has exactly one table in force and only takes tables with a higher generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// Grows with each table; a table with a lower generation than the one in force is refused as stale.
    pub generation: u64,
    /// The routes; their order has no meaning, the most specific match wins.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// Requests for one host and path prefix, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The host name without port, matched without regard to case; `*.example.com` matches every name below
    /// `example.com`; `None` matches any host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A prefix of whole path segments, beginning with `/`: `/api` matches `/api` and `/api/x`, not `/apix`.
    #[serde(default = "root_path")]
    pub path: String,
    /// Where requests go. May be empty: then the answer is 503.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// How the upstreams are probed; `None` leaves only the passive check (connections that fail).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// How an upstream is chosen.
    #[serde(default)]
    pub balance: Balance,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Names the replica in the status and in logs, for instance the container's id.
    #[serde(default)]
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// An active check: `GET path` must answer with 2xx or 3xx within the timeout.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// What is requested.
    pub path: String,
    /// The `Host` of the request; the upstream's address when not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Time from one probe to the next.
    #[serde(rename = "interval_ms", with = "millis")]
    pub interval: Duration,
    /// After this a probe has failed.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// Probes in a row that must succeed before an unhealthy upstream gets requests.
    pub healthy_after: u32,
    /// Probes in a row that must fail before a healthy upstream gets no more requests.
    pub unhealthy_after: u32,
}

/// How a route chooses among its healthy upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest requests in progress; among equals, in turn.
    #[default]
    LeastRequests,
    /// Each in turn.
    RoundRobin,
}

/// What a proxy says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The table in force.
    pub generation: u64,
    /// The upstreams of the table in force, and those of former tables that still have requests in progress.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One upstream as the proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// The replica's name from the table.
    #[serde(default)]
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it gets new requests (when it is in the table in force).
    pub healthy: bool,
    /// Requests in progress, upgraded connections among them.
    pub active_requests: u64,
    /// Whether it is in no route any more: it gets no new request and only finishes those in progress.
    #[serde(default)]
    pub draining: bool,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The generation 0 means "no table yet".
    #[error("generation 0 stands for \"no table yet\", begin with 1")]
    Generation,
    /// Not a host name.
    #[error(
        "route {route}: `{host}` is not a host name (no scheme, port or path; `*.` only at its beginning)"
    )]
    Host {
        /// Its place in the table, from 0.
        route: usize,
        /// As given.
        host: String,
    },
    /// Not a path prefix.
    #[error("route {route}: path `{path}` must begin with `/` and hold no `?`, `#` or blank")]
    Path {
        /// Its place in the table, from 0.
        route: usize,
        /// As given.
        path: String,
    },
    /// Two routes would match the same requests.
    #[error("route {route}: host and path are those of an earlier route")]
    Duplicate {
        /// Its place in the table, from 0.
        route: usize,
    },
    /// The same address twice in one route.
    #[error("route {route}: upstream {address} is listed twice")]
    DuplicateUpstream {
        /// Its place in the table, from 0.
        route: usize,
        /// As given.
        address: SocketAddr,
    },
    /// An address that nothing can listen on.
    #[error("route {route}: upstream {address} has no usable address or port")]
    Address {
        /// Its place in the table, from 0.
        route: usize,
        /// As given.
        address: SocketAddr,
    },
    /// A check that cannot be run.
    #[error("route {route}: health check: {problem}")]
    Health {
        /// Its place in the table, from 0.
        route: usize,
        /// In words.
        problem: &'static str,
    },
}

impl RouteTable {
    /// Checks everything that serde cannot.
    pub fn validate(&self) -> Result<(), TableError> {
        if self.generation == 0 {
            return Err(TableError::Generation);
        }
        let mut seen = HashSet::new();
        for (route, r) in self.routes.iter().enumerate() {
            r.validate(route)?;
            if !seen.insert((r.host_key(), r.path_key().to_owned())) {
                return Err(TableError::Duplicate { route });
            }
        }
        Ok(())
    }

    /// Whether some route names this address.
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.routes
            .iter()
            .any(|r| r.upstreams.iter().any(|u| u.address == address))
    }
}

impl Route {
    fn validate(&self, route: usize) -> Result<(), TableError> {
        if let Some(host) = self.host.as_deref().filter(|h| !is_host(h)) {
            return Err(TableError::Host {
                route,
                host: host.to_owned(),
            });
        }
        if !is_path(&self.path) || self.path.contains('?') {
            return Err(TableError::Path {
                route,
                path: self.path.clone(),
            });
        }
        let mut addresses = HashSet::new();
        for u in &self.upstreams {
            if u.address.port() == 0 || u.address.ip().is_unspecified() {
                return Err(TableError::Address {
                    route,
                    address: u.address,
                });
            }
            if !addresses.insert(u.address) {
                return Err(TableError::DuplicateUpstream {
                    route,
                    address: u.address,
                });
            }
        }
        self.health.as_ref().map_or(Ok(()), |h| h.validate(route))
    }

    /// The host as it is compared.
    pub(crate) fn host_key(&self) -> Option<String> {
        self.host
            .as_ref()
            .map(|h| h.trim_end_matches('.').to_ascii_lowercase())
    }

    /// The path as it is compared: without the slash at its end.
    pub(crate) fn path_key(&self) -> &str {
        self.path.trim_end_matches('/')
    }
}

impl HealthCheck {
    fn validate(&self, route: usize) -> Result<(), TableError> {
        let problem = if !is_path(&self.path) {
            "its path must begin with `/` and hold no `#` or blank"
        } else if self
            .host
            .as_ref()
            .is_some_and(|h| h.parse::<http::uri::Authority>().is_err())
        {
            "its host is not a host name"
        } else if self.interval < Duration::from_millis(10)
            || self.timeout < Duration::from_millis(1)
        {
            "interval and timeout must be at least 10 ms and 1 ms"
        } else if self.healthy_after == 0 || self.unhealthy_after == 0 {
            "healthy_after and unhealthy_after must be at least 1"
        } else {
            return Ok(());
        };
        Err(TableError::Health { route, problem })
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: root_path(),
            host: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            healthy_after: 1,
            unhealthy_after: 3,
        }
    }
}

fn root_path() -> String {
    "/".to_owned()
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|b| b > b' ' && b != b'#' && b < 0x7f)
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_ipv6 = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    if let Some(address) = is_ipv6 {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str, upstreams: &[&str]) -> Route {
        Route {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            upstreams: upstreams
                .iter()
                .map(|a| Upstream {
                    id: String::new(),
                    address: a.parse().expect("address"),
                })
                .collect(),
            health: None,
            balance: Balance::default(),
        }
    }

    fn check(routes: Vec<Route>) -> Result<(), TableError> {
        RouteTable {
            generation: 1,
            routes,
        }
        .validate()
    }

    #[test]
    fn good_tables_are_taken() {
        let routes = vec![
            route(None, "/", &["10.0.0.1:80"]),
            route(Some("a.example.com"), "/", &[]),
            route(
                Some("*.example.com"),
                "/api/",
                &["10.0.0.1:80", "10.0.0.1:81"],
            ),
            route(Some("[::1]"), "/", &["[fd00::1]:80"]),
            route(Some("my_host"), "/", &[]),
        ];
        assert_eq!(check(routes), Ok(()));
    }

    #[test]
    fn bad_tables_are_refused() {
        for host in ["http://x", "x:80", "a..b", "", "x/y", "a.*.b", "é", "[::g]"] {
            let r = check(vec![route(Some(host), "/", &[])]);
            assert!(
                matches!(r, Err(TableError::Host { route: 0, .. })),
                "{host}: {r:?}"
            );
        }
        for path in ["", "api", "/a b", "/a?b", "/a#b", "/\r\n"] {
            let r = check(vec![route(None, path, &[])]);
            assert!(matches!(r, Err(TableError::Path { .. })), "{path}: {r:?}");
        }
        let twice = vec![
            route(Some("A.b"), "/x", &[]),
            route(Some("a.B."), "/x/", &[]),
        ];
        assert_eq!(check(twice), Err(TableError::Duplicate { route: 1 }));
        let same = check(vec![route(None, "/", &["10.0.0.1:80", "10.0.0.1:80"])]);
        assert!(matches!(same, Err(TableError::DuplicateUpstream { .. })));
        for address in ["0.0.0.0:80", "10.0.0.1:0", "[::]:80"] {
            assert!(matches!(
                check(vec![route(None, "/", &[address])]),
                Err(TableError::Address { .. })
            ));
        }
        let mut r = route(None, "/", &[]);
        r.health = Some(HealthCheck {
            interval: Duration::ZERO,
            ..HealthCheck::default()
        });
        assert!(matches!(check(vec![r]), Err(TableError::Health { .. })));
        assert_eq!(
            RouteTable::default().validate(),
            Err(TableError::Generation)
        );
    }

    #[test]
    fn the_wire_form_is_stable() {
        let json = r#"{"generation":3,"routes":[{"host":"a.b","path":"/","upstreams":[{"id":"r1","address":"10.0.0.1:80"}],"health":{"path":"/up","interval_ms":500,"timeout_ms":200,"healthy_after":1,"unhealthy_after":3},"balance":"least-requests"}]}"#;
        let table: RouteTable = serde_json::from_str(json).expect("table");
        assert_eq!(serde_json::to_string(&table).expect("json"), json);
        let short: RouteTable = serde_json::from_str(
            r#"{"generation":1,"routes":[{"upstreams":[{"address":"[::1]:80"}],"health":{}}]}"#,
        )
        .expect("table");
        assert_eq!(short.routes[0].path, "/");
        assert_eq!(short.routes[0].health, Some(HealthCheck::default()));
        assert!(serde_json::from_str::<RouteTable>(r#"{"generation":1,"rout":[]}"#).is_err());
    }
}
