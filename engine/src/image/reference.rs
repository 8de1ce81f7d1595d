//! Image references, by the grammar of distribution/reference.

use std::fmt;

use super::{Error, Result};

/// A parsed image reference with Docker's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `host[:port]`.
    pub registry: String,
    /// `library/httpd`.
    pub repository: String,
    /// Tag; `None` only beside a digest.
    pub tag: Option<String>,
    /// `sha256:<64 hex digits>`.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses `[registry/]repository[:tag][@digest]`; without tag and digest the tag is `latest`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidReference("invalid reference format".to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid());
        }
        let (name, tag) = split_tag(rest);
        if tag.is_some_and(|tag| !is_tag(tag)) {
            let reason = if digest.is_none() && Self::parse(name).is_ok() {
                "invalid tag format"
            } else {
                "invalid reference format"
            };
            return Err(Error::InvalidReference(reason.to_owned()));
        }
        let (registry, path) = split_registry(name);
        let path = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::InvalidReference(format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        if digest.is_none() && tag.is_none() && is_hexadecimal_id(text) {
            return Err(Error::InvalidReference(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        if !path.split('/').all(is_path_component) || !is_registry(registry) || path.len() > 255 {
            return Err(invalid());
        }
        let tag = tag
            .map(str::to_owned)
            .or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self {
            registry: registry.to_owned(),
            repository: path,
            tag,
            digest,
        })
    }

    /// What a manifest is asked by: the digest where there is one, else the tag.
    pub fn target(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// Registry and repository: `docker.io/library/httpd`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The repository as people write it: `httpd`, `user/app`, `quay.io/org/app`.
    pub fn familiar_name(&self) -> String {
        if self.registry != "docker.io" {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.split_once('/') {
            Some(("library", name)) if !name.contains('/') => name.to_owned(),
            // Without the registry its first part would be read as one.
            Some((first, _)) if names_a_registry(first) => format!("docker.io/{}", self.repository),
            _ => self.repository.clone(),
        }
    }

    /// `name:tag`, or `name@digest` where there is no tag.
    pub fn familiar(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.familiar_name()),
            (None, Some(digest)) => format!("{}@{digest}", self.familiar_name()),
            (None, None) => self.familiar_name(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest
            .iter()
            .try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// Whether `text` is `sha256:` and 64 lower-case hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_hexadecimal_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

/// What tells a registry from the first part of a name at Docker Hub.
fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => ("docker.io", path),
        Some((first, path)) if names_a_registry(first) => (first, path),
        _ => ("docker.io", name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_ok = if host.starts_with('[') {
        host.trim_matches(['[', ']'])
            .parse::<std::net::Ipv6Addr>()
            .is_ok()
    } else {
        !host.is_empty()
            && host.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
    };
    host_ok && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty()
        && text.len() <= 128
        && word(text.as_bytes()[0])
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(alphanumeric).all(|gap| {
            gap.is_empty()
                || gap == b"."
                || gap == b"_"
                || gap == b"__"
                || gap.iter().all(|b| *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("httpd", "docker.io library/httpd latest -"),
            ("httpd:2.4", "docker.io library/httpd 2.4 -"),
            ("user/app", "docker.io user/app latest -"),
            ("index.docker.io/httpd", "docker.io library/httpd latest -"),
            ("localhost/app", "localhost app latest -"),
            (
                "127.0.0.1:5000/library/httpd:x",
                "127.0.0.1:5000 library/httpd x -",
            ),
            ("[::1]:5000/a", "[::1]:5000 a latest -"),
            ("quay.io/org/a__b--c.d:v1", "quay.io org/a__b--c.d v1 -"),
            (
                &format!("httpd@{digest}"),
                &format!("docker.io library/httpd - {digest}"),
            ),
            (
                &format!("httpd:1@{digest}"),
                &format!("docker.io library/httpd 1 {digest}"),
            ),
        ] {
            let r = Reference::parse(text).unwrap();
            let dash = |part: Option<String>| part.unwrap_or_else(|| "-".into());
            assert_eq!(
                format!(
                    "{} {} {} {}",
                    r.registry,
                    r.repository,
                    dash(r.tag),
                    dash(r.digest)
                ),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            ":",
            "UPPER",
            "a//b",
            "a/",
            "/a",
            "a:",
            "a:b c",
            "a@sha256:12",
            "a..b",
            "a___b",
            "-a",
            "a b",
            "x.y:z/a",
        ] {
            assert!(
                matches!(Reference::parse(text), Err(Error::InvalidReference(_))),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_familiar_form_parses_to_the_same() {
        for text in [
            "httpd:2.4",
            "user/app:latest",
            "quay.io/org/app:v1",
            "localhost:5000/a:b",
            "docker.io/r.io/app:v1",
            "docker.io/localhost/app:v1",
            "library/a/b:v1",
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.familiar(), text);
            assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}
