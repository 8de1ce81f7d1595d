//! Why something over SSH did not work, in kinds that tell the caller what may be tried again.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether the host can have seen any of a request whose connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing left this computer: trying again is safe.
    Nothing,
    /// Some of it may have arrived and been carried out.
    Perhaps,
}

/// A host that showed another key than the one on file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyChange {
    /// `host:port` of the machine.
    pub address: String,
    /// Fingerprints on file.
    pub known: Vec<String>,
    /// The fingerprint that was offered.
    pub offered: String,
    /// The file to edit if the change is meant.
    pub file: PathBuf,
}

/// Everything that can go wrong. Nothing secret is ever part of a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name has no address.
    #[error("no address found for {host}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No connection: refused, no route, reset.
    #[error("cannot reach {address}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No connection, or no finished handshake, within the time limit.
    #[error("{address} did not answer within {} s", after.as_secs_f32())]
    TimedOut {
        /// `host:port`.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// Something answered, but no encrypted connection came about.
    #[error("the SSH handshake with {address} failed")]
    Handshake {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: russh::Error,
    },
    /// The host's key is not the one on file. Nothing was sent after that was seen.
    #[error(
        "the host key of {} has changed: {} offered, {} on file; if that is meant, remove the old line from {}",
        .0.address, .0.offered, .0.known.join(", "), .0.file.display()
    )]
    HostKeyChanged(Box<HostKeyChange>),
    /// The host's key is marked `@revoked`.
    #[error("the host key {fingerprint} of {address} is revoked in {}", file.display())]
    HostKeyRevoked {
        /// `host:port`.
        address: String,
        /// The key.
        fingerprint: String,
        /// Where it is marked.
        file: PathBuf,
    },
    /// No key was accepted.
    #[error(
        "{user}@{address} accepts none of our keys ({})",
        list(tried, "none to try")
    )]
    Auth {
        /// Login name.
        user: String,
        /// `host:port`.
        address: String,
        /// What was offered or could not be, each in words.
        tried: Vec<String>,
    },
    /// A private key file cannot be used.
    #[error("key file {}: {problem}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{what}")]
    File {
        /// What for.
        what: String,
        /// Which and why.
        #[source]
        source: std::io::Error,
    },
    /// `~/.ssh/config` asks for something impossible.
    #[error("the SSH client configuration cannot be used")]
    Config(#[source] ConfigError),
    /// The host would not open a channel.
    #[error("{address} refused {what} ({reason})")]
    ChannelRefused {
        /// `host:port`.
        address: String,
        /// What was asked for.
        what: String,
        /// The host's reason.
        reason: String,
    },
    /// The connection was lost, or closed by the host.
    #[error("the connection to {address} was lost during {during}")]
    Closed {
        /// `host:port`.
        address: String,
        /// What was going on.
        during: String,
        /// Whether it may have had an effect.
        sent: Sent,
    },
    /// A command that cannot be sent.
    #[error("the command {what} cannot be sent: {problem}")]
    BadCommand {
        /// The command, for people.
        what: String,
        /// Why not.
        problem: &'static str,
    },
    /// A command took longer than its time limit.
    #[error("{what} on {address} took longer than {} s", limit.as_secs_f32())]
    TooLong {
        /// `host:port`.
        address: String,
        /// The command, for people.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// A command wrote more than what is kept.
    #[error("{what} on {address} wrote more than {limit} bytes")]
    TooMuchOutput {
        /// `host:port`.
        address: String,
        /// The command, for people.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// A command ended with a status other than 0.
    #[error("{what} on {address} failed with status {status}: {said}")]
    Failed {
        /// `host:port`.
        address: String,
        /// The command, for people.
        what: String,
        /// Exit status; 128 + n for a signal.
        status: i32,
        /// The last it wrote to stderr.
        said: String,
    },
    /// The local side of a stream failed.
    #[error("{what}")]
    Local {
        /// What for.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the host cannot have carried out anything of the request.
    pub fn nothing_sent(&self) -> bool {
        !matches!(
            self,
            Self::Closed {
                sent: Sent::Perhaps,
                ..
            } | Self::TooLong { .. }
                | Self::TooMuchOutput { .. }
                | Self::Failed { .. }
                | Self::Local { .. }
        )
    }

    /// Whether a host that is still starting can give this error: refused, silent, or hanging up before the login.
    pub fn may_be_starting(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Closed { sent, .. } => *sent == Sent::Nothing,
            Self::Handshake { source, .. } => matches!(
                source,
                russh::Error::HUP
                    | russh::Error::Disconnect
                    | russh::Error::IO(_)
                    | russh::Error::ConnectionTimeout
                    | russh::Error::Version
            ),
            _ => false,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Resolve { .. } => "check the host name".to_owned(),
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                "check the address, the port, and that a firewall lets SSH in".to_owned()
            }
            Self::HostKeyChanged(change) => format!(
                "if you did not reinstall the host, somebody may be in between; otherwise remove its line from {}",
                change.file.display()
            ),
            Self::Auth { user, .. } => {
                format!(
                    "add one of the keys to ~{user}/.ssh/authorized_keys on the host, or name another key"
                )
            }
            _ => return None,
        })
    }
}

fn list(items: &[String], empty: &str) -> String {
    if items.is_empty() {
        empty.to_owned()
    } else {
        items.join(", ")
    }
}
