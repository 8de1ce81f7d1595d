//! What an installation tells while it runs, and at its end.

/// A step of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The host is looked at.
    Probing,
    /// The engine is sent: so many of so many bytes.
    Uploading {
        /// Bytes sent.
        sent: u64,
        /// Bytes to be sent.
        total: u64,
    },
    /// The service is written and started where needed.
    Starting,
    /// The engine is asked until it answers.
    Waiting,
    /// The engine did not answer, so the one before is put back.
    Restoring,
}

/// A host with an answering engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Hex SHA-256 of the engine's program.
    pub digest: String,
    /// Its version.
    pub version: String,
    /// Its socket on the host.
    pub socket: String,
    /// Bytes sent for it.
    pub uploaded_bytes: u64,
    /// Whether anything on the host was changed.
    pub changed: bool,
    /// The socket of a Docker engine that the host has too, and that is left alone.
    pub docker: Option<String>,
}
