//! What containers need of the engine's other parts: images, the runtime, the network, volumes.
//!
//! The rest of `container` and `http` sees these traits only, so that it is tested without root; `main` puts the real parts in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use windlass_engine_api::types::{
    Change, ContainerConfig, CreateNetwork, EndpointSettings, HistoryItem, HostConfig,
    ImageDeleted, ImageSummary, NetworkInspect, PortMap, Progress, StringMap, Volume,
};
use windlass_engine_api::{Filters, Frame, RegistryAuth};

use super::error::Result;
use super::mounts::MountRecord;
pub use crate::image::{ImageUser, RemovalOptions};
use crate::userns::{Maps, Remap};

/// A stream of bytes from somewhere.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// A stream of bytes to somewhere; shutting it down is the end of the input.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;
/// Where the lines of a pull, load or build go.
pub type ProgressSink = mpsc::Sender<Progress>;

/// An image, as far as a container needs it.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// Its defaults.
    pub config: ContainerConfig,
}

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ImageQuery {
    /// Those between an image and its base, too.
    pub all: bool,
    /// Count what an image shares with others.
    pub shared_size: bool,
    /// Filters.
    pub filters: Filters,
}

/// What happened to an image, for those who listen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageEvent {
    /// `untag`, `delete`.
    pub action: &'static str,
    /// The image.
    pub id: String,
    /// Its labels and name.
    pub attributes: StringMap,
}

/// What a removal of images did.
#[derive(Debug, Clone, Default)]
pub struct ImagesRemoved {
    /// For the client.
    pub deleted: Vec<ImageDeleted>,
    /// For those who listen.
    pub events: Vec<ImageEvent>,
    /// Bytes.
    pub won: i64,
}

/// An image to fetch.
#[derive(Debug, Clone, Default)]
pub struct Pull {
    /// As the client wrote it; with neither tag nor digest all tags are meant.
    pub reference: String,
    /// Credentials.
    pub auth: Option<RegistryAuth>,
    /// `os/architecture`.
    pub platform: Option<String>,
}

/// An image to make from an archive of files.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Its name.
    pub name: Option<String>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// For its history.
    pub message: String,
    /// `os/architecture`.
    pub platform: Option<String>,
}

/// An image to make from a container.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Its id.
    pub container: String,
    /// The image that it was made from.
    pub image: String,
    /// Its configuration, which becomes the image's.
    pub config: ContainerConfig,
    /// Its command, for the history.
    pub command: String,
    /// The image's name.
    pub name: Option<String>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Free text.
    pub comment: String,
    /// Free text.
    pub author: String,
}

