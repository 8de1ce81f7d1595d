//! Requests over a fresh stream: hyper's HTTP/1 client, error bodies, URL building.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use crate::error::{ApiError, Error, Result};

/// What is sent.
#[derive(Default)]
pub enum RequestBody {
    /// Nothing.
    #[default]
    Empty,
    /// JSON.
    Json(Bytes),
    /// An archive in memory.
    Tar(Bytes),
    /// An archive as it is made.
    TarStream(Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send + Sync>>),
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Json(b) => write!(f, "Json({} bytes)", b.len()),
            Self::Tar(b) => write!(f, "Tar({} bytes)", b.len()),
            Self::TarStream(_) => f.write_str("TarStream"),
        }
    }
}

impl RequestBody {
    pub(crate) fn json(value: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|source| Error::Decode {
            request: "the request itself".to_owned(),
            source,
        })?;
        Ok(Self::Json(bytes.into()))
    }

    /// An archive read from `reader`.
    pub fn from_reader(reader: impl tokio::io::AsyncRead + Send + Sync + 'static) -> Self {
        Self::TarStream(Box::pin(tokio_util::io::ReaderStream::with_capacity(
            reader,
            64 * 1024,
        )))
    }

    fn into_parts(self) -> (Option<&'static str>, BoxBody<Bytes, std::io::Error>) {
        match self {
            Self::Empty => (None, Empty::new().map_err(|never| match never {}).boxed()),
            Self::Json(bytes) => (
                Some("application/json"),
                Full::new(bytes).map_err(|never| match never {}).boxed(),
            ),
            Self::Tar(bytes) => (
                Some("application/x-tar"),
                Full::new(bytes).map_err(|never| match never {}).boxed(),
            ),
            Self::TarStream(stream) => (
                Some("application/x-tar"),
                StreamBody::new(stream.map_ok(Frame::data)).boxed(),
            ),
        }
    }
}

impl Client {
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        body: RequestBody,
    ) -> Result<Response<Incoming>> {
        self.request_with(method, path, body, HeaderMap::new())
            .await
    }

    /// Sends and turns every status from 400 on into [`ApiError`].
    pub(crate) async fn request_with(
        &self,
        method: &str,
        path: &str,
        body: RequestBody,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>> {
        let stream = self
            .dial
            .dial()
            .await
            .map_err(|e| Error::transport("connect", e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::transport("handshake", e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "engine connection ended");
            }
        });
        let (content_type, body) = body.into_parts();
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET))
            .uri(path)
            .body(body)
            .map_err(|e| Error::transport("request", e))?;
        let wire = request.headers_mut();
        *wire = headers;
        wire.insert(http::header::HOST, HeaderValue::from_static("windlass"));
        if let Some(content_type) = content_type {
            wire.insert(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static(content_type),
            );
        }
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| Error::transport("send", e))?;
        tracing::trace!(method, path, status = response.status().as_u16(), "engine");
        if response.status().as_u16() < 400 {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    pub(crate) async fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json("GET", path, RequestBody::Empty).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: RequestBody,
    ) -> Result<T> {
        let response = self.request(method, path, body).await?;
        let bytes = collect(response).await?;
        crate::from_slice(&bytes).map_err(|source| Error::Decode {
            request: format!("{method} {path}"),
            source,
        })
    }

    /// A call whose answer has no content.
    pub(crate) async fn command(
        &self,
        method: &str,
        path: &str,
        body: RequestBody,
    ) -> Result<StatusCode> {
        let response = self.request(method, path, body).await?;
        let status = response.status();
        collect(response).await?;
        Ok(status)
    }
}

async fn refusal(response: Response<Incoming>) -> Error {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let status = response.status();
    let bytes = match collect(response).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let message = match crate::from_slice::<Message>(&bytes) {
        Ok(body) => body.message,
        Err(_) if bytes.is_empty() => status
            .canonical_reason()
            .unwrap_or("unknown error")
            .to_lowercase(),
        Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    Error::Api(ApiError {
        status: status.as_u16(),
        message,
    })
}

pub(crate) async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    Ok(response
        .into_body()
        .collect()
        .await
        .map_err(|e| Error::transport("read the answer", e))?
        .to_bytes())
}

pub(crate) fn header(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

/// A path with escaped segments and a query.
#[derive(Debug)]
pub(crate) struct Url(String, char);

impl Url {
    /// `parts` are joined by slashes; slashes inside a part (image names) stay.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let mut url = String::new();
        for part in parts {
            url.push('/');
            escape(part, &mut url);
        }
        Self(url, '?')
    }

    pub(crate) fn query(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.0.push(self.1);
        self.1 = '&';
        self.0.push_str(key);
        self.0.push('=');
        escape_query(value.as_ref(), &mut self.0);
        self
    }

    pub(crate) fn flag(self, key: &str, on: bool) -> Self {
        if on { self.query(key, "1") } else { self }
    }

    pub(crate) fn optional(self, key: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

fn escape(text: &str, out: &mut String) {
    escape_but(text, b"-._~/:@", out);
}

fn escape_query(text: &str, out: &mut String) {
    escape_but(text, b"-._~", out);
}

fn escape_but(text: &str, keep: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || keep.contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn urls() {
        let url = Url::new(&["images", "host:5000/a b:1", "json"])
            .query("q", "a=b&c")
            .flag("x", true)
            .flag("y", false);
        assert_eq!(
            url.finish(),
            "/images/host:5000/a%20b:1/json?q=a%3Db%26c&x=1"
        );
    }
}
