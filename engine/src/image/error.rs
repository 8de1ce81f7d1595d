//! What can go wrong with images, with Docker's words where clients read them.

/// Result of an image operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An image operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference does not follow the grammar.
    #[error("{0}")]
    InvalidReference(String),
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No image here has that name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The registry does not know the manifest.
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    ManifestUnknown(String),
    /// The registry refused.
    #[error(
        "pull access denied for {0}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
    )]
    AccessDenied(String),
    /// The registry refused a login.
    #[error("{0}")]
    Denied(String),
    /// The registry refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The registry does not know the manifest, in its own words.
    #[error("{0}")]
    ManifestMissing(String),
    /// No image here has the tag that is to be pushed.
    #[error("{0}")]
    NoSuchImageToPush(String),
    /// The registry refused the credentials.
    #[error("unauthorized: authentication required by {0}")]
    Unauthorized(String),
    /// An id prefix or name fits more than one image, or the image is in use.
    #[error("{0}")]
    Conflict(String),
    /// The registry could not be reached or broke off.
    #[error("Get \"{url}\": {reason}")]
    Registry {
        /// What was asked for.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// Bytes that do not have the digest they were asked by.
    #[error("{what} does not match its digest: expected {expected}, got {got}")]
    Digest {
        /// The blob.
        what: String,
        /// Asked for.
        expected: String,
        /// Received.
        got: String,
    },
    /// An archive that is broken or tries to leave its root.
    #[error("layer refused: {0}")]
    Archive(String),
    /// A manifest, config or archive that cannot be used.
    #[error("{0}")]
    Unsupported(String),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// The HTTP status that Docker gives for this.
    pub fn status(&self) -> u16 {
        match self {
            Error::InvalidReference(_) | Error::Invalid(_) | Error::Archive(_) => 400,
            Error::NoSuchImage(_)
            | Error::ManifestUnknown(_)
            | Error::ManifestMissing(_)
            | Error::NoSuchImageToPush(_)
            | Error::AccessDenied(_) => 404,
            Error::Denied(_) | Error::Refused(_) => 403,
            Error::Conflict(_) => 409,
            Error::Unauthorized(_)
            | Error::Registry { .. }
            | Error::Digest { .. }
            | Error::Unsupported(_)
            | Error::Io(_) => 500,
        }
    }
}
