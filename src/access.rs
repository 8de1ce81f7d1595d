//! What the lifecycle needs done on hosts, over SSH and the installer.
//!
//! Everything of a machine lies in `<state>/machines/<name>`, kept to its owner. Deliberately absent: choices; the lifecycle makes them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use windlass_machine::{
    AccessError, Engine, EngineKind, HostAccess, HostKeys, Machine, MachineName,
};
use windlass_provider::LoginKey;
use windlass_ssh::keys::{self, KeyPair};

use crate::hosts::no_binaries;
use crate::progress::Progress;
use crate::sessions::{GIVEN_KEY, OWN_KEY, Sessions, limits};

/// The key that a new host will show, until the first login has checked it.
const HOST_KEY: &str = "host_key";
/// How long a host that we made may take until SSH answers.
const BOOTS_WITHIN: Duration = Duration::from_secs(300);
/// How long a host that existed before may refuse: it may be rebooting, but a wrong address must not cost minutes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Hosts over SSH.
pub struct Access {
    /// Where the binaries for hosts lie.
    pub binaries: Option<PathBuf>,
    /// One session a host.
    pub sessions: Arc<Sessions>,
    /// Told how an installation goes on.
    pub progress: Arc<Progress>,
}

impl Access {
    /// The machine's folder, made when absent, and its path as the record has it.
    fn folder(&self, name: &MachineName) -> Result<(PathBuf, PathBuf), AccessError> {
        let folder = self.sessions.folder(name);
        fs_err::create_dir_all(&folder).map_err(local)?;
        let owner_only = std::fs::Permissions::from_mode(0o700);
        fs_err::set_permissions(&folder, owner_only).map_err(local)?;
        Ok((folder, Path::new("machines").join(name.as_str())))
    }
}

#[async_trait]
impl HostAccess for Access {
    async fn prepare(
        &self,
        machine: &MachineName,
        key: &LoginKey,
    ) -> Result<HostKeys, AccessError> {
        let (folder, stored) = self.folder(machine)?;
        match key {
            LoginKey::Users => Ok(HostKeys {
                authorized_key: String::new(),
                host_key: None,
                key_file: folder
                    .join(GIVEN_KEY)
                    .is_file()
                    .then(|| stored.join(GIVEN_KEY)),
            }),
            LoginKey::File(given) => {
                let copy = folder.join(GIVEN_KEY);
                let text = std::fs::read_to_string(given).map_err(|error| {
                    AccessError::new(format!("key file {}: {error}", given.display()))
                })?;
                // Before it takes the place of one that may work.
                keys::check(given).map_err(|error| bad_key(given, error))?;
                keys::write_private(&copy, &text).map_err(ssh_error)?;
                Ok(HostKeys {
                    authorized_key: String::new(),
                    host_key: None,
                    key_file: Some(stored.join(GIVEN_KEY)),
                })
            }
            LoginKey::PerMachine => Ok(HostKeys {
                authorized_key: login_key(&folder, machine)?,
                host_key: Some(host_key(&folder, machine)?),
                key_file: Some(stored.join(OWN_KEY)),
            }),
        }
    }

    async fn connect(&self, machine: &Machine) -> Result<(), AccessError> {
        self.sessions.close(&machine.name);
        let ours = machine
            .key_file
            .as_deref()
            .is_some_and(|key| key.ends_with(OWN_KEY));
        let patience = if ours { BOOTS_WITHIN } else { ANSWERS_WITHIN };
        let session = self.sessions.wait(machine, limits(patience)).await;
        session.map_err(ssh_error)?;
        // The pin stays; the private half has served.
        let key = self.sessions.folder(&machine.name).join(HOST_KEY);
        remove(fs_err::remove_file(key))
    }

