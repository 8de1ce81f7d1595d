//! Which host keys are accepted, and the machine's own file of pins.
//!
//! The machine's key is filed under `*`: a machine keeps its key when its address changes. Jump hosts are filed in the same file
//! under their own names. What nobody knows yet is taken on first use, reported, and pinned once the login has worked.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use russh::keys::{Algorithm, PublicKey};

use crate::error::{Error, HostKeyChange, Result};
use crate::keys::fingerprint;
use crate::known_hosts::{self, KnownKeys};

/// A host key that was seen for the first time and is pinned now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstUse {
    /// `host:port`.
    pub address: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// `ssh-ed25519`, ….
    pub algorithm: String,
    /// Whether the user's own `known_hosts` vouches for it already.
    pub known_to_user: bool,
}

/// Pins the key of a machine that is about to be made with it; `public_line` is `ssh-ed25519 AAAA…`.
pub fn pin(known_hosts: &Path, public_line: &str) -> Result<()> {
    let key = PublicKey::from_openssh(public_line.trim()).map_err(|e| Error::File {
        what: "not a public key".to_owned(),
        source: std::io::Error::other(e),
    })?;
    let others = append(known_hosts, "*", &key)?;
    if others.is_empty() || contains(&others, &key) {
        return Ok(());
    }
    Err(Error::File {
        what: "cannot pin the host key".to_owned(),
        source: std::io::Error::other(format!(
            "{} holds another one already",
            known_hosts.display()
        )),
    })
}

/// Which machine a hop of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Machine,
    Jump,
}

/// What is on file for one host, read before the connection is made.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub address: String,
    name: String,
    role: Role,
    pin_file: PathBuf,
    user_file: Option<PathBuf>,
    pinned: KnownKeys,
    users: KnownKeys,
}

/// How an offered key came to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    Pinned,
    New { known_to_user: bool },
}

impl Expected {
    pub fn read(
        host: &str,
        port: u16,
        role: Role,
        pin_file: &Path,
        user_file: Option<&Path>,
    ) -> Result<Self> {
        let name = known_hosts::host_name(host, port);
        let unreadable = |source| Error::File {
            what: "cannot read known host keys".to_owned(),
            source,
        };
        let filed_as = if role == Role::Machine { "*" } else { &name };
        let pinned = read_pins(pin_file, filed_as, &name).map_err(unreadable)?;
        let users = match user_file {
            Some(file) => known_hosts::read(file, &name).map_err(unreadable)?,
            None => KnownKeys::default(),
        };
        Ok(Self {
            address: format!("{}:{port}", bracketed(host)),
            name,
            role,
            pin_file: pin_file.to_owned(),
            user_file: user_file.map(Path::to_owned),
            pinned,
            users,
        })
    }

