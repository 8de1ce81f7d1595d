//! Files onto the host: streamed to a new file beside, checked, made durable, and renamed over the old one at once.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

use crate::command::Command;
use crate::error::{Error, Result};
use crate::session::Session;

/// How the bytes that are sent relate to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// They are the file.
    Plain,
    /// They are the file, compressed by gzip; the host unpacks them.
    Gzip,
}

/// A file to be put onto a host.
#[derive(Clone, Debug)]
pub struct Upload {
    path: String,
    mode: u32,
    sha256: Option<String>,
    encoding: Encoding,
    keep_old_as: Option<String>,
    root: bool,
}

/// What an upload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Whether the host has compared the digest; not every host can.
    pub verified: bool,
}

impl Upload {
    /// To an absolute path, with permission bits.
    pub fn new(path: impl Into<String>, mode: u32) -> Self {
        Self {
            path: path.into(),
            mode,
            sha256: None,
            encoding: Encoding::Plain,
            keep_old_as: None,
            root: false,
        }
    }

    /// The file's SHA-256 in hex, to be compared on the host before it is put in place.
    #[must_use]
    pub fn sha256(mut self, digest: impl Into<String>) -> Self {
        self.sha256 = Some(digest.into());
        self
    }

    /// How it is sent.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Keeps the file that is replaced under another name of the same file system.
    #[must_use]
    pub fn keep_old_as(mut self, path: impl Into<String>) -> Self {
        self.keep_old_as = Some(path.into());
        self
    }

    /// The file belongs to root, which needs sudo where the login user is not root.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.root = true;
        self
    }

    fn command(&self, name: &str, script: &str, arguments: Vec<String>) -> Command {
        let command = Command::script(name, script, arguments);
        let command = command.called(&format!("upload of {}", self.path));
        if self.root {
            command.as_root()
        } else {
            command
        }
    }

    fn take(&self) -> Command {
        let encoding = match self.encoding {
            Encoding::Plain => "plain",
            Encoding::Gzip => "gzip",
        };
        let arguments = vec![self.path.clone(), encoding.to_owned()];
        self.command("windlass-take", include_str!("upload.sh"), arguments)
    }

    fn place(&self, new: &str, bytes: Option<u64>) -> Command {
        let arguments = vec![
            new.to_owned(),
            self.path.clone(),
            format!("{:o}", self.mode & 0o7777),
            bytes.map(|n| n.to_string()).unwrap_or_default(),
            self.sha256.clone().unwrap_or_default(),
            self.keep_old_as.clone().unwrap_or_default(),
        ];
        self.command("windlass-place", include_str!("place.sh"), arguments)
    }
}

impl Session {
    /// Puts a file onto the host. What was there stays untouched unless all of the new one has arrived.
    pub async fn upload(
        &self,
        content: impl AsyncRead + Send,
        upload: &Upload,
    ) -> Result<Uploaded> {
        if !upload.path.starts_with('/') {
            return Err(Error::BadCommand {
                what: format!("upload of {}", upload.path),
                problem: "the path is not absolute",
            });
        }
        let sent = AtomicU64::new(0);
        let counted = InspectReader::new(content, |bytes: &[u8]| {
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            sent.fetch_add(count, Ordering::Relaxed);
        });
        let take = upload.take();
        let taken = self.exec_with_input(&take, counted).await?;
        self.require_success(&take, &taken).await?;
        let bytes_sent = sent.load(Ordering::Relaxed);
        // A lost connection looks like the end of the file to the host, so only this side can say that all has arrived.
        let new = taken.stdout_text();
        let bytes = (upload.encoding == Encoding::Plain).then_some(bytes_sent);
        let placed = self.run(&upload.place(new.trim_end(), bytes)).await?;
        Ok(Uploaded {
            bytes_sent,
            verified: placed.trim_end().ends_with(" yes"),
        })
    }
}
