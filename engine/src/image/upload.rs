//! The push side of the OCI distribution specification, and what else a registry is asked besides a pull.

use std::path::Path;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use super::outage::describe;
use super::registry::{ACCEPTED, RawManifest, Registry, failed, small};
use super::{Error, Result};

/// Bytes read from a file at once.
const CHUNK: usize = 128 * 1024;
/// Of tags; a registry that gives the same page for ever ends there.
const MAX_PAGES: usize = 1000;

/// What came of the wish to take a blob over from another repository.
pub(super) enum Mount {
    /// It is there.
    Mounted,
    /// It has to be sent, to this address.
    Session(Url),
}

/// The errors in a registry's answer.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// Whether the repository has the blob.
    pub(super) async fn has_blob(&self, digest: &str) -> Result<bool> {
        let url = self.own(&format!("blobs/{digest}"));
        let response = self
            .send(self.endpoint(), |http| http.request(Method::HEAD, &url))
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.accepted(&url, response).await.map(|_| true),
        }
    }

    /// Starts an upload; with `from` the registry may take the blob over from there.
    pub(super) async fn begin_upload(&self, mount: Option<(&str, &str)>) -> Result<Mount> {
        let query = mount.map_or(String::new(), |(digest, from)| {
            format!("?mount={digest}&from={from}")
        });
        let url = self.own(&format!("blobs/uploads/{query}"));
        let response = self
            .send(self.endpoint(), |http| {
                http.post(&url).header(CONTENT_LENGTH, 0)
            })
            .await?;
        let response = self.accepted(&url, response).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Mount::Mounted);
        }
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| response.url().join(value.to_str().ok()?).ok());
        let location = location.ok_or_else(|| failed(&url, "the registry names no upload"))?;
        Ok(Mount::Session(location))
    }

    /// Sends a file as one blob; `sent` hears how many bytes are through.
    pub(super) async fn upload(
        &self,
        session: Url,
        digest: &str,
        file: &Path,
        sent: impl Fn(u64) + Send + Sync + Clone + 'static,
    ) -> Result<()> {
        let mut url = session;
        url.query_pairs_mut().append_pair("digest", digest);
        let size = tokio::fs::metadata(file).await?.len();
        let source = tokio::fs::File::open(file).await?;
        let mut through = 0;
        let body = ReaderStream::with_capacity(source, CHUNK).inspect(move |chunk| {
            through += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            sent(through);
        });
        let request = self
            .http()
            .put(url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(reqwest::Body::wrap_stream(body));
        let response = self.execute(self.endpoint(), request).await;
        let response = response.map_err(|error| failed(url.as_str(), &describe(&error)))?;
        self.accepted(url.as_str(), response).await.map(drop)
    }

    /// Sends a small blob.
    pub(super) async fn upload_bytes(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let Mount::Session(mut url) = self.begin_upload(None).await? else {
            return Ok(());
        };
        url.query_pairs_mut().append_pair("digest", digest);
        let response = self
            .send(self.endpoint(), |http| {
                http.put(url.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(bytes.to_vec())
            })
            .await?;
        self.accepted(url.as_str(), response).await.map(drop)
    }

    /// Names a manifest.
    pub(super) async fn put_manifest(&self, tag: &str, kind: &str, bytes: &[u8]) -> Result<()> {
        let url = self.own(&format!("manifests/{tag}"));
        let response = self
            .send(self.endpoint(), |http| {
                http.put(&url)
                    .header(CONTENT_TYPE, kind)
                    .body(bytes.to_vec())
            })
            .await?;
        self.accepted(&url, response).await.map(drop)
    }

    /// A manifest and its media type, from the first endpoint that has it.
    pub(super) async fn described(&self, target: &str) -> Result<(RawManifest, String)> {
        let mut last = None;
        for endpoint in self.endpoints() {
            match self.described_by(endpoint, target).await {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Unsupported("no registry to ask".into())))
    }

    async fn described_by(&self, endpoint: &str, target: &str) -> Result<(RawManifest, String)> {
        let url = format!("{endpoint}/v2/{}/manifests/{target}", self.repository());
        let response = self
            .send(endpoint, |http| http.get(&url).header(ACCEPT, ACCEPTED))
            .await?;
        let response = self.accepted(&url, response).await?;
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let kind = text("content-type").unwrap_or_default();
        let digest = text("docker-content-digest");
        let bytes = small(&url, response).await?;
        Ok((RawManifest { bytes, digest }, kind))
    }

    /// All tags of the repository, from the first endpoint that has some.
    pub(super) async fn tags(&self) -> Result<Vec<String>> {
        let mut last = None;
        for endpoint in self.endpoints() {
            match self.tags_at(endpoint).await {
                Ok(tags) => return Ok(tags),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Unsupported("no registry to ask".into())))
    }

    async fn tags_at(&self, endpoint: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = format!("{endpoint}/v2/{}/tags/list", self.repository());
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.send(endpoint, |http| http.get(&url)).await?;
            let response = self.check(&url, response).await?;
            let next = response
                .headers()
                .get(LINK)
                .and_then(|link| next_page(response.url(), link.to_str().ok()?));
            let page: Page = serde_json::from_slice(&small(&url, response).await?)
                .map_err(|error| failed(&url, &format!("the list of tags: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => url = next.to_string(),
                None => break,
            }
        }
        Ok(tags)
    }

    /// An address at the registry itself, not at a mirror.
    fn own(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint(), self.repository())
    }

    /// The answer if it is a good one, else the registry's own words.
    pub(super) async fn accepted(&self, url: &str, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = small(url, response).await.unwrap_or_default();
        let answer = serde_json::from_slice::<Answer>(&body);
        if let (Err(error), false) = (&answer, body.is_empty() || status.is_server_error()) {
            let text = String::from_utf8_lossy(&body);
            return Err(Error::Refused(format!(
                "error parsing HTTP {} response body: {error}: {text:?}",
                status.as_u16()
            )));
        }
        let words = answer
            .ok()
            .and_then(|answer| answer.errors.into_iter().next())
            .map(|entry| {
                let code = entry.code.to_ascii_lowercase().replace('_', " ");
                format!("{code}: {}", entry.message)
            });
        Err(match (status, words) {
            (StatusCode::UNAUTHORIZED, None) if !self.has_login() => {
                Error::Refused("no basic auth credentials".into())
            }
            (StatusCode::UNAUTHORIZED, words) => Error::Refused(
                words.unwrap_or_else(|| "unauthorized: authentication required".into()),
            ),
            (StatusCode::FORBIDDEN, words) => Error::Refused(
                words
                    .unwrap_or_else(|| "denied: requested access to the resource is denied".into()),
            ),
            (StatusCode::NOT_FOUND, Some(words)) => Error::ManifestMissing(words),
            (_, Some(words)) => Error::Unsupported(words),
            (status, None) => {
                Error::Unsupported(format!("received unexpected HTTP status: {status}"))
            }
        })
    }
}

/// The address in `<…>; rel="next"`, which must be at the same host.
fn next_page(base: &Url, link: &str) -> Option<Url> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = base.join(address).ok()?;
    (parameters.contains("next") && next.origin() == base.origin()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_at_the_same_host() {
        let base = Url::parse("http://h:1/v2/a/tags/list").unwrap();
        let next = |link: &str| next_page(&base, link).map(|url| url.to_string());
        assert_eq!(
            next(r#"</v2/a/tags/list?last=x>; rel="next""#).as_deref(),
            Some("http://h:1/v2/a/tags/list?last=x")
        );
        assert_eq!(next(r#"<http://other/>; rel="next""#), None);
        assert_eq!(next("nonsense"), None);
    }
}
