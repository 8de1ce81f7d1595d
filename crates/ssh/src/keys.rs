//! Key pairs: making them, writing them so that only the owner reads them, and loading key files.
//!
//! An encrypted key file is never decrypted here (there is nobody to ask for the passphrase): the agent does that.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

use crate::error::{Error, Result};

/// A new ed25519 key pair.
pub struct KeyPair {
    private: String,
    /// `ssh-ed25519 AAAA… comment`, without a line end.
    pub public: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes one from the system's randomness.
    pub fn generate(comment: &str) -> Result<Self> {
        let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(made)?;
        key.set_comment(comment);
        let private = key.to_openssh(LineEnding::LF).map_err(made)?.to_string();
        let public = key.public_key().to_openssh().map_err(made)?;
        Ok(Self { private, public })
    }

    /// The private key as OpenSSH's text. Secret.
    pub fn private(&self) -> &str {
        &self.private
    }

    /// Writes the private key to `path` (mode 0600, replacing what is there at once) and the public line beside it as `.pub`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_private(path, &self.private)?;
        let public = appended(path, "pub");
        fs_err::write(public, format!("{}\n", self.public)).map_err(written)
    }
}

fn appended(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Writes private key text with mode 0600, durably, by a file beside it.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let beside = appended(path, &format!("{}.new", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        options.options_mut().mode(0o600);
        let mut file = options.open(&beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs_err::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = fs_err::remove_file(&beside);
        written(source)
    })
}

/// The public line of a private key text (a host key that is about to be injected).
pub fn public_line(private: &str) -> Result<String> {
    let key = PrivateKey::from_openssh(private).map_err(made)?;
    key.public_key().to_openssh().map_err(made)
}

/// A private key from a file, ready to sign or locked.
pub(crate) enum LoadedKey {
    Ready(Arc<PrivateKey>),
    /// Encrypted; the public part tells whether the agent holds it.
    Encrypted(Option<PublicKey>),
}

/// Loads an OpenSSH or PEM private key file.
pub(crate) fn load(path: &Path) -> Result<LoadedKey> {
    let text = fs_err::read_to_string(path).map_err(|e| problem(path, &plain_reason(&e)))?;
    if let Ok(key) = PrivateKey::from_openssh(&text) {
        return Ok(if key.is_encrypted() {
            LoadedKey::Encrypted(Some(key.public_key().clone()))
        } else {
            LoadedKey::Ready(Arc::new(key))
        });
    }
    match russh::keys::decode_secret_key(&text, None) {
        Ok(key) => Ok(LoadedKey::Ready(Arc::new(key))),
        Err(russh::keys::Error::KeyIsEncrypted) => Ok(LoadedKey::Encrypted(beside(path))),
        Err(_) if text.contains("ENCRYPTED") => Ok(LoadedKey::Encrypted(beside(path))),
        Err(_) if PublicKey::from_openssh(text.trim()).is_ok() => Err(problem(
            path,
            "this is the public half; name the private key",
        )),
        Err(e) => Err(problem(
            path,
            &format!("not a private key that can be read ({e})"),
        )),
    }
}

/// Fails where the file cannot be used at all; an encrypted one can, if the agent holds it.
pub fn check(path: &Path) -> Result<()> {
    load(path).map(|_| ())
}

/// The error for an encrypted key that the agent does not hold.
pub(crate) fn encrypted(path: &Path) -> Error {
    problem(
        path,
        &format!(
            "it is encrypted; start an agent and add it with `ssh-add {}`",
            path.display()
        ),
    )
}

/// `SHA256:…`, as ssh shows it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn beside(path: &Path) -> Option<PublicKey> {
    let text = fs_err::read_to_string(appended(path, "pub")).ok()?;
    PublicKey::from_openssh(text.trim()).ok()
}

fn plain_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::InvalidData => "not a private key".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read".to_owned(),
        _ => error.to_string(),
    }
}

fn problem(path: &Path, problem: &str) -> Error {
    Error::KeyFile {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

fn made(source: russh::keys::ssh_key::Error) -> Error {
    Error::File {
        what: "cannot make or read a key".to_owned(),
        source: std::io::Error::other(source),
    }
}

fn written(source: std::io::Error) -> Error {
    Error::File {
        what: "cannot write a key file".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh_keygen(arguments: &[&str]) -> String {
        let output = std::process::Command::new("ssh-keygen")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_made_key_is_what_openssh_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id_ed25519");
        let pair = KeyPair::generate("windlass web1").unwrap();
        pair.write(&path).unwrap();
        let mode = fs_err::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let public = ssh_keygen(&["-y", "-f", path.to_str().unwrap()]);
        assert_eq!(public.trim(), pair.public);
        assert_eq!(public_line(pair.private()).unwrap(), pair.public);
        assert!(matches!(load(&path).unwrap(), LoadedKey::Ready(_)));
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }

    #[test]
    fn key_files_of_all_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, options) in [
            ("rsa-pem", vec!["-t", "rsa", "-b", "2048", "-m", "PEM"]),
            ("rsa", vec!["-t", "rsa", "-b", "2048"]),
            ("ecdsa", vec!["-t", "ecdsa"]),
            ("pkcs8", vec!["-t", "ecdsa", "-m", "PKCS8"]),
        ] {
            let file = path(name);
            let mut arguments = vec!["-q", "-N", "", "-f", file.to_str().unwrap()];
            arguments.extend(options);
            ssh_keygen(&arguments);
            assert!(
                matches!(load(&file).unwrap(), LoadedKey::Ready(_)),
                "{name}"
            );
        }
        for (name, format) in [("locked", "RFC4716"), ("locked-pem", "PEM")] {
            let file = path(name);
            let file_name = file.to_str().unwrap();
            ssh_keygen(&[
                "-q", "-t", "rsa", "-b", "2048", "-N", "secret", "-m", format, "-f", file_name,
            ]);
            assert!(
                matches!(load(&file).unwrap(), LoadedKey::Encrypted(Some(_))),
                "{name}"
            );
        }
        let public = check(&path("rsa.pub")).unwrap_err().to_string();
        assert!(public.contains("public half"), "{public}");
        let missing = check(&path("absent")).unwrap_err().to_string();
        assert!(missing.contains("no such file"), "{missing}");
    }
}
