//! Further commands in a running container.
//!
//! One that runs goes on while the engine is away, and is known again after it: what it is lies in the container's folder meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fs_err as fs;
use tokio::sync::watch;
use windlass_engine_api::types::{ExecCreate, ExecInspect, ExecProcess};

use super::error::{Error, Result};
use super::lifecycle::exit_code;
use super::parts::{Attachment, ProcessSpec};
use super::record::Status;
use super::registry::Container;
use super::{Engine, create, prepare};

/// Finished execs that are remembered for a container.
const REMEMBERED: usize = 64;
/// For a terminal whose size comes before it is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How an exec stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecState {
    /// `start` was called.
    pub started: bool,
    /// Its number on the host.
    pub pid: i32,
    /// `None` while it runs.
    pub exit_code: Option<i64>,
}

/// An exec.
#[derive(Debug)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    /// Its container.
    pub container: String,
    /// As asked for.
    pub wanted: ExecCreate,
    /// How it stands.
    pub state: watch::Sender<ExecState>,
}

impl Exec {
    fn is_over(&self) -> bool {
        self.state.borrow().exit_code.is_some()
    }
}

impl Engine {
    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        let execs: &Mutex<_> = &self.execs;
        execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an exec; the answer is its id.
    pub fn exec_create(&self, id: &str, wanted: ExecCreate) -> Result<String> {
        let container = self.containers.find(id)?;
        runs(&container, id)?;
        let exec = Exec {
            id: create::new_id(),
            container: container.id.clone(),
            wanted,
            state: watch::Sender::default(),
        };
        let id = exec.id.clone();
        self.tell_exec(&container, &exec, &titled("exec_create", &exec), None);
        let mut execs = self.execs();
        let finished: Vec<String> = execs
            .values()
            .filter(|e| e.container == exec.container && e.is_over())
            .map(|e| e.id.clone())
            .collect();
        for old in finished
            .iter()
            .take(finished.len().saturating_sub(REMEMBERED))
        {
            execs.remove(old);
        }
        execs.insert(id.clone(), Arc::new(exec));
        Ok(id)
    }

    fn tell_exec(&self, container: &Container, exec: &Exec, action: &str, code: Option<i64>) {
        let mut attributes = container.attributes();
        attributes.insert("execID".to_owned(), exec.id.clone());
        if let Some(code) = code {
            attributes.insert("exitCode".to_owned(), code.to_string());
        }
        self.events
            .publish("container", action, &container.id, attributes);
    }

    /// A client has let go of it by its detach keys.
    pub fn exec_detached(&self, exec: &Exec) {
        if let Ok(container) = self.containers.find(&exec.container) {
            self.tell_exec(&container, exec, "exec_detach", None);
        }
    }

    /// An exec by its id.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let exec = self.execs().get(id).cloned();
        // With its container it has gone too.
        exec.filter(|e| self.containers.find(&e.container).is_ok())
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Execs of a container that are not over.
    pub(super) fn exec_ids(&self, container: &str) -> Vec<String> {
        self.execs()
            .values()
            .filter(|e| e.container == container && !e.is_over())
            .map(|e| e.id.clone())
            .collect()
    }

    /// After the container's end none of them runs, and none that waits can be started any more.
    pub(super) fn forget_execs(&self, container: &str) {
        self.execs()
            .retain(|_, e| e.container != container || e.state.borrow().started);
        for exec in self.execs().values().filter(|e| e.container == container) {
            exec.state.send_if_modified(|s| {
                let running = s.started && s.exit_code.is_none();
                if running {
                    s.exit_code = Some(137);
                }
                running
            });
        }
    }

    /// The container is no more.
    pub(super) fn drop_execs(&self, container: &str) {
        self.execs().retain(|_, exec| exec.container != container);
    }

    /// Starts it; its end is recorded by a task.
    pub async fn exec_start(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        size: Option<(u16, u16)>,
    ) -> Result<Attachment> {
        let container = self.containers.find(&exec.container)?;
        runs(&container, &container.id)?;
        let mut state = *exec.state.borrow();
        let first = exec.state.send_if_modified(|s| {
            state = *s;
            !std::mem::replace(&mut s.started, true)
        });
        if !first {
            return Err(already(&exec.id, state));
        }
        self.tell_exec(&container, exec, &titled("exec_start", exec), None);
        // A linked container that has ended meanwhile is no reason against it.
        let linked = self.linked(&container.snapshot()).unwrap_or_default();
        let process = container.read(|r| {
            let own = prepare::environment(&r.config);
            process(
                &exec.wanted,
                &[linked.env, own].concat(),
                &r.config.working_dir,
                &r.config.user,
                size,
            )
        });
        match self.runtime.exec(&exec.container, &exec.id, &process).await {
            Ok((pid, attachment)) => {
                exec.state.send_modify(|s| s.pid = pid);
                if let Err(error) = keep(&container, exec, pid) {
                    tracing::warn!(id = exec.id, %error, "an engine to come will not know it");
                }
                tokio::spawn(self.clone().exec_ends(container, exec.clone()));
                Ok(attachment)
            }
            Err(error) => {
                let code = match exit_code(&error.message) {
                    127 => 127,
                    _ => 126,
                };
                exec.state.send_modify(|s| s.exit_code = Some(code));
                Err(worded(error))
            }
        }
    }

    async fn exec_ends(self: Arc<Self>, container: Arc<Container>, exec: Arc<Exec>) {
        let code = self
            .runtime
            .wait_exec(&exec.container, &exec.id)
            .await
            .map_or(137, |exit| exit.code);
        fs::remove_file(kept(&container).join(&exec.id)).ok();
        exec.state.send_modify(|s| s.exit_code = Some(code));
        self.tell_exec(&container, &exec, "exec_die", Some(code));
    }

