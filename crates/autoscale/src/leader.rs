//! One autoscaler a fleet: a lock on a file, which the kernel lets go when its process ends, however it ends.
//!
//! Deliberately absent: leadership between computers. Two computers have two stores and so two fleets.

use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Leads as long as it lives.
#[derive(Debug)]
pub struct FileLeader {
    _file: fs_err::File,
}

/// Why one does not lead.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Another process leads.
    #[error(
        "another autoscaler already runs for this fleet (process {holder}); stop it first, or let it work"
    )]
    Taken {
        /// Its process id, as far as it is known.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("cannot use the lock file {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

impl FileLeader {
    /// Takes the lock, or says who has it. The file stays behind; it is the lock that counts.
    pub fn acquire(path: &Path) -> Result<Self, LeaderError> {
        let failed = |source| LeaderError::File {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only to name it; the lock is what says no.
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() {
                    "unknown".to_owned()
                } else {
                    holder.trim().to_owned()
                };
                return Err(LeaderError::Taken { holder });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
