//! Locks between processes, on files; the kernel lets go when a process ends, however it ends.

use std::path::Path;
use std::time::Duration;

use fs_err as fs;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::time::Instant;
use windlass_provider::Result;

use crate::failure;

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<std::fs::File>,
}

/// Who else may hold it at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

impl Lock {
    /// Takes it; waits until `patience` is over.
    pub async fn take(path: &Path, mode: Mode, patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::try_take(path, mode)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(failure::other(format!(
                    "another windlass holds {} since more than {patience:?}",
                    path.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes it if nobody is in the way.
    pub fn try_take(path: &Path, mode: Mode) -> Result<Option<Self>> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(failure::of_host("cannot open a lock"))?;
        let how = match mode {
            Mode::Shared => FlockArg::LockSharedNonblock,
            Mode::Exclusive => FlockArg::LockExclusiveNonblock,
        };
        match Flock::lock(file.into_parts().0, how) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(failure::of_host("cannot take a lock")(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shared_and_exclusive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::try_take(&path, Mode::Shared).unwrap().unwrap();
        let second = Lock::try_take(&path, Mode::Shared).unwrap().unwrap();
        assert!(Lock::try_take(&path, Mode::Exclusive).unwrap().is_none());
        let refused = Lock::take(&path, Mode::Exclusive, Duration::from_millis(50)).await;
        assert!(refused.unwrap_err().message.contains("another windlass"));
        drop((first, second));
        assert!(Lock::try_take(&path, Mode::Exclusive).unwrap().is_some());
    }
}