    /// Those that the former engine started in a container that still runs.
    pub(super) fn adopt_execs(self: &Arc<Self>, container: &Arc<Container>) {
        let Ok(entries) = fs::read_dir(kept(container)) else {
            return;
        };
        for entry in entries.flatten() {
            let read = fs::read(entry.path())
                .ok()
                .and_then(|text| serde_json::from_slice::<(i32, ExecCreate)>(&text).ok());
            let (Some((pid, wanted)), Ok(id)) = (read, entry.file_name().into_string()) else {
                continue;
            };
            let exec = Arc::new(Exec {
                id: id.clone(),
                container: container.id.clone(),
                wanted,
                state: watch::Sender::new(ExecState {
                    started: true,
                    pid,
                    exit_code: None,
                }),
            });
            self.execs().insert(id, exec.clone());
            tokio::spawn(self.clone().exec_ends(container.clone(), exec));
        }
    }

    /// `GET /exec/{id}/json`.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInspect> {
        let exec = self.exec(id)?;
        let state = *exec.state.borrow();
        let mut words = exec.wanted.cmd.clone().unwrap_or_default().into_iter();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: state.started && state.pid != 0 && state.exit_code.is_none(),
            exit_code: state.exit_code,
            process_config: ExecProcess {
                tty: exec.wanted.tty,
                entrypoint: words.next().unwrap_or_default(),
                arguments: words.collect(),
                privileged: exec.wanted.privileged,
                user: exec.wanted.user.clone(),
            },
            open_stdin: exec.wanted.attach_stdin,
            open_stderr: exec.wanted.attach_stderr,
            open_stdout: exec.wanted.attach_stdout,
            can_remove: false,
            container_id: exec.container.clone(),
            detach_keys: exec.wanted.detach_keys.clone(),
            pid: i64::from(state.pid),
        })
    }

    /// Sets the size of its terminal; clients send it beside the start, and may be faster.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.exec(id)?;
        let mut state = exec.state.subscribe();
        let there = state.wait_for(|s| s.pid != 0 || s.exit_code.is_some());
        if tokio::time::timeout(PATIENCE, there).await.is_err() {
            return Err(Error::message("timeout waiting for exec session ready"));
        }
        if exec.is_over() {
            return Err(Error::not_found("no such exec"));
        }
        self.runtime
            .resize(&exec.container, Some(&exec.id), rows, columns)
            .await
    }
}

/// Whether commands can be run in it, which the client calls so.
fn runs(container: &Container, called: &str) -> Result<()> {
    let id = &container.id;
    let why = match container.status() {
        Status::Running => return Ok(()),
        Status::Paused => {
            format!("Container {called} is paused, unpause the container before exec")
        }
        Status::Restarting => {
            format!("container {id} is restarting, wait until the container is running")
        }
        _ => format!("container {id} is not running"),
    };
    Err(Error::conflict(why))
}

/// Why it cannot be started once more.
pub fn already(id: &str, state: ExecState) -> Error {
    Error::conflict(if state.exit_code.is_some() {
        format!("Error: Exec command {id} has already run")
    } else {
        format!("Error: Exec command {id} is already running")
    })
}

/// `exec_start: sh -c …`
fn titled(action: &str, exec: &Exec) -> String {
    // Docker has the space also where nothing follows.
    match exec.wanted.cmd.as_deref().unwrap_or_default() {
        [program, arguments @ ..] => format!("{action}: {program} {}", arguments.join(" ")),
        [] => format!("{action}: "),
    }
}

/// The words by which Docker's clients know what failed.
fn worded(error: Error) -> Error {
    let reason = error
        .message
        .trim_start_matches("unable to start container process: ");
    if reason.starts_with("unable to find ") {
        return Error::message(reason);
    }
    if error.kind != super::error::Kind::Internal {
        return error;
    }
    Error::invalid(format!(
        "OCI runtime exec failed: exec failed: {}: unknown",
        error.message
    ))
}

/// Where those that run are remembered, each in a file of its id.
fn kept(container: &Container) -> PathBuf {
    container.folder.join("execs")
}

/// Without its environment, which may hold secrets and is of no use any more.
fn keep(container: &Container, exec: &Exec, pid: i32) -> std::io::Result<()> {
    let wanted = ExecCreate {
        env: Vec::new(),
        ..exec.wanted.clone()
    };
    fs::create_dir_all(kept(container))?;
    fs::write(
        kept(container).join(&exec.id),
        serde_json::to_vec(&(pid, wanted))?,
    )
}

fn process(
    wanted: &ExecCreate,
    env: &[String],
    working_dir: &str,
    user: &str,
    size: Option<(u16, u16)>,
) -> ProcessSpec {
    let or = |own: &str, default: &str| {
        if own.is_empty() {
            default.to_owned()
        } else {
            own.to_owned()
        }
    };
    let mut all = env.to_vec();
    all.extend(wanted.env.iter().cloned());
    if wanted.tty && !all.iter().any(|v| v.starts_with("TERM=")) {
        all.push("TERM=xterm".to_owned());
    }
    let first_size = match wanted.console_size[..] {
        [rows, columns] if rows > 0 && columns > 0 => Some((rows as u16, columns as u16)),
        _ => None,
    };
    ProcessSpec {
        args: wanted.cmd.clone().unwrap_or_default(),
        env: all,
        cwd: or(&wanted.working_dir, working_dir),
        user: or(&wanted.user, user),
        groups: Vec::new(),
        tty: wanted.tty,
        size: size.or(first_size),
        stdin: wanted.attach_stdin,
        privileged: wanted.privileged,
    }
}
