//! A request taken apart: version prefix, path segments, query, JSON body.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use windlass_engine_api::Filters;

use super::unread::Unread;
use crate::container::error::{Error, Result};

/// The API version served, and the oldest accepted.
pub const API_VERSION: (u32, u32) = (1, 50);
/// The oldest version that clients may ask for.
pub const MIN_API_VERSION: (u32, u32) = (1, 24);

/// The largest JSON body that is read.
const MAX_JSON: usize = 16 * 1024 * 1024;

/// A request.
#[derive(Debug)]
pub struct Req {
    /// Method.
    pub method: Method,
    /// The path without version, decoded, cut at slashes.
    pub segments: Vec<String>,
    /// The version asked for.
    pub version: (u32, u32),
    /// Headers.
    pub headers: HeaderMap,
    query: Vec<(String, String)>,
    body: Unread,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Req {
    /// Takes it apart; a version out of range is an error.
    pub fn new(mut parts: Parts, body: Incoming) -> Result<Self> {
        let body = Unread::new(body);
        let path = parts.uri.path();
        let mut segments: Vec<String> = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| decode(s, false))
            .collect();
        let version = match segments.first().and_then(|s| parse_version(s)) {
            Some(version) => {
                segments.remove(0);
                check_version(version)?;
                version
            }
            None => API_VERSION,
        };
        let query = parts.uri.query().map(parse_query).unwrap_or_default();
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        Ok(Self {
            method: parts.method,
            segments,
            version,
            headers: parts.headers,
            query,
            body,
            upgrade,
        })
    }

    /// A query parameter; empty is absent.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Whether the query parameter is there, even if empty.
    pub fn has_query(&self, key: &str) -> bool {
        self.query.iter().any(|(k, _)| k == key)
    }

    /// All values of a query parameter.
    pub fn query_all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.query
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// All query parameters as they came.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.query
    }

    /// Docker's idea of true.
    pub fn flag(&self, key: &str) -> bool {
        self.query(key).is_some_and(|v| {
            !matches!(
                v.trim().to_ascii_lowercase().as_str(),
                "0" | "no" | "false" | "none"
            )
        })
    }

    /// A number, or an error that names the parameter.
    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.query(key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// The `filters` parameter.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.query("filters").unwrap_or_default())
            .map_err(|e| Error::invalid(format!("invalid filter: {e}")))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The body, to be read as a stream.
    pub fn take_body(&mut self) -> Option<Incoming> {
        self.body.take()
    }

    /// The connection, when the client asked for it.
    pub fn take_upgrade(&mut self) -> Option<hyper::upgrade::OnUpgrade> {
        self.header("upgrade")?;
        self.upgrade.take()
    }

    /// The whole body.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        let Some(body) = self.body.take() else {
            return Ok(Bytes::new());
        };
        let limited = http_body_util::Limited::new(body, MAX_JSON);
        Ok(limited
            .collect()
            .await
            .map_err(|e| Error::invalid(format!("reading the request body: {e}")))?
            .to_bytes())
    }

    /// The body as JSON; there must be one.
    pub async fn required_json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let bytes = self.json_bytes().await?;
        if bytes.trim_ascii().is_empty() {
            return Err(Error::invalid(
                "invalid JSON: got EOF while reading request body",
            ));
        }
        self.read_json(&bytes)
    }

    /// The body of a request that says that it is JSON.
    async fn json_bytes(&mut self) -> Result<Bytes> {
        let kind = self.header("content-type").unwrap_or_default().to_owned();
        let bytes = self.bytes().await?;
        let named = kind.split(';').next().unwrap_or_default().trim();
        if kind.is_empty() && bytes.is_empty() || named.eq_ignore_ascii_case("application/json") {
            return Ok(bytes);
        }
        Err(Error::invalid(if kind.is_empty() {
            "malformed Content-Type header (): mime: no media type".to_owned()
        } else {
            format!("unsupported Content-Type header ({kind}): must be 'application/json'")
        }))
    }

    fn read_json<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        // An object's members in their order would be taken for it.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Error::invalid(
                "invalid JSON: json: cannot unmarshal array into an object",
            ));
        }
        windlass_engine_api::from_slice(bytes)
            .map_err(|e| Error::invalid(format!("invalid JSON: {}", in_docker_words(bytes, &e))))
    }

    /// The body as JSON; an empty one is the default value.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        let bytes = self.json_bytes().await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        self.read_json(&bytes)
    }
}

/// Where a text is no JSON, as Docker's clients and their tests know it.
fn in_docker_words(bytes: &[u8], error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let said = error.to_string();
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    let line = lines.get(error.line().wrapping_sub(1));
    let at = line.and_then(|line| line.get(error.column().wrapping_sub(1)..));
    let found = at.and_then(|rest| std::str::from_utf8(rest).ok()?.chars().next());
    let place = match () {
        () if said.starts_with("trailing characters") => {
            return "unexpected content after JSON".to_owned();
        }
        () if said.starts_with("key must be a string") => {
            "looking for beginning of object key string"
        }
        () if said.starts_with("expected `,` or `}`") => "after object key:value pair",
        () if said.starts_with("expected `,` or `]`") => "after array element",
        () if said.starts_with("expected `:`") => "after object key",
        () => "looking for beginning of value",
    };
    match (error.classify(), found) {
        (Category::Eof, _) => "unexpected EOF".to_owned(),
        (Category::Syntax, Some(found)) => format!("invalid character '{found}' {place}"),
        _ => said,
    }
}

fn parse_version(segment: &str) -> Option<(u32, u32)> {
    let (major, minor) = segment.strip_prefix('v')?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn check_version(version: (u32, u32)) -> Result<()> {
    let text = |v: (u32, u32)| format!("{}.{}", v.0, v.1);
    if version > API_VERSION {
        return Err(Error::invalid(format!(
            "client version {} is too new. Maximum supported API version is {}",
            text(version),
            text(API_VERSION)
        )));
    }
    if version < MIN_API_VERSION {
        return Err(Error::invalid(format!(
            "client version {} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            text(version),
            text(MIN_API_VERSION)
        )));
    }
    Ok(())
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        })
        .collect()
}

fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (_, Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        assert_eq!(
            parse_query("a=b%20c&d=x+y&e&f=%zz"),
            [("a", "b c"), ("d", "x y"), ("e", ""), ("f", "%zz")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert_eq!(parse_version("v1.41"), Some((1, 41)));
        assert_eq!(parse_version("version"), None);
        assert!(
            check_version((1, 99))
                .unwrap_err()
                .message
                .starts_with("client version 1.99 is too new")
        );
        assert!(check_version((1, 12)).is_err() && check_version((1, 24)).is_ok());
    }
}
