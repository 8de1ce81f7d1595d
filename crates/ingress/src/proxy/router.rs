//! Finds the route of a host and path: the most specific host first, then the longest path.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::table::Route;

/// The routes of one table, by host.
#[derive(Debug, Default)]
pub struct Router {
    /// Host, `*.host`, or nothing for any host → path prefixes, longest first, with the route's place in the table.
    hosts: HashMap<String, Vec<(String, usize)>>,
}

impl Router {
    pub fn new(routes: &[Route]) -> Self {
        let mut hosts: HashMap<String, Vec<(String, usize)>> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let host = route.host_key().unwrap_or_default();
            hosts
                .entry(host)
                .or_default()
                .push((route.path_key().to_owned(), index));
        }
        for paths in hosts.values_mut() {
            paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        Self { hosts }
    }

    /// The route's place in the table. `authority` is a `Host` header: a port in it is ignored.
    pub fn find(&self, authority: &str, path: &str) -> Option<usize> {
        let host = normalise(authority);
        if let Some(found) = self.find_path(&host, path) {
            return Some(found);
        }
        let mut rest: &str = &host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.find_path(&format!("*.{parent}"), path) {
                return Some(found);
            }
            rest = parent;
        }
        self.find_path("", path)
    }

    fn find_path(&self, host: &str, path: &str) -> Option<usize> {
        let paths = self.hosts.get(host)?;
        paths
            .iter()
            .find(|(prefix, _)| is_prefix(prefix, path))
            .map(|(_, index)| *index)
    }
}

/// Whether `prefix` (without a slash at its end) covers whole segments of `path`.
fn is_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
}

/// Without port and final dot, in small letters.
fn normalise(authority: &str) -> Cow<'_, str> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Balance;

    fn router(routes: &[(&str, &str)]) -> Router {
        let routes: Vec<Route> = routes
            .iter()
            .map(|(host, path)| Route {
                host: (!host.is_empty()).then(|| (*host).to_owned()),
                path: (*path).to_owned(),
                upstreams: Vec::new(),
                health: None,
                balance: Balance::default(),
            })
            .collect();
        Router::new(&routes)
    }

    #[test]
    fn the_most_specific_route_wins() {
        let r = router(&[
            ("", "/"),
            ("a.example.com", "/"),
            ("A.Example.com", "/api"),
            ("a.example.com", "/api/v2/"),
            ("*.example.com", "/"),
            ("*.b.example.com", "/only"),
            ("[::1]", "/"),
        ]);
        for (host, path, expected) in [
            ("a.example.com", "/", Some(1)),
            ("a.example.com:8080", "/x", Some(1)),
            ("A.EXAMPLE.COM.", "/apix", Some(1)),
            ("a.example.com", "/api", Some(2)),
            ("a.example.com", "/api/", Some(2)),
            ("a.example.com", "/api/v2", Some(3)),
            ("a.example.com", "/api/v2/y", Some(3)),
            ("c.example.com", "/", Some(4)),
            ("d.c.example.com", "/", Some(4)),
            ("x.b.example.com", "/only/z", Some(5)),
            ("x.b.example.com", "/else", Some(4)),
            ("example.com", "/", Some(0)),
            ("", "/", Some(0)),
            ("[::1]:80", "/", Some(6)),
            ("[::1]", "/", Some(6)),
        ] {
            assert_eq!(r.find(host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn an_unknown_host_has_no_route() {
        let r = router(&[("a.b", "/x")]);
        assert_eq!(r.find("a.b", "/"), None);
        assert_eq!(r.find("c.b", "/x"), None);
        assert_eq!(r.find("a.b", "*"), None);
    }
}