/// The images on this host and the root file systems made from them.
#[async_trait]
pub trait Images: Send + Sync {
    /// By name, id, or a prefix of the id; not found is [`super::error::Kind::NotFound`] with `No such image: …`.
    fn find(&self, reference: &str) -> Result<Image>;
    /// Those that pass, the newest first.
    fn list(&self, query: &ImageQuery) -> Result<Vec<ImageSummary>>;
    /// Bytes of all layers, each counted once.
    fn layers_size(&self) -> Result<i64>;
    /// In full, as the newest clients are told.
    fn inspect(&self, reference: &str) -> Result<serde_json::Value>;
    /// Its steps, newest first.
    fn history(&self, reference: &str) -> Result<Vec<HistoryItem>>;
    /// Pulls; an error before the first line (unknown image, wrong password) becomes the request's status.
    async fn pull(&self, wanted: Pull, progress: ProgressSink) -> Result<()>;
    /// Pushes one tag of a repository, or all of them.
    async fn push(
        &self,
        repository: &str,
        tag: Option<&str>,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<()>;
    /// Loads an archive of `docker save` or an OCI layout; the answer is the images' ids.
    async fn load(&self, archive: Reader, progress: ProgressSink) -> Result<Vec<String>>;
    /// Makes an image of one layer from an archive of files; the answer is its id.
    async fn import(&self, archive: Reader, wanted: Import) -> Result<String>;
    /// Makes an image of what a container wrote; the answer is its id.
    async fn commit(&self, wanted: Commit) -> Result<String>;
    /// An archive of images, and their ids.
    async fn save(&self, references: Vec<String>) -> Result<(Reader, Vec<String>)>;
    /// Gives another name; the answer is the image's id.
    fn tag(&self, reference: &str, name: &str) -> Result<String>;
    /// Removes a name, and the image with its last one.
    async fn remove(
        &self,
        reference: &str,
        options: RemovalOptions,
        users: Vec<ImageUser>,
    ) -> Result<ImagesRemoved>;
    /// Removes images that pass the filters and that no container was made from.
    async fn prune(&self, filters: Filters, users: Vec<ImageUser>) -> Result<ImagesRemoved>;
    /// Whether the registry takes these credentials.
    async fn login(&self, auth: &RegistryAuth) -> Result<String>;
    /// What a registry says of an image, without pulling it.
    async fn distribution(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<serde_json::Value>;
    /// What an index finds: `{name, description, …}` each.
    async fn search(
        &self,
        term: &str,
        limit: i64,
        auth: Option<RegistryAuth>,
    ) -> Result<Vec<serde_json::Value>>;
    /// Mounts a container's root file system (making its writable layer at the first time); mounted already is success.
    /// With `remap` its files' owners are shifted.
    async fn mount(
        &self,
        container: &str,
        image_id: &str,
        remap: Option<Arc<Remap>>,
    ) -> Result<PathBuf>;
    /// Unmounts it; the writable layer stays. Not mounted is success.
    async fn unmount(&self, container: &str) -> Result<()>;
    /// Unmounts it and removes the writable layer.
    async fn discard(&self, container: &str) -> Result<()>;
    /// The containers (and others) that have a writable layer.
    fn root_file_systems(&self) -> Result<Vec<String>>;
    /// Bytes in a container's writable layer; none yet is 0.
    fn written(&self, container: &str) -> Result<i64>;
    /// The folders of a container's root file system, by Docker's names for them.
    fn folders(&self, container: &str, image_id: &str) -> StringMap;
    /// What differs from the image.
    async fn changes(&self, container: &str) -> Result<Vec<Change>>;
}

/// A process to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ProcessSpec {
    /// Program and arguments; the program is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`; `HOME` is added when it is missing.
    pub env: Vec<String>,
    /// Empty: `/`. Made when it is missing.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up in the container's files.
    pub user: String,
    /// Additional groups.
    pub groups: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// Its first size: rows and columns.
    pub size: Option<(u16, u16)>,
    /// Input may be sent; else it is `/dev/null`.
    pub stdin: bool,
    /// With all capabilities.
    pub privileged: bool,
}

/// A mount, ready: its source exists on the host.
#[derive(Debug, Clone, Default)]
pub struct MountSpec {
    /// What was asked for; `kind` is `bind`, `volume` (a bind of the volume's folder) or `tmpfs`.
    pub record: MountRecord,
    /// The source on the host; empty for tmpfs.
    pub source: PathBuf,
}

/// Which network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Netns {
    /// A new one with loopback only.
    #[default]
    None,
    /// The host's.
    Host,
    /// This one (`/run/…/netns/…` or `/proc/PID/ns/net`).
    Path(PathBuf),
}

/// A container to run.
#[derive(Debug, Clone, Default)]
pub struct RunSpec {
    /// Its id.
    pub id: String,
    /// The engine's folder for it; the runtime keeps what it likes in `shim/`.
    pub folder: PathBuf,
    /// Its root file system, mounted.
    pub rootfs: PathBuf,
    /// The first process.
    pub process: ProcessSpec,
    /// Its name on the network.
    pub hostname: String,
    /// And domain.
    pub domainname: String,
    /// Resources, capabilities, devices, namespaces as asked for; unset values mean Docker's defaults.
    pub host: HostConfig,
    /// Volumes, binds, tmpfs, and `/etc/{hosts,hostname,resolv.conf}`.
    pub mounts: Vec<MountSpec>,
    /// Its network.
    pub netns: Netns,
    /// For `PidMode` and `IpcMode` of `container:…`: the first process of that container.
    pub pid_of: Option<i32>,
    /// See [`RunSpec::pid_of`].
    pub ipc_of: Option<i32>,
    /// Where the output is kept: `{"log","stream","time"}` lines, rotated by `LogConfig`.
    pub log_path: PathBuf,
    /// Kept with each line: the labels, variables and the tag that the log's options name.
    pub log_attributes: StringMap,
    /// Fields of each entry in the host's journal; `None`: nothing goes there.
    pub journal: Option<StringMap>,
    /// In a user namespace with these ids; `None`: the host's.
    pub user: Option<Maps>,
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// 0–255, 128 + signal.
    pub code: i64,
    /// The kernel killed it for its memory.
    pub oom_killed: bool,
    /// RFC 3339; empty: now.
    pub at: String,
}

