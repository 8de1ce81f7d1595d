//! The engine's side: starts shims, talks with them, takes away what they leave.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fs_err as fs;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use windlass_engine_api::types::HostConfig;

use super::cgroup::{Frozen, Group};
use super::client::{self, Connection};
use super::hold::EXIT;
use super::sys::{self, Recursive};
use super::task::{Confinement, ExitRecord, Place, Request, Task};
use super::{SHIM, limits, plan};

use crate::container::error::{Error, Result};
use crate::container::parts::{Attachment, Exit, ProcessSpec, RunSpec, Runtime, Writer};

/// What later calls must know of a container.
const STATE: &str = "state.json";
/// For everything that the kernel and the shims do at once.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct State {
    cgroup: String,
    confinement: Confinement,
    stdin: bool,
}

/// Runs containers on this host.
#[derive(Debug, Clone)]
pub struct LocalRuntime {
    folder: PathBuf,
    program: Arc<Program>,
}

/// The shims' program: a read-only view of it, so that no container can write it through `/proc/self/exe`.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    view: Option<OwnedFd>,
}

impl Program {
    fn new(path: PathBuf) -> Self {
        let view = std::ffi::CString::new(path.as_os_str().as_bytes())
            .ok()
            .and_then(|path| sys::detached_mount(&path).ok())
            .filter(|view| sys::make_read_only(view.as_fd(), Recursive::No).is_ok());
        if view.is_none() {
            tracing::warn!(
                "this kernel (before 5.12?) gives no read-only view of the engine's program; containers' access to it is guarded by the kernel's text-busy check alone"
            );
        }
        Self { path, view }
    }

    fn command(&self) -> Command {
        match &self.view {
            Some(view) => Command::new(format!("/proc/self/fd/{}", view.as_raw_fd())),
            None => Command::new(&self.path),
        }
    }
}

impl LocalRuntime {
    /// `run` is the engine's folder of what lasts until the next boot; shims are this very program.
    pub fn open(run: &Path) -> anyhow::Result<Self> {
        Self::open_with(run, PathBuf::from("/proc/self/exe"))
    }

    /// With another program for the shims.
    pub fn open_with(run: &Path, shim_program: PathBuf) -> anyhow::Result<Self> {
        let folder = run.join(SHIM);
        make_folder(&folder)?;
        Ok(Self {
            folder: fs::canonicalize(folder)?,
            program: Arc::new(Program::new(shim_program)),
        })
    }

    fn of(&self, id: &str) -> Result<PathBuf> {
        if id.is_empty() || id.contains('/') || id.starts_with('.') {
            return Err(Error::invalid(format!("bad id '{id}'")));
        }
        Ok(self.folder.join(id))
    }

    fn of_exec(&self, id: &str, exec: &str) -> Result<PathBuf> {
        if exec.is_empty() || exec.contains('/') || exec.starts_with('.') {
            return Err(Error::invalid(format!("bad id '{exec}'")));
        }
        Ok(self.of(id)?.join("exec").join(exec))
    }

    fn state(&self, id: &str) -> Result<State> {
        let text = fs::read(self.of(id)?.join(STATE)).map_err(|e| gone(id, e))?;
        Ok(serde_json::from_slice(&text).map_err(std::io::Error::from)?)
    }

    async fn group(&self, id: &str) -> Result<Group> {
        Ok(Group::at(&self.state(id)?.cgroup)?)
    }

