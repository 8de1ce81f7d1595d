//! What is changed in the headers on the way: those of one hop are taken out, those that tell the way are put in.

use std::net::SocketAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Uri, Version};

use super::Forwarded;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is wrong with a request, for the client.
pub type Complaint = &'static str;

/// The host that a request is for, as it stands in its target or its `Host`.
pub fn authority(parts: &Parts) -> Result<String, Complaint> {
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority
            .as_str()
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .to_owned());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .to_str()
            .map(str::to_owned)
            .map_err(|_| "the Host header is not text"),
        (Some(_), Some(_)) => Err("more than one Host header"),
        (None, _) if parts.version == Version::HTTP_11 => Err("no Host header"),
        (None, _) => Ok(String::new()),
    }
}

/// Refuses what two parsers could read differently.
pub fn refuse_ambiguous(parts: &Parts) -> Result<(), Complaint> {
    if parts.headers.contains_key(TRANSFER_ENCODING) && parts.headers.contains_key(CONTENT_LENGTH) {
        return Err("both Content-Length and Transfer-Encoding");
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err("more than one Content-Length");
    }
    Ok(())
}

/// The protocol that a message wants to change to.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| {
            v.split(',')
                .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        });
    if asked {
        headers.get(UPGRADE).cloned()
    } else {
        None
    }
}

/// Makes a client's head one for the upstream.
pub fn to_upstream(parts: &mut Parts, client: SocketAddr, authority: &str, forwarded: Forwarded) {
    let upgrade = upgrade(&parts.headers);
    let trailers = parts
        .headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    drop_hop_by_hop(&mut parts.headers);
    parts.headers.remove(EXPECT);
    if trailers {
        parts
            .headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol);
    }
    tell_the_way(&mut parts.headers, client, authority, forwarded);
    if let Ok(host) = HeaderValue::from_str(authority) {
        parts.headers.insert(HOST, host);
    }
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
}

/// Makes an upstream's head one for the client.
pub fn to_client(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
}

/// Whether a request may be sent twice.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        // A client must not be able to take these from the upstream by naming them.
        .filter(|name| {
            ![
                HOST,
                CONTENT_LENGTH,
                FORWARDED_FOR,
                FORWARDED_PROTO,
                FORWARDED_HOST,
            ]
            .contains(name)
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        &CONNECTION,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
        &TE,
        &TRAILER,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn tell_the_way(
    headers: &mut HeaderMap,
    client: SocketAddr,
    authority: &str,
    forwarded: Forwarded,
) {
    let address = client.ip().to_canonical().to_string();
    let before = match forwarded {
        Forwarded::Replace => None,
        Forwarded::Trust => headers
            .get_all(&FORWARDED_FOR)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .map(str::to_owned)
            .reduce(|a, b| format!("{a}, {b}")),
    };
    let way = before.map_or_else(|| address.clone(), |before| format!("{before}, {address}"));
    set(headers, FORWARDED_FOR, &way);
    if forwarded == Forwarded::Replace || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if forwarded == Forwarded::Replace || !headers.contains_key(&FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, authority);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) if !value.is_empty() => {
            headers.insert(name, value);
        }
        _ => {
            headers.remove(name);
        }
    }
}

fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        Some(path) if uri.authority().is_some() => Uri::from(path.clone()),
        _ => uri.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri("http://u@a.b:81/x?y=z");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("request").into_parts().0
    }

    fn client() -> SocketAddr {
        "[::ffff:192.0.2.7]:4000".parse().expect("address")
    }

    #[test]
    fn the_way_is_told_and_hops_are_forgotten() {
        let mut p = parts(&[
            ("host", "ignored"),
            ("connection", "close, X-Secret, host, x-forwarded-for"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-proto", "https"),
        ]);
        let host = authority(&p).expect("authority");
        assert_eq!(host, "a.b:81");
        to_upstream(&mut p, client(), &host, Forwarded::Replace);
        assert_eq!(p.uri, "/x?y=z");
        let text = |name: &str| {
            p.headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("-")
                .to_owned()
        };
        assert_eq!(text("host"), "a.b:81");
        assert_eq!(text("x-forwarded-for"), "192.0.2.7");
        assert_eq!(text("x-forwarded-proto"), "http");
        assert_eq!(text("x-forwarded-host"), "a.b:81");
        assert_eq!(text("te"), "trailers");
        for gone in ["connection", "x-secret", "keep-alive"] {
            assert_eq!(text(gone), "-", "{gone}");
        }
    }

    #[test]
    fn a_trusted_way_is_added_to() {
        let mut p = parts(&[
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-for", "10.8.8.8"),
            ("x-forwarded-proto", "https"),
        ]);
        to_upstream(&mut p, client(), "a.b", Forwarded::Trust);
        assert_eq!(
            p.headers["x-forwarded-for"],
            "10.9.9.9, 10.8.8.8, 192.0.2.7"
        );
        assert_eq!(p.headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let mut p = parts(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        to_upstream(&mut p, client(), "a.b", Forwarded::Replace);
        assert_eq!(p.headers["connection"], "upgrade");
        assert_eq!(p.headers["upgrade"], "websocket");
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        assert!(
            refuse_ambiguous(&parts(&[
                ("content-length", "3"),
                ("transfer-encoding", "chunked")
            ]))
            .is_err()
        );
        assert!(
            refuse_ambiguous(&parts(&[("content-length", "3"), ("content-length", "3")])).is_err()
        );
        assert!(refuse_ambiguous(&parts(&[("content-length", "3")])).is_ok());
    }
}