/// Both directions of a process' terminal or pipes.
pub struct Attachment {
    /// Input, if it takes any.
    pub stdin: Option<Writer>,
    /// Output from now on; ends with the process.
    pub output: mpsc::Receiver<Frame>,
}

/// Runs containers; each outlives the engine.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes the container up to the point before its program starts; the answer is its first process.
    async fn create(&self, spec: &RunSpec) -> Result<i32>;
    /// Lets the program start. An error's text has `executable file not found` or `permission denied` where it applies.
    async fn start(&self, id: &str) -> Result<()>;
    /// Waits for its end, also when that was while the engine was away. `NotFound`: nothing is known about it.
    async fn wait(&self, id: &str) -> Result<Exit>;
    /// The first process, while it runs.
    async fn alive(&self, id: &str) -> Option<i32>;
    /// Sends a signal to the first process.
    async fn signal(&self, id: &str, signal: i32) -> Result<()>;
    /// Freezes all its processes.
    async fn pause(&self, id: &str) -> Result<()>;
    /// Lets them go on.
    async fn resume(&self, id: &str) -> Result<()>;
    /// Writes the limits of a running container anew.
    async fn update(&self, id: &str, host: &HostConfig) -> Result<()>;
    /// Connects to the first process, from [`Runtime::create`] on, any number of times at once.
    async fn attach(&self, id: &str) -> Result<Attachment>;
    /// Sets the terminal's size; `exec` is that of an exec, else of the first process.
    async fn resize(&self, id: &str, exec: Option<&str>, rows: u16, columns: u16) -> Result<()>;
    /// Runs a further process; the answer is its number on the host and its streams.
    async fn exec(&self, id: &str, exec: &str, process: &ProcessSpec) -> Result<(i32, Attachment)>;
    /// Sends it a signal.
    async fn signal_exec(&self, id: &str, exec: &str, signal: i32) -> Result<()>;
    /// Waits for its end.
    async fn wait_exec(&self, id: &str, exec: &str) -> Result<Exit>;
    /// The ids of everything that was created and not deleted.
    fn known(&self) -> Result<Vec<String>>;
    /// Ends what is left of it and forgets it; nothing there is success.
    async fn delete(&self, id: &str) -> Result<()>;
}

/// What a container wants of one network.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// The network's name or id.
    pub network: String,
    /// Names by which others find it.
    pub names: Vec<String>,
    /// Names by which it alone finds others, each with the other's name or id.
    pub links: Vec<(String, String)>,
    /// A wanted IPv4 address.
    pub v4: Option<String>,
    /// A wanted IPv6 address.
    pub v6: Option<String>,
    /// A wanted hardware address.
    pub mac: Option<String>,
    /// Where the highest one is, the way out is.
    pub priority: i64,
    /// Of the driver.
    pub options: StringMap,
    /// The IPv4 address of its last run, taken again while it is free.
    pub former_v4: Option<String>,
    /// The same for IPv6.
    pub former_v6: Option<String>,
}

/// What a container wants of the networks.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// Its id.
    pub container: String,
    /// In the order of its interfaces.
    pub joins: Vec<Join>,
    /// Container port → wanted bindings; an empty host port means that the network chooses.
    pub ports: PortMap,
    /// What it had before: a port that the network chose is taken again while it is free, so that others still find it.
    pub former_ports: PortMap,
    /// CIDRs that may reach the published ports; `None`: everybody.
    pub publish_from: Option<Vec<String>>,
    /// Name servers of its own.
    pub dns: Vec<String>,
    /// Its namespace belongs to a user namespace with these ids.
    pub user: Option<Maps>,
}

/// What it got.
#[derive(Debug, Clone, Default)]
pub struct Connected {
    /// Its namespace.
    pub netns: PathBuf,
    /// Addresses, by the network's name.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// With the chosen host ports.
    pub ports: PortMap,
    /// A name server for `/etc/resolv.conf`, if a network has one; else the host's are used.
    pub nameserver: Option<String>,
}

impl Connected {
    /// Of all networks that have a way out, the first one's: where the host itself is.
    pub fn gateway(&self) -> Option<&str> {
        let mut all = self.endpoints.values().map(|e| e.gateway.as_str());
        all.find(|g| !g.is_empty())
    }

    /// Its first IPv4 address.
    pub fn address(&self) -> Option<&str> {
        let mut all = self.endpoints.values().map(|e| e.ip_address.as_str());
        all.find(|a| !a.is_empty())
    }
}