    /// Starts a shim and hands it its task; the answer is its process and the connection.
    async fn launch(&self, folder: &Path, task: &Task) -> Result<(i32, Connection)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let log = fs::File::create(folder.join("shim.log"))?;
        let mut command = self.program.command();
        command.arg0("windlass-shim").arg(SHIM).arg(folder);
        command.env_clear().stdin(OwnedFd::from(theirs));
        command.stdout(Stdio::null()).stderr(log.into_parts().0);
        let program = Arc::clone(&self.program);
        // The started process forks the shim and ends at once.
        let started = tokio::task::spawn_blocking(move || {
            let status = command.status();
            drop((program, command));
            status
        });
        let status = started
            .await
            .map_err(|e| Error::message(format!("start the shim: {e}")))?
            .map_err(|e| Error::message(format!("start the shim: {e}")))?;
        if !status.success() {
            return Err(Error::message(format!(
                "start the shim: it failed with {status}"
            )));
        }
        ours.set_nonblocking(true)?;
        let mut connection = BufReader::with_capacity(16 * 1024, UnixStream::from_std(ours)?);
        let mut line = serde_json::to_vec(task).map_err(std::io::Error::from)?;
        line.push(b'\n');
        connection.get_mut().write_all(&line).await?;
        let reply = client::reply(&mut connection).await.map_err(|e| {
            let words = fs::read_to_string(folder.join("shim.log")).unwrap_or_default();
            Error::message(format!("{e} {}", words.trim()))
        })?;
        match reply.error {
            Some(error) => Err(Error::message(format!(
                "unable to start container process: {error}"
            ))),
            None => Ok((reply.pid, connection)),
        }
    }

    /// Asks the shim of a container; without one it is not found.
    async fn ask(&self, id: &str, folder: &Path, request: &Request) -> Result<()> {
        let reply = client::ask(folder, request)
            .await
            .map_err(|e| gone(id, e))?;
        reply
            .error
            .map_or(Ok(()), |error| Err(Error::message(error)))
    }

    async fn ended(&self, id: &str, folder: &Path) -> Result<Exit> {
        match client::ask(folder, &Request::Wait).await {
            Ok(reply) => {
                if let Some(exit) = reply.exit {
                    return Ok(of_record(exit));
                }
            }
            Err(error) if client::is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
        // The shim has ended; it recorded first.
        let text = fs::read(folder.join(EXIT)).map_err(|e| gone(id, e))?;
        let record = serde_json::from_slice(&text).map_err(std::io::Error::from)?;
        Ok(of_record(record))
    }
}

fn of_record(record: ExitRecord) -> Exit {
    Exit {
        code: record.code,
        oom_killed: record.oom_killed,
        at: record.at,
    }
}

fn gone(id: &str, error: std::io::Error) -> Error {
    if client::is_gone(&error) {
        Error::not_found(format!("container {id} is not running"))
    } else {
        error.into()
    }
}

