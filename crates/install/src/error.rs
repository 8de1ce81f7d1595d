//! Why an engine could not be installed. Each is one sentence, and says what to do where that is known.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What became of the engine before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// There is none.
    NoneBefore,
    /// It is back and answers.
    Yes,
    /// It was put back, but does not answer either.
    Silent,
    /// It could not be put back.
    No(String),
}

impl std::fmt::Display for Restored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoneBefore => f.write_str("there is no other engine to go back to"),
            Self::Yes => f.write_str("the engine before is back and answers"),
            Self::Silent => f.write_str("the engine before is back, but does not answer either"),
            Self::No(why) => write!(f, "the engine before could not be put back: {why}"),
        }
    }
}

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host was not reached, or a command on it failed.
    #[error("{during} failed")]
    Ssh {
        /// The step.
        during: &'static str,
        /// Why.
        #[source]
        source: Box<windlass_ssh::Error>,
    },
    /// A binary is not where it should be.
    #[error("cannot read a binary for hosts")]
    Binary(#[source] std::io::Error),
    /// A binary's file is not what it should be.
    #[error("{} is not a whole gzip file", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The host said something that is not understood.
    #[error("the host cannot be looked at: {0}")]
    Probe(String),
    /// Not Linux.
    #[error("the host runs {0}, and the engine needs Linux")]
    System(String),
    /// No binary for this processor.
    #[error("the host's architecture is {0}, and there are engines for x86_64 and aarch64 only")]
    Architecture(String),
    /// Neither root nor sudo.
    #[error(
        "user {user} is neither root nor may use sudo without a password{}",
        said(problem)
    )]
    NoRoot {
        /// The login user.
        user: String,
        /// What sudo said.
        problem: String,
    },
    /// The kernel lacks something.
    #[error("the host's kernel {kernel} lacks {}", missing.join(", "))]
    Kernel {
        /// Its release.
        kernel: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// No room.
    #[error("the file system of {path} on the host is full: {} MB are free and {} MB are needed", free / MB, needed.div_ceil(MB))]
    DiskFull {
        /// A folder on it.
        path: String,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The binary that arrived does not run.
    #[error("the engine does not run on this host: {said}")]
    DoesNotRun {
        /// What it, or the shell, said.
        said: String,
    },
    /// The engine was started and does not answer.
    #[error("the engine {how} ({restored}); its last words:\n{last_words}")]
    Silent {
        /// Ended, or silent for how long.
        how: String,
        /// The end of its log.
        last_words: String,
        /// What became of the one before.
        restored: Restored,
    },
}

const MB: u64 = 1_000_000;

impl Error {
    pub(crate) fn ssh(during: &'static str, source: windlass_ssh::Error) -> Self {
        Self::Ssh {
            during,
            source: Box::new(source),
        }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Ssh { source, .. } => return source.hint(),
            Self::NoRoot { user, .. } => format!(
                "log in as root, or let {user} use sudo: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}"
            ),
            Self::DiskFull { .. } => "make room on the host, or give it a larger disk".to_owned(),
            Self::Kernel { .. } => {
                "use a host with an ordinary kernel of a Linux distribution".to_owned()
            }
            Self::Binary(_) | Self::Broken { .. } => {
                "build the binaries for hosts with `cargo xtask binaries`".to_owned()
            }
            _ => return None,
        })
    }
}

fn said(problem: &str) -> String {
    if problem.trim().is_empty() {
        String::new()
    } else {
        format!(" ({})", problem.trim())
    }
}
