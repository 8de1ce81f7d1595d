//! Further commands in a running container.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use windlass_engine_api::types::{ExecCreate, ExecInspect, ExecProcess};

use super::error::{Error, Result};
use super::lifecycle::exit_code;
use super::parts::{Attachment, ProcessSpec};
use super::record::Status;
use super::{Engine, create};

/// Finished execs that are remembered for a container.
const REMEMBERED: usize = 64;

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

impl Engine {
    fn execs(&self) -> MutexGuard<'_, std::collections::BTreeMap<String, Arc<Exec>>> {
        let execs: &Mutex<_> = &self.execs;
        execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an exec; the answer is its id.
    pub fn exec_create(&self, id: &str, wanted: ExecCreate) -> Result<String> {
        let container = self.containers.find(id)?;
        match container.status() {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before exec",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
        }
        if wanted.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let exec = Exec {
            id: create::new_id(),
            container: container.id.clone(),
            wanted,
            state: watch::Sender::default(),
        };
        let id = exec.id.clone();
        let mut execs = self.execs();
        let finished: Vec<String> = execs
            .values()
            .filter(|e| e.container == exec.container && e.state.borrow().exit_code.is_some())
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

    /// An exec by its id.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.execs()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Running execs of a container.
    pub(super) fn exec_ids(&self, container: &str) -> Vec<String> {
        self.execs()
            .values()
            .filter(|e| e.container == container && e.state.borrow().exit_code.is_none())
            .map(|e| e.id.clone())
            .collect()
    }

    /// After the container's end there is nothing to run in.
    pub(super) fn forget_execs(&self, container: &str) {
        for exec in self.execs().values().filter(|e| e.container == container) {
            exec.state.send_if_modified(|s| {
                let running = s.exit_code.is_none();
                s.exit_code.get_or_insert(137);
                running
            });
        }
    }

    /// Starts it; its end is recorded by a task.
    pub async fn exec_start(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        size: Option<(u16, u16)>,
    ) -> Result<Attachment> {
        let first = exec
            .state
            .send_if_modified(|s| !std::mem::replace(&mut s.started, true));
        if !first {
            return Err(Error::conflict(format!("exec {} has already run", exec.id)));
        }
        let container = self.containers.find(&exec.container)?;
        let process = container.read(|r| {
            process(
                &exec.wanted,
                &r.config.env,
                &r.config.working_dir,
                &r.config.user,
                size,
            )
        });
        match self.runtime.exec(&exec.container, &exec.id, &process).await {
            Ok((pid, attachment)) => {
                exec.state.send_modify(|s| s.pid = pid);
                let (engine, exec) = (self.clone(), exec.clone());
                tokio::spawn(async move {
                    let code = engine
                        .runtime
                        .wait_exec(&exec.container, &exec.id)
                        .await
                        .map_or(137, |exit| exit.code);
                    exec.state.send_modify(|s| s.exit_code = Some(code));
                });
                Ok(attachment)
            }
            Err(error) => {
                exec.state
                    .send_modify(|s| s.exit_code = Some(exit_code(&error.message)));
                Err(Error::new(
                    error.kind,
                    format!("OCI runtime exec failed: {}", error.message),
                ))
            }
        }
    }

    /// `GET /exec/{id}/json`.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInspect> {
        let exec = self.exec(id)?;
        let state = *exec.state.borrow();
        let mut words = exec.wanted.cmd.clone().unwrap_or_default().into_iter();
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: state.started && state.exit_code.is_none(),
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

    /// Sets the size of its terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let exec = self.exec(id)?;
        self.runtime
            .resize(&exec.container, Some(&exec.id), rows, columns)
            .await
    }
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
