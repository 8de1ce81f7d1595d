//! Why a server was not reached, in the words that Docker's clients look for: `dial tcp 127.0.0.1:1: connect: connection refused`.

use std::io;

/// The innermost cause: reqwest's own message repeats the address and hides it.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    let mut dialled = None;
    while let Some(inner) = cause.source() {
        dialled = dialled.or_else(|| address_in(&format!("{inner:?}")));
        cause = inner;
    }
    let said = cause.to_string();
    if !error.is_connect() {
        return said;
    }
    let url = error.url();
    if let Some(why) = said.strip_prefix("failed to lookup address information: ") {
        let host = url.and_then(|url| url.host_str()).unwrap_or_default();
        let why = match why {
            "Name or service not known" => "no such host",
            why => why,
        };
        return format!("dial tcp: lookup {host}: {why}");
    }
    let named = || {
        let url = url?;
        Some(format!(
            "{}:{}",
            url.host_str()?,
            url.port_or_known_default()?
        ))
    };
    let address = dialled.or_else(named).unwrap_or_default();
    let cause = cause.downcast_ref::<io::Error>();
    match cause.map(|cause| (cause.kind(), cause.raw_os_error())) {
        Some((_, Some(_))) => format!("dial tcp {address}: connect: {}", in_c(&said)),
        Some((io::ErrorKind::TimedOut, None)) => format!("dial tcp {address}: i/o timeout"),
        _ if error.is_timeout() => format!("dial tcp {address}: i/o timeout"),
        _ => said,
    }
}

/// The resolved address is shown by the connector in its debug form alone: `ConnectError("…", 127.0.0.1:1, …)`.
fn address_in(shown: &str) -> Option<String> {
    let inner = shown.strip_prefix("ConnectError(")?;
    let address = inner.split(", ").nth(1)?;
    let address: std::net::SocketAddr = address.parse().ok()?;
    Some(address.to_string())
}

/// As the C library's table has it, without the number.
fn in_c(said: &str) -> String {
    let text = said.split(" (os error").next().unwrap_or_default();
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let client = crate::image::http_client().unwrap();
        for (host, shown) in [
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "127.0.0.1"),
            ("[::1]", "[::1]"),
        ] {
            let error = client.get(format!("http://{host}:1/v2/")).send().await;
            let said = describe(&error.unwrap_err());
            let rest = said.strip_prefix(&format!("dial tcp {shown}:1: connect: "));
            // A host without IPv6 has other words for its address.
            assert!(
                rest == Some("connection refused") || (host == "[::1]" && rest.is_some()),
                "{said}"
            );
        }
        let error = client.get("http://nosuch.invalid/v2/").send().await;
        let said = describe(&error.unwrap_err());
        assert!(
            said.starts_with("dial tcp: lookup nosuch.invalid: "),
            "{said}"
        );
    }
}