    /// The algorithms to ask for, those of keys on file first, so that the host shows the key that can be compared.
    pub fn algorithms(&self, defaults: &[Algorithm]) -> Vec<Algorithm> {
        let known = if self.pinned.keys.is_empty() {
            &self.users.keys
        } else {
            &self.pinned.keys
        };
        let is_known = |algorithm: &Algorithm| {
            known
                .iter()
                .any(|key| same_kind(&key.algorithm(), algorithm))
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = defaults.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// Decides about the key that the host shows.
    pub fn check(&self, offered: &PublicKey) -> Result<Accepted> {
        let revoked = [
            (&self.pinned.revoked, Some(&self.pin_file)),
            (&self.users.revoked, self.user_file.as_ref()),
        ];
        for (keys, file) in revoked {
            if let (true, Some(file)) = (contains(keys, offered), file) {
                return Err(Error::HostKeyRevoked {
                    address: self.address.clone(),
                    fingerprint: fingerprint(offered),
                    file: file.clone(),
                });
            }
        }
        if !self.pinned.keys.is_empty() {
            return if contains(&self.pinned.keys, offered) {
                Ok(Accepted::Pinned)
            } else {
                Err(self.changed(&self.pinned.keys, offered, &self.pin_file))
            };
        }
        match &self.user_file {
            Some(file) if !self.users.keys.is_empty() => {
                if contains(&self.users.keys, offered) {
                    Ok(Accepted::New {
                        known_to_user: true,
                    })
                } else {
                    Err(self.changed(&self.users.keys, offered, file))
                }
            }
            _ => Ok(Accepted::New {
                known_to_user: false,
            }),
        }
    }

    /// Pins a new key, unless another process pinned a different one meanwhile.
    pub fn pin(&self, key: &PublicKey, known_to_user: bool) -> Result<Option<FirstUse>> {
        let filed_as = match self.role {
            Role::Machine => "*",
            Role::Jump => &self.name,
        };
        let others = append(&self.pin_file, filed_as, key)?;
        if !others.is_empty() {
            return if contains(&others, key) {
                Ok(None)
            } else {
                Err(self.changed(&others, key, &self.pin_file))
            };
        }
        Ok(Some(FirstUse {
            address: self.address.clone(),
            fingerprint: fingerprint(key),
            algorithm: key.algorithm().as_str().to_owned(),
            known_to_user,
        }))
    }

    fn changed(&self, known: &[PublicKey], offered: &PublicKey, file: &Path) -> Error {
        Error::HostKeyChanged(Box::new(HostKeyChange {
            address: self.address.clone(),
            known: known.iter().map(fingerprint).collect(),
            offered: fingerprint(offered),
            file: file.to_owned(),
        }))
    }
}

fn contains(keys: &[PublicKey], key: &PublicKey) -> bool {
    keys.iter().any(|other| other.key_data() == key.key_data())
}

/// An IPv6 address in brackets.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// A pin is filed under exactly one name, so `*` does not stand for everybody here. The machine's file may also have been
/// written by hand, with the machine's own name.
fn read_pins(file: &Path, filed_as: &str, name: &str) -> std::io::Result<KnownKeys> {
    let text = match fs_err::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(KnownKeys::default()),
        Err(e) => return Err(e),
    };
    Ok(pins(&text, filed_as, name))
}

fn pins(text: &str, filed_as: &str, name: &str) -> KnownKeys {
    let is_star = |line: &&str| line.split_whitespace().find(|w| !w.starts_with('@')) == Some("*");
    let lines = |star: bool| -> String {
        let chosen: Vec<&str> = text.lines().filter(|l| is_star(l) == star).collect();
        chosen.join("\n")
    };
    let mut known = known_hosts::find(&lines(false), name);
    if filed_as == "*" {
        let machine = known_hosts::find(&lines(true), "anything");
        known.keys.extend(machine.keys);
        known.revoked.extend(machine.revoked);
    }
    known
}

/// Adds a line under a lock, unless keys are filed under that name already; these are returned.
fn append(file: &Path, filed_as: &str, key: &PublicKey) -> Result<Vec<PublicKey>> {
    let failed = |source| Error::File {
        what: "cannot pin the host key".to_owned(),
        source,
    };
    let write = || -> std::io::Result<Vec<PublicKey>> {
        if let Some(folder) = file.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let mut options = fs_err::OpenOptions::new();
        options.read(true).append(true).create(true);
        options.options_mut().mode(0o600);
        let mut open = options.open(file)?;
        open.file().lock()?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        let there = pins(&text, filed_as, filed_as).keys;
        if there.is_empty() {
            let key = key.to_openssh().map_err(std::io::Error::other)?;
            let end = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            open.write_all(format!("{end}{filed_as} {}\n", key.trim()).as_bytes())?;
            open.sync_all()?;
        }
        Ok(there)
    };
    write().map_err(failed)
}

fn same_kind(a: &Algorithm, b: &Algorithm) -> bool {
    matches!((a, b), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || a == b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyPair;

    fn key() -> PublicKey {
        PublicKey::from_openssh(&KeyPair::generate("").unwrap().public).unwrap()
    }

    #[test]
    fn first_use_then_pinned_then_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine/known_hosts");
        let read = |role| Expected::read("web1", 22, role, &file, None).unwrap();
        let (mine, other) = (key(), key());
        let accepted = read(Role::Machine).check(&mine).unwrap();
        assert_eq!(
            accepted,
            Accepted::New {
                known_to_user: false
            }
        );
        let first = read(Role::Machine).pin(&mine, false).unwrap().unwrap();
        assert_eq!(first.fingerprint, fingerprint(&mine));
        assert_eq!(read(Role::Machine).check(&mine).unwrap(), Accepted::Pinned);
        let error = read(Role::Machine).check(&other).unwrap_err().to_string();
        for part in [
            "web1:22",
            &fingerprint(&mine),
            &fingerprint(&other),
            file.to_str().unwrap(),
        ] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
        assert_eq!(
            read(Role::Jump).check(&other).unwrap(),
            Accepted::New {
                known_to_user: false
            },
            "the machine's pin says nothing about jump hosts"
        );
    }

    #[test]
    fn a_pin_that_another_process_made_meanwhile_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        let expected = Expected::read("web1", 22, Role::Machine, &file, None).unwrap();
        let (mine, other) = (key(), key());
        pin(&file, &other.to_openssh().unwrap()).unwrap();
        assert!(matches!(
            expected.pin(&mine, false),
            Err(Error::HostKeyChanged(_))
        ));
        assert!(expected.pin(&other, false).unwrap().is_none());
    }

    #[test]
    fn the_users_file_has_to_match() {
        let folder = tempfile::tempdir().unwrap();
        let (file, user) = (folder.path().join("pins"), folder.path().join("user"));
        let (mine, other) = (key(), key());
        fs_err::write(
            &user,
            format!("[web1]:2222 {}\n", mine.to_openssh().unwrap()),
        )
        .unwrap();
        let expected = Expected::read("web1", 2222, Role::Machine, &file, Some(&user)).unwrap();
        assert_eq!(
            expected.check(&mine).unwrap(),
            Accepted::New {
                known_to_user: true
            }
        );
        let error = expected.check(&other).unwrap_err().to_string();
        assert!(error.contains(user.to_str().unwrap()), "{error}");
    }

    #[test]
    fn the_kind_of_key_on_file_is_asked_for_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pins");
        pin(&file, &key().to_openssh().unwrap()).unwrap();
        let expected = Expected::read("web1", 22, Role::Machine, &file, None).unwrap();
        let defaults = [Algorithm::Rsa { hash: None }, Algorithm::Ed25519];
        assert_eq!(expected.algorithms(&defaults)[0], Algorithm::Ed25519);
    }
}