/// Bridges, addresses, published ports.
#[async_trait]
pub trait Networks: Send + Sync {
    /// All: `bridge`, `host`, `none` and the users'.
    fn list(&self) -> Vec<NetworkInspect>;
    /// By name, id, or a prefix of the id.
    fn find(&self, reference: &str) -> Result<NetworkInspect>;
    /// Makes one; the answer is its id.
    async fn create(&self, wanted: CreateNetwork) -> Result<String>;
    /// Removes one without containers.
    async fn remove(&self, reference: &str) -> Result<()>;
    /// Makes a namespace with addresses, and publishes ports. A taken port is `… port is already allocated`.
    async fn connect(&self, wanted: &Connect) -> Result<Connected>;
    /// Brings a running container into further networks; the answer is what it has then.
    async fn join(&self, wanted: &Connect) -> Result<Connected>;
    /// Takes a running container out of a network; the answer is what it still has.
    async fn leave(&self, container: &str, network: &str) -> Result<Connected>;
    /// The container is called so from now on; it keeps what it has.
    fn renamed(&self, _wanted: &Connect) {}
    /// Takes everything back; nothing there is success.
    async fn disconnect(&self, container: &str) -> Result<()>;
    /// After the engine's start: these containers run and keep what they have; everything else is taken back.
    async fn adopt(&self, running: &[(Connect, Connected)]) -> Result<()>;
    /// Before the engine's end: where no container is connected, nothing is left on the host.
    async fn rest(&self) -> Result<()> {
        Ok(())
    }
}

/// Named folders that outlive containers.
pub trait Volumes: Send + Sync {
    /// All.
    fn list(&self) -> Result<Vec<Volume>>;
    /// One.
    fn find(&self, name: &str) -> Result<Volume>;
    /// Makes one, or answers the one there is; an empty name is chosen.
    fn create(&self, name: &str, labels: StringMap, options: StringMap) -> Result<Volume>;
    /// Removes one; the caller has checked that no container uses it.
    fn remove(&self, name: &str) -> Result<()>;
    /// Mounts what its options name, unless that is done, for this user too. May wait for a server; plain folders need nothing.
    fn mount(&self, name: &str, user: &str) -> Result<()>;
    /// Lets go of it; the last user's end unmounts it. The answer is whether it was a user.
    fn unmount(&self, name: &str, user: &str) -> Result<bool>;
    /// After the engine's start, when all users are known: what nobody uses is unmounted.
    fn settle(&self) -> Result<()>;
    /// Lets `copy` fill its folder if that is empty; on failure it stays empty, unless somebody other than `user` uses it.
    fn fill(
        &self,
        name: &str,
        user: &str,
        copy: &mut dyn FnMut(&std::path::Path) -> std::io::Result<()>,
    ) -> Result<()>;
}

/// A step of a build that runs a command, and what the builder needs of it.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The query's parameters as they came.
    pub parameters: Vec<(String, String)>,
    /// Credentials by registry.
    pub auth: std::collections::BTreeMap<String, RegistryAuth>,
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// The image.
    pub id: String,
    /// The names that it got.
    pub names: Vec<String>,
}

/// What of the builds' cache is to go.
#[derive(Debug, Clone, Default)]
pub struct PruneBuild {
    /// The images of steps that nothing came of, too.
    pub all: bool,
    /// Stop when no more than this is left; 0: nothing needs to be left.
    pub keep_bytes: u64,
    /// `until`, `unused-for`, `id`, `type`.
    pub filters: windlass_engine_api::Filters,
}

/// A part of the builds' cache, in Docker's words.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct CacheItem {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Type")]
    pub kind: String,
    pub description: String,
    pub in_use: bool,
    pub shared: bool,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: String,
    pub usage_count: i64,
}

/// Builds images from a context archive.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Builds; a failed `RUN` is reported to the sink as `errorDetail` with its code, and nothing was made.
    async fn build(
        &self,
        request: BuildRequest,
        context: Reader,
        progress: ProgressSink,
    ) -> Result<Option<Built>>;
    /// Removes what no build uses now; the names of it, and the bytes.
    async fn prune(&self, wanted: PruneBuild) -> Result<(Vec<String>, u64)>;
    /// What is kept for builds to come.
    async fn cache(&self) -> Result<Vec<CacheItem>>;
}

/// Bytes read at once when streaming.
pub const CHUNK: usize = 32 * 1024;