/// For root alone.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Shims whose processes have just been killed may still write their last records into it.
fn remove_folder(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match fs::remove_dir_all(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !folder.exists() => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(e.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::message(e.to_string()))?
}

fn freeze(group: &Group) -> Result<()> {
    group.set_frozen(Frozen::Yes)?;
    let deadline = Instant::now() + TIMEOUT;
    while !group.is_frozen()? {
        if Instant::now() > deadline {
            group.set_frozen(Frozen::No)?;
            return Err(Error::message(
                "cannot pause the container: a process hangs in the kernel",
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

async fn writer(folder: &Path, wanted: bool) -> std::io::Result<Option<Writer>> {
    if !wanted {
        return Ok(None);
    }
    let input = client::input(folder).await?;
    Ok(input.map(|input| Box::pin(input) as Writer))
}

#[async_trait]
impl Runtime for LocalRuntime {
    async fn create(&self, spec: &RunSpec) -> Result<i32> {
        let task = plan::container(spec)?;
        let folder = self.of(&spec.id)?;
        self.delete(&spec.id).await?;
        make_folder(&folder)?;
        let state = State {
            cgroup: task.cgroup.clone(),
            confinement: task.confinement.clone(),
            stdin: spec.process.stdin,
        };
        let text = serde_json::to_vec(&state).map_err(std::io::Error::from)?;
        fs::write(folder.join(STATE), text)?;
        match self.launch(&folder, &task).await {
            Ok((pid, _)) => Ok(pid),
            Err(error) => {
                self.delete(&spec.id).await?;
                Err(error)
            }
        }
    }

    async fn start(&self, id: &str) -> Result<()> {
        let folder = self.of(id)?;
        let started = self.ask(id, &folder, &Request::Start).await;
        started.map_err(|e| {
            Error::new(
                e.kind,
                format!("unable to start container process: {}", e.message),
            )
        })
    }

    async fn wait(&self, id: &str) -> Result<Exit> {
        self.ended(id, &self.of(id)?).await
    }

    async fn alive(&self, id: &str) -> Option<i32> {
        let folder = self.of(id).ok()?;
        let reply = client::ask(&folder, &Request::State).await.ok()?;
        (reply.pid > 0).then_some(reply.pid)
    }

    async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        self.ask(id, &self.of(id)?, &Request::Signal(signal)).await
    }

    async fn pause(&self, id: &str) -> Result<()> {
        let group = self.group(id).await?;
        blocking(move || freeze(&group)).await
    }

    async fn resume(&self, id: &str) -> Result<()> {
        Ok(self.group(id).await?.set_frozen(Frozen::No)?)
    }

    async fn update(&self, id: &str, host: &HostConfig) -> Result<()> {
        let group = self.group(id).await?;
        let wanted = plan::limits(host)?;
        blocking(move || Ok(limits::apply(&group, &wanted)?)).await
    }

    async fn attach(&self, id: &str) -> Result<Attachment> {
        let folder = self.of(id)?;
        let wanted = self.state(id)?.stdin;
        let output = client::watch(&folder).await.map_err(|e| gone(id, e))?;
        let stdin = writer(&folder, wanted).await.map_err(|e| gone(id, e))?;
        Ok(Attachment { stdin, output })
    }

    async fn resize(&self, id: &str, exec: Option<&str>, rows: u16, columns: u16) -> Result<()> {
        let folder = match exec {
            Some(exec) => self.of_exec(id, exec)?,
            None => self.of(id)?,
        };
        self.ask(id, &folder, &Request::Resize(rows, columns)).await
    }

    async fn exec(&self, id: &str, exec: &str, process: &ProcessSpec) -> Result<(i32, Attachment)> {
        let state = self.state(id)?;
        let first = self
            .alive(id)
            .await
            .ok_or_else(|| Error::conflict(format!("container {id} is not running")))?;
        let task = plan::exec(id, first, &state.cgroup, &state.confinement, process);
        debug_assert!(matches!(task.place, Place::Of(_)));
        let folder = self.of_exec(id, exec)?;
        make_folder(&folder)?;
        let launched = self.launch(&folder, &task).await;
        let (pid, connection) = match launched {
            Ok(launched) => launched,
            Err(error) => {
                fs::remove_dir_all(&folder).ok();
                return Err(error);
            }
        };
        // One that has ended by now takes no input.
        let stdin = match writer(&folder, process.stdin).await {
            Err(error) if client::is_gone(&error) => None,
            stdin => stdin?,
        };
        let output = client::frames(connection);
        Ok((pid, Attachment { stdin, output }))
    }

    async fn signal_exec(&self, id: &str, exec: &str, signal: i32) -> Result<()> {
        let folder = self.of_exec(id, exec)?;
        self.ask(id, &folder, &Request::Signal(signal)).await
    }

    async fn wait_exec(&self, id: &str, exec: &str) -> Result<Exit> {
        let folder = self.of_exec(id, exec)?;
        let exit = self.ended(id, &folder).await?;
        fs::remove_dir_all(&folder).ok();
        Ok(exit)
    }

    fn known(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            all.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(all)
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let folder = self.of(id)?;
        let cgroup = match self.state(id) {
            Ok(state) => state.cgroup,
            Err(_) => plan::default_cgroup(id),
        };
        blocking(move || {
            Group::at(&cgroup)?.destroy()?;
            remove_folder(&folder)
        })
        .await
    }
}
