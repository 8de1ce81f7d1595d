//! What can go wrong in a call: the engine said no, or the engine was not reached.

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The engine's own refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The engine's message.
    pub message: String,
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine answered with an error, or reported one inside a progress stream (then the status is 500 unless it gave a code).
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The engine could not be reached, or the connection broke.
    #[error("cannot talk to the engine ({what})")]
    Transport {
        /// The step that failed.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine answered with something that is not its API.
    #[error("the engine's answer to {request} is not understood")]
    Decode {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    pub(crate) fn transport(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Transport {
            what,
            source: source.into(),
        }
    }

    /// The engine's HTTP status, if it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(e) => Some(e.status),
            _ => None,
        }
    }

    /// No such container, image, volume or network.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The name is taken, or the object is in use.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// The engine was not reached: a retry may help.
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::Transport { .. })
    }
}
