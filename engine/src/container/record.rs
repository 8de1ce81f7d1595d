//! What is kept about a container, on disk and in memory.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use windlass_engine_api::types::{
    ContainerConfig, ContainerState, EndpointSettings, Health, HostConfig, NetworkingConfig,
    PortMap,
};

use super::clock;
use super::mounts::MountRecord;

/// How a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// It runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended, will start again.
    Restarting,
    /// Ended.
    Exited,
    /// Being removed.
    Removing,
    /// Could not be removed.
    Dead,
}

impl Status {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether a process is there.
    pub fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// The changing part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// How it stands.
    pub status: Status,
    /// Its anonymous volumes go with it; known once it is being removed.
    pub with_volumes: bool,
    /// The first process, seen from the host.
    pub pid: i32,
    /// Of the last run.
    pub exit_code: i64,
    /// Why it did not start.
    pub error: String,
    /// The kernel killed it for its memory.
    pub oom_killed: bool,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
    /// Automatic restarts.
    pub restart_count: i64,
    /// Somebody stopped or killed it: no restart.
    pub stopped_by_hand: bool,
    /// The boot of the host in which it was started.
    pub boot_id: String,
    /// What the health check says.
    pub health: Option<Health>,
    /// Its network namespace's file while it runs, if it has its own.
    pub netns: String,
    /// Its places in networks, by their names: while it runs, or when it last did.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Its place in its network as older engines wrote it.
    #[serde(skip_serializing)]
    endpoint: EndpointSettings,
    /// Published ports while it runs.
    pub ports: PortMap,
    /// Published ports of the last run.
    pub former_ports: PortMap,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            with_volumes: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: clock::NEVER.to_owned(),
            finished_at: clock::NEVER.to_owned(),
            restart_count: 0,
            stopped_by_hand: false,
            boot_id: String::new(),
            health: None,
            netns: String::new(),
            endpoints: BTreeMap::new(),
            endpoint: EndpointSettings::default(),
            ports: PortMap::new(),
            former_ports: PortMap::new(),
        }
    }
}

impl State {
    /// As the API shows it.
    pub fn to_wire(&self) -> ContainerState {
        let running = self.status.has_process() || self.status == Status::Restarting;
        ContainerState {
            status: self.status.as_str().to_owned(),
            running,
            paused: self.status == Status::Paused,
            restarting: self.status == Status::Restarting,
            oom_killed: self.oom_killed,
            dead: self.status == Status::Dead,
            pid: if self.status.has_process() {
                i64::from(self.pid)
            } else {
                0
            },
            exit_code: self.exit_code,
            error: self.error.clone(),
            started_at: self.started_at.clone(),
            finished_at: self.finished_at.clone(),
            health: self.health.clone(),
        }
    }
}

/// A container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Without slash.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// `sha256:…`.
    pub image_id: String,
    /// Merged with the image's defaults; `image` is what the user wrote.
    pub config: ContainerConfig,
    /// As asked for.
    pub host_config: HostConfig,
    /// Its networks, with what was asked for in each.
    pub networking: NetworkingConfig,
    /// They are all there; else (an older engine's record) the host configuration's mode names the only one.
    pub networks_settled: bool,
    /// Resolved.
    pub mounts: Vec<MountRecord>,
    /// The changing part.
    pub state: State,
}

/// The record's file in a container's folder.
pub const FILE: &str = "config.json";

impl Record {
    /// Program and arguments.
    pub fn command(&self) -> Vec<String> {
        let entrypoint = self
            .config
            .entrypoint
            .iter()
            .flatten()
            .filter(|w| !w.is_empty())
            .cloned();
        entrypoint
            .chain(self.config.cmd.iter().flatten().cloned())
            .collect()
    }

    /// Reads a container's folder.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        Self::load_from(&folder.join(FILE))
    }

    /// Reads a record's file.
    pub fn load_from(path: &Path) -> anyhow::Result<Self> {
        let mut record: Self = serde_json::from_slice(&fs::read(path)?)
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        let older = std::mem::take(&mut record.state.endpoint);
        if !older.network_id.is_empty() {
            let name = super::inspect::network_name(&record);
            record.state.endpoints.entry(name).or_insert(older);
        }
        Ok(record)
    }

    /// Writes it elsewhere, for root alone.
    pub fn save_as(&self, path: &Path) -> std::io::Result<()> {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        use std::io::Write as _;
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let temporary = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        let mut file = options.mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(&temporary, path)
    }

    /// Replaces the file as a whole; readers see the former or the new one.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        self.write(folder, |_| Ok(()))
    }

    /// [`Record::save`], and it is there after a power failure.
    pub fn save_durably(&self, folder: &Path) -> std::io::Result<()> {
        self.write(folder, |file| file.sync_all())?;
        fs::File::open(folder)?.sync_all()
    }

    fn write(
        &self,
        folder: &Path,
        sync: impl Fn(&fs::File) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        use fs_err::os::unix::fs::OpenOptionsExt as _;
        use std::io::Write as _;
        let temporary = folder.join("config.json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        sync(&file)?;
        fs::rename(&temporary, folder.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_older_files() {
        let dir = std::env::temp_dir().join(format!("windlass-record-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut record = Record {
            id: "ab".to_owned(),
            name: "n".to_owned(),
            ..Record::default()
        };
        record.config.cmd = Some(vec!["x".to_owned()]);
        record.config.entrypoint = Some(vec![String::new()]);
        record.save_durably(&dir).unwrap();
        let read = Record::load(&dir).unwrap();
        assert_eq!(
            (read.id.as_str(), read.command()),
            ("ab", vec!["x".to_owned()])
        );
        fs::write(dir.join(FILE), br#"{"id":"cd"}"#).unwrap();
        assert_eq!(Record::load(&dir).unwrap().state.started_at, clock::NEVER);
        fs::remove_dir_all(&dir).unwrap();
    }
}
