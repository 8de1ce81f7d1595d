//! Named locks between processes of one computer: `flock` on a file, so that a killed owner holds nothing.

use std::{
    fs::TryLockError,
    io::{Read, Seek, Write},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use super::StoreError;

/// How often a taken lock is looked at again.
const POLL: Duration = Duration::from_millis(50);

/// A lock that is held until this is dropped.
#[must_use = "the lock is released when this is dropped"]
pub struct Lock {
    _held: Box<dyn Send + Sync>,
}

impl Lock {
    /// A lock kept by whatever `held` releases when dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// Takes the lock `name` in `folder`, waiting up to `wait`.
pub(super) async fn take(folder: &Path, name: &str, wait: Duration) -> Result<Lock, StoreError> {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
            c
        } else {
            '_'
        }
    };
    let path = folder.join(format!(
        "{}.lock",
        name.chars().map(safe).collect::<String>()
    ));
    let deadline = Instant::now() + wait;
    let mut file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?
        .into_parts()
        .0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(POLL).await
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = if holder.is_empty() {
                    "its owner is not known".to_owned()
                } else {
                    holder
                };
                return Err(StoreError::Locked {
                    name: name.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    // Only for the message above: who holds the lock is decided by the kernel.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = write!(file, "process {}", std::process::id());
    Ok(Lock::new(file))
}
