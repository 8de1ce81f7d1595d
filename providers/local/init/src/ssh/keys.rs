//! The server's own key, and the keys that may log in.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use russh::keys::ssh_key::{Algorithm, LineEnding};
use russh::keys::{PrivateKey, PublicKey};

/// Reads the host key; makes one when there is none.
pub fn host_key(path: &Path) -> Result<PrivateKey> {
    match fs::read(path) {
        Ok(text) => PrivateKey::from_openssh(&text)
            .with_context(|| format!("{} is no OpenSSH private key", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error.into()),
    }
}

fn make(path: &Path) -> Result<PrivateKey> {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).context("make a key")?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(
        key.to_openssh(LineEnding::LF)
            .context("make a key")?
            .as_bytes(),
    )?;
    file.sync_all()?;
    Ok(key)
}

/// Whether `key` is one of the lines of `path`. Lines that are no keys are passed over, as sshd does.
pub fn is_authorized(path: &Path, key: &PublicKey) -> bool {
    let Ok(text) = fs::read_to_string(path) else {
        return false;
    };
    text.lines()
        .filter_map(|line| PublicKey::from_openssh(line.trim()).ok())
        .any(|known| known.key_data() == key.key_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_only_known_ones_are_authorized() {
        let folder = std::env::temp_dir().join(format!("windlass-keys-{}", std::process::id()));
        let path = folder.join("host_key");
        let made = host_key(&path).unwrap();
        assert_eq!(
            host_key(&path).unwrap().public_key(),
            made.public_key(),
            "the second start finds the first one's key"
        );
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let authorized = folder.join("authorized_keys");
        let line = made.public_key().to_openssh().unwrap();
        fs::write(&authorized, format!("# a comment\nnonsense\n{line}\n")).unwrap();
        assert!(is_authorized(&authorized, made.public_key()));
        let other = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        assert!(!is_authorized(&authorized, other.public_key()));
        assert!(!is_authorized(&folder.join("nothing"), made.public_key()));
        fs::remove_dir_all(folder).unwrap();
    }
}