    async fn install(&self, machine: &Machine) -> Result<Engine, AccessError> {
        let Some(folder) = &self.binaries else {
            return Err(no_binaries());
        };
        let session = self.sessions.session(machine).await.map_err(ssh_error)?;
        let binaries = windlass_install::Binaries::new(folder);
        let mut told = None;
        let mut tell = |step: windlass_install::Progress| {
            let note = note(&step);
            if let Some(text) = note.as_ref().filter(|_| note != told) {
                self.progress.note(machine.name.as_str(), "install", text);
                told.clone_from(&note);
            }
        };
        let installed = windlass_install::install(&session, &binaries, &mut tell).await;
        let installed = installed.map_err(install_error)?;
        if let Some(docker) = &installed.docker {
            self.progress.line(&format!(
                "note: {} runs Docker too ({docker}); it is left alone, and the bundled engine works beside it",
                machine.name
            ));
        }
        Ok(Engine {
            kind: EngineKind::Bundled,
            version: installed.version,
            digest: Some(installed.digest),
            socket: installed.socket,
        })
    }

    async fn forget(&self, machine: &MachineName) -> Result<(), AccessError> {
        self.sessions.close(machine);
        remove(fs_err::remove_dir_all(self.sessions.folder(machine)))
    }
}

fn note(step: &windlass_install::Progress) -> Option<String> {
    use windlass_install::Progress as Step;
    Some(match step {
        Step::Probing => "looking at the host".to_owned(),
        Step::Uploading { sent, total } => {
            let percent = (sent * 20).checked_div(*total).unwrap_or(20) * 5;
            format!("{percent} % of {:.1} MB sent", *total as f64 / 1e6)
        }
        Step::Starting => "starting the engine".to_owned(),
        Step::Waiting => "waiting for the engine".to_owned(),
        Step::Restoring => "putting the former engine back".to_owned(),
        _ => return None,
    })
}

fn install_error(error: windlass_install::Error) -> AccessError {
    AccessError {
        message: error.to_string(),
        hint: error.hint(),
        source: below(&error),
    }
}

/// The public line of the machine's own key, made the first time.
fn login_key(folder: &Path, machine: &MachineName) -> Result<String, AccessError> {
    let file = folder.join(OWN_KEY);
    if file.is_file() {
        let private = fs_err::read_to_string(&file).map_err(local)?;
        return keys::public_line(&private).map_err(ssh_error);
    }
    let pair = KeyPair::generate(&format!("windlass {machine}")).map_err(ssh_error)?;
    pair.write(&file).map_err(ssh_error)?;
    Ok(pair.public)
}

/// The host's private key, pinned before the host exists.
fn host_key(folder: &Path, machine: &MachineName) -> Result<String, AccessError> {
    let file = folder.join(HOST_KEY);
    let private = if file.is_file() {
        fs_err::read_to_string(&file).map_err(local)?
    } else {
        let pair = KeyPair::generate(machine.as_str()).map_err(ssh_error)?;
        keys::write_private(&file, pair.private()).map_err(ssh_error)?;
        pair.private().to_owned()
    };
    let public = keys::public_line(&private).map_err(ssh_error)?;
    windlass_ssh::pin(&folder.join("known_hosts"), &public).map_err(ssh_error)?;
    Ok(private)
}

fn remove(done: std::io::Result<()>) -> Result<(), AccessError> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(local(error)),
        _ => Ok(()),
    }
}

fn local(error: std::io::Error) -> AccessError {
    AccessError::new(error.to_string())
}

/// The message names the file that the user gave, and not our copy.
fn bad_key(given: &Path, error: windlass_ssh::Error) -> AccessError {
    match error {
        windlass_ssh::Error::KeyFile { problem, .. } => {
            AccessError::new(format!("key file {}: {problem}", given.display()))
        }
        other => ssh_error(other),
    }
}

/// With its hint, and its causes as source.
pub fn ssh_error(error: windlass_ssh::Error) -> AccessError {
    AccessError {
        message: error.to_string(),
        hint: error.hint(),
        source: below(&error),
    }
}

/// The cause below, as text: the error itself is the message already.
fn below(error: &dyn std::error::Error) -> Option<Box<dyn std::error::Error + Send + Sync>> {
    let mut parts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        parts.push(cause.to_string());
        next = cause.source();
    }
    parts.dedup();
    (!parts.is_empty()).then(|| parts.join(": ").into())
}
