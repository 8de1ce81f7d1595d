//! One SSH session a host, and what it needs from the user's computer: keys, agent, `~/.ssh/config`, pinned host keys.
//!
//! Machines whose key we made are reached by exactly what the record says. Hosts that the user gave are reached as the user's own
//! `ssh` would. Deliberately absent: the protocol itself, see `windlass-ssh`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use windlass_engine_api::Dial;
use windlass_machine::{EngineKind, Machine, MachineName};
use windlass_ssh::{
    ClientConfig, Command, Destination, Error, FirstUse, Session, WaitLimits, wait_until_up,
};

use crate::environment;
use crate::progress::Progress;

/// The key that we made for a machine, in its folder.
pub const OWN_KEY: &str = "id_ed25519";
/// The key that the user gave, copied.
pub const GIVEN_KEY: &str = "id_given";

/// Sessions by machine.
pub struct Sessions {
    home: PathBuf,
    progress: Arc<Progress>,
    config: OnceLock<ClientConfig>,
    open: Mutex<HashMap<MachineName, Slot>>,
}

/// A session, and where it goes: a machine that has moved gets a new one.
struct Slot {
    target: (String, u16, String),
    session: Arc<OnceCell<Session>>,
}

impl Sessions {
    /// None is open yet.
    pub fn new(home: PathBuf, progress: Arc<Progress>) -> Self {
        Self {
            home,
            progress,
            config: OnceLock::new(),
            open: Mutex::default(),
        }
    }

    /// A machine's own folder: keys, pins, logs.
    pub fn folder(&self, name: &MachineName) -> PathBuf {
        self.home.join("machines").join(name.as_str())
    }

    /// The session with a machine; connects the first time.
    pub async fn session(&self, machine: &Machine) -> Result<Session, Error> {
        let cell = self.cell(machine);
        let connect = || async {
            let destination = self.destination(machine)?;
            Session::connect(&destination, &self.teller(&machine.name)).await
        };
        cell.get_or_try_init(connect).await.cloned()
    }

    /// Like [`Sessions::session`], with a host that may still be starting.
    pub async fn wait(&self, machine: &Machine, limits: WaitLimits) -> Result<Session, Error> {
        let cell = self.cell(machine);
        let wait = || async {
            let destination = self.destination(machine)?;
            wait_until_up(&destination, limits, &self.teller(&machine.name)).await
        };
        cell.get_or_try_init(wait).await.cloned()
    }

    /// A unix socket of a machine.
    pub async fn socket(&self, machine: &Machine, path: &str) -> Result<Arc<dyn Dial>, Error> {
        Ok(self.session(machine).await?.unix_socket(path))
    }

    /// A machine's engine.
    pub async fn engine(&self, machine: &Machine) -> Result<Arc<dyn Dial>, Error> {
        let session = self.session(machine).await?;
        Ok(match &machine.engine {
            Some(engine) if engine.kind == EngineKind::Adopted => {
                let bridge = Command::new(["docker", "system", "dial-stdio"]).as_root();
                session.unix_socket_with(engine.socket.clone(), bridge)
            }
            Some(engine) => session.unix_socket(engine.socket.clone()),
            None => session.unix_socket("/run/windlass/engine.sock"),
        })
    }

    /// Lets go of a machine that is gone or has been restarted.
    pub fn close(&self, name: &MachineName) {
        self.slots().remove(name);
    }

    fn cell(&self, machine: &Machine) -> Arc<OnceCell<Session>> {
        let address = machine.address.clone().unwrap_or_default();
        let target = (address, machine.ssh_port, machine.ssh_user.clone());
        let mut open = self.slots();
        let slot = open.entry(machine.name.clone()).or_insert_with(|| Slot {
            target: target.clone(),
            session: Arc::default(),
        });
        if slot.target != target {
            *slot = Slot {
                target,
                session: Arc::default(),
            };
        }
        slot.session.clone()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<MachineName, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn teller(&self, name: &MachineName) -> impl Fn(&FirstUse) + Send + Sync {
        let (progress, name) = (self.progress.clone(), name.clone());
        move |first| {
            let known = if first.known_to_user {
                "as your known_hosts has it"
            } else {
                "seen for the first time"
            };
            progress.line(&format!(
                "{name}: pinned the host key of {}: {} {} ({known})",
                first.address, first.algorithm, first.fingerprint
            ));
        }
    }

    fn destination(&self, machine: &Machine) -> Result<Destination, Error> {
        let folder = self.folder(&machine.name);
        let address = machine.address.clone().unwrap_or_default();
        let mut destination = Destination::new(address, folder.join("known_hosts"));
        let key = machine.key_file.as_ref().map(|key| self.home.join(key));
        let own = key.as_deref().is_some_and(is_own);
        destination.keys.extend(key);
        if own {
            destination.user = Some(machine.ssh_user.clone());
            destination.port = Some(machine.ssh_port);
            return Ok(destination);
        }
        // The defaults of the options leave room for what ~/.ssh/config says.
        destination.user = Some(machine.ssh_user.clone()).filter(|user| user != "root");
        destination.port = Some(machine.ssh_port).filter(|port| *port != 22);
        destination.agent = environment::variable("SSH_AUTH_SOCK").map(PathBuf::from);
        destination.config = self.client_config()?;
        destination.user_known_hosts = environment::user_home()
            .map(|home| home.join(".ssh/known_hosts"))
            .filter(|file| file.is_file());
        Ok(destination)
    }

    fn client_config(&self) -> Result<ClientConfig, Error> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let Some(home) = environment::user_home() else {
            return Ok(ClientConfig::default());
        };
        let text = match fs_err::read_to_string(home.join(".ssh/config")) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(Error::File {
                    what: "cannot read the SSH client configuration".to_owned(),
                    source,
                });
            }
        };
        let user = environment::variable("USER").unwrap_or_else(|| "root".to_owned());
        let config = ClientConfig::parse(&text, &home, &user).map_err(Error::Config)?;
        Ok(self.config.get_or_init(|| config).clone())
    }
}

/// How long a host that we made may take, and one that exists.
pub fn limits(total: Duration) -> WaitLimits {
    WaitLimits {
        total,
        ..WaitLimits::default()
    }
}

fn is_own(key: &Path) -> bool {
    key.file_name().is_some_and(|name| name == OWN_KEY)
}
