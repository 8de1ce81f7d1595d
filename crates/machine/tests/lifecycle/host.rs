//! A host that does what it is told, a crash on demand, and a store in a temporary folder.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use windlass_machine::lifecycle::{Crash, Patience, Point, Steps};
use windlass_machine::{
    AccessError, CreateSpec, Engine, EngineKind, HostAccess, HostKeys, Lifecycle, Machine,
    MachineName, SqliteStore,
};
use windlass_provider::{Fake, LoginKey, OptionValues};

/// Hosts that answer at once; it counts what is left on this computer of each machine.
#[derive(Default)]
pub struct Hosts {
    keys: Mutex<BTreeSet<MachineName>>,
    pub refuse: Mutex<Option<&'static str>>,
    /// The digest of the engine that is installed today.
    pub engine: Mutex<Option<&'static str>>,
}

impl Hosts {
    /// Machines whose keys lie on this computer.
    pub fn keys(&self) -> Vec<String> {
        let keys = self.keys.lock().unwrap();
        keys.iter().map(ToString::to_string).collect()
    }

    fn check(&self, step: &'static str) -> Result<(), AccessError> {
        match *self.refuse.lock().unwrap() {
            Some(refused) if refused == step => Err(AccessError::new(format!("{step} is refused"))),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl HostAccess for Hosts {
    async fn prepare(&self, machine: &MachineName, _: &LoginKey) -> Result<HostKeys, AccessError> {
        self.check("prepare")?;
        self.keys.lock().unwrap().insert(machine.clone());
        Ok(HostKeys {
            authorized_key: "ssh-ed25519 AAAA".to_owned(),
            host_key: None,
            key_file: Some("machines/x/id_ed25519".into()),
        })
    }

    async fn connect(&self, _: &Machine) -> Result<(), AccessError> {
        self.check("connect")
    }

    async fn install(&self, _: &Machine) -> Result<Engine, AccessError> {
        self.check("install")?;
        Ok(Engine {
            kind: EngineKind::Bundled,
            version: "1".to_owned(),
            digest: self.engine.lock().unwrap().map(str::to_owned),
            socket: "/run/windlass/engine.sock".to_owned(),
        })
    }

    async fn forget(&self, machine: &MachineName) -> Result<(), AccessError> {
        self.check("forget")?;
        self.keys.lock().unwrap().remove(machine);
        Ok(())
    }
}

/// Crashes at one point.
pub struct CrashAt(pub Point);

impl Steps for CrashAt {
    fn reach(&self, point: Point) -> Result<(), Crash> {
        if point == self.0 { Err(Crash) } else { Ok(()) }
    }
}

/// A cloud, a store on disk and the hosts, all of which outlive a crash.
pub struct World {
    pub folder: tempfile::TempDir,
    pub cloud: Fake,
    pub hosts: Arc<Hosts>,
}

impl World {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            cloud: Fake::new(),
            hosts: Arc::new(Hosts::default()),
        }
    }

    /// A fresh process: the store is opened again.
    pub fn process(&self) -> Lifecycle {
        let store = Arc::new(SqliteStore::open(self.folder.path()).unwrap());
        let mut lifecycle = Lifecycle::new(store, self.hosts.clone());
        lifecycle.patience = Patience {
            lock: Duration::from_millis(50),
            boot: Duration::from_secs(5),
            poll: Duration::from_millis(1),
            tries: 3,
        };
        lifecycle
    }

    /// A process that dies at `point`.
    pub fn dying_at(&self, point: Point) -> Lifecycle {
        let mut lifecycle = self.process();
        lifecycle.steps = Arc::new(CrashAt(point));
        lifecycle
    }

    /// Every instance is known to the store, and the store has nothing that is lost.
    pub async fn assert_nothing_forgotten(&self) {
        let lifecycle = self.process();
        let machines = lifecycle.store.machines().await.unwrap();
        let intents = lifecycle.store.intents().await.unwrap();
        for instance in self.cloud.instances() {
            let known = machines.iter().any(|m| m.token == instance.token);
            let intended = intents.iter().any(|i| i.token == instance.token);
            assert!(known || intended, "{} is known to nobody", instance.id);
        }
        let orphans = lifecycle.orphans(&self.cloud).await.unwrap();
        assert!(orphans.unknown.is_empty(), "{orphans:?}");
    }
}

pub fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

pub fn spec(text: &str) -> CreateSpec {
    CreateSpec::new(name(text), OptionValues::new())
}
