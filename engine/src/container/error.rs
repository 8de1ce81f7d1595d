//! What an operation on a container can fail with; the kind becomes the HTTP status.

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why, in the terms of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense (400).
    Invalid,
    /// There is no such object (404).
    NotFound,
    /// The object's state or another object is in the way (409).
    Conflict,
    /// Nothing to do (304).
    NotModified,
    /// Never allowed (403).
    Forbidden,
    /// Not offered by this engine (501).
    NotImplemented,
    /// What it would need is not there (503).
    Unavailable,
    /// Everything else (500).
    Internal,
}

/// A failed operation. The message is the whole sentence that the user sees.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// For the user.
    pub message: String,
}

impl Error {
    /// Any kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// An object that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A state that forbids the operation.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Nothing to do.
    pub fn not_modified() -> Self {
        Self::new(Kind::NotModified, "")
    }

    /// Something that this engine does not offer.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, message)
    }

    /// A failure of the engine or its host, with its causes.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Internal, format!("{:#}", error.into()))
    }

    /// The failure's text as it is.
    pub fn message(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error)
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Kind::Internal, format!("{error:#}"))
    }
}
