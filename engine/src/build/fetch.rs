//! Files from elsewhere: what ADD downloads, and contexts given by their address.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::container::error::{Error, Result};
use crate::image::http_client;

/// A file that was downloaded.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// On the host.
    pub path: PathBuf,
    /// The last part of the address; may be empty.
    pub name: String,
    /// `Last-Modified` in Unix seconds; 0 without.
    pub modified: i64,
    /// `Content-Type` without parameters.
    pub content_type: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// Whether it is an address to download from.
pub fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Whether it is a repository's address, as Docker's clients see it.
pub fn is_git(text: &str) -> bool {
    let repository = text.split(['#', '?']).next().unwrap_or(text);
    text.starts_with("git://")
        || text.starts_with("git@")
        || text.starts_with("ssh://")
        || text.starts_with("github.com/")
        || (is_url(text) && repository.ends_with(".git"))
}

/// Downloads into `folder`.
pub async fn fetch(url: &str, folder: &Path) -> Result<Fetched> {
    use sha2::Digest as _;
    let failed = |error: reqwest::Error| {
        Error::message(format!("Get \"{url}\": {}", crate::image::describe(&error)))
    };
    let client = http_client()?;
    let mut response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(Error::message(format!(
            "failed to GET {url} with status {}",
            response.status()
        )));
    }
    let header = |name: &str| {
        let value = response.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let modified = header("last-modified")
        .and_then(|text| http_date(&text))
        .unwrap_or(0);
    let content_type = header("content-type").unwrap_or_default();
    let content_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let path = folder.join(hex::encode(rand::random::<[u8; 8]>()));
    let mut file = fs_err::File::create(&path)?;
    let mut hash = sha2::Sha256::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        hash.update(&chunk);
        file.write_all(&chunk)?;
    }
    Ok(Fetched {
        path,
        name: name_of(url),
        modified,
        content_type,
        sha256: hex::encode(hash.finalize()),
    })
}

/// The last part of the path.
fn name_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    match path.split_once('/') {
        Some((_, path)) => path.rsplit('/').next().unwrap_or_default().to_owned(),
        None => String::new(),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<i64> {
    let text = text
        .trim()
        .strip_suffix("GMT")
        .map(|text| format!("{text}+0000"))?;
    let parsed =
        time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc2822).ok()?;
    Some(parsed.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(name_of("http://h:80/a/b.tar?x=/y#z"), "b.tar");
        assert_eq!(
            (name_of("http://h"), name_of("http://h/a/")),
            (String::new(), String::new())
        );
        assert!(is_git("https://h/x.git#main:sub") && is_git("git@h:x") && !is_git("http://h/x"));
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(http_date("yesterday"), None);
    }
}
