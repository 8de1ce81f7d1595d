//! Starting.

use std::sync::Arc;

use super::error::{Error, Kind, Result};
use super::health::{self, Check};
use super::parts::{Connected, Netns};
use super::record::{Record, Status};
use super::registry::Container;
use super::supervise::Begin;
use super::{Engine, clock};

impl Engine {
    /// `docker start`.
    pub async fn start(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        match container.status() {
            Status::Running | Status::Restarting => return Err(Error::not_modified()),
            Status::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Exited => {}
        }
        container.update_in_memory(|r| r.state.restart_count = 0);
        self.begin(&container).await
    }

    /// Launches and supervises; the caller holds `operation`.
    pub(super) async fn begin(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match self.launch(container).await {
            Ok(()) => {
                tokio::spawn(self.clone().supervise(container.clone(), Begin::Wait));
                Ok(())
            }
            Err(error) => {
                self.failed_start(container, &error).await;
                Err(error)
            }
        }
    }

    /// Records why it did not start; `--rm` removes it.
    async fn failed_start(self: &Arc<Self>, container: &Arc<Container>, error: &Error) {
        container.update(|r| {
            r.state.error.clone_from(&error.message);
            r.state.exit_code = match error.kind {
                // What was asked for makes no sense; no program was looked for.
                Kind::Invalid if !error.message.starts_with(NO_TASK) => 128,
                _ => exit_code(&error.message),
            };
            if r.host_config.auto_remove {
                r.state.status = Status::Exited;
            }
        });
        let code = container.read(|r| r.state.exit_code);
        container.progress.send_modify(|p| {
            p.exits += 1;
            p.exit_code = code;
            p.running = false;
        });
        if container.read(|r| r.host_config.auto_remove) {
            self.remove_locked(container, true).await.ok();
        }
    }

    /// Makes everything and lets the program start; on failure everything is taken back. The caller holds `operation`.
    pub(super) async fn launch(&self, container: &Arc<Container>) -> Result<()> {
        let record = container.snapshot();
        match self.try_launch(container, &record).await {
            Ok(()) => Ok(()),
            Err(error) => {
                container.clear_attachers();
                self.take_back(container).await;
                Err(worded(error, &record))
            }
        }
    }

    async fn try_launch(&self, container: &Arc<Container>, record: &Record) -> Result<()> {
        if let Some(request) = record.host_config.device_requests.first() {
            return Err(Error::message(no_driver(request)));
        }
        // It may be older than the setting.
        self.check_remapped(&record.host_config)?;
        let remap = self.remap_of(&record.host_config);
        let rootfs = self
            .images
            .mount(&record.id, &record.image_id, remap)
            .await?;
        let sources = self.hold_sources(record).await?;
        let (netns, connected) = self.connect(record).await?;
        let specification = self.specification(
            container,
            record,
            rootfs,
            (netns.clone(), connected.as_ref()),
            sources,
        )?;
        let pid = self.runtime.create(&specification).await?;
        for waiting in container.take_attachers() {
            waiting.send(self.runtime.attach(&record.id).await?).ok();
        }
        self.runtime.start(&record.id).await?;
        self.started(container, pid, &netns, connected);
        Ok(())
    }

    fn started(
        &self,
        container: &Arc<Container>,
        pid: i32,
        netns: &Netns,
        connected: Option<Connected>,
    ) {
        let check = container.read(check);
        let connected = connected.unwrap_or_default();
        container.update(|r| {
            let state = &mut r.state;
            state.status = Status::Running;
            state.pid = pid;
            state.exit_code = 0;
            state.error.clear();
            state.oom_killed = false;
            state.started_at = clock::now();
            state.stopped_by_hand = false;
            state.boot_id.clone_from(&self.settings.boot_id);
            state.health = check.is_some().then(health::starting);
            state.netns = match netns {
                Netns::Path(path) => path.display().to_string(),
                Netns::None | Netns::Host => String::new(),
            };
            state.former_ports.clone_from(&connected.ports);
            state.endpoints = connected.endpoints;
            state.ports = connected.ports;
        });
        container.progress.send_modify(|p| p.running = true);
        self.tell_networks(container, "connect");
        self.tell(container, "start");
    }

    /// Undoes [`Engine::try_launch`] as far as it came; used after an end too.
    pub(super) async fn take_back(&self, container: &Container) {
        let id = &container.id;
        for (what, result) in [
            ("processes", self.runtime.delete(id).await),
            ("network", self.networks.disconnect(id).await),
            ("volumes", self.release_sources(container).await),
            ("file system", self.images.unmount(id).await),
        ] {
            if let Err(error) = result {
                tracing::warn!(id, what, %error, "could not be taken back");
            }
        }
    }
}

/// The container's health check.
pub(super) fn check(record: &Record) -> Option<Check> {
    Check::from_config(
        record.config.healthcheck.as_ref(),
        record.config.shell.as_deref(),
    )
}

/// How Docker begins what the runtime says.
const NO_TASK: &str = "failed to create task for container";

/// There are none here, as for Docker without the vendor's tools.
fn no_driver(request: &serde_json::Value) -> String {
    let driver = request["Driver"].as_str().unwrap_or_default();
    let lists = request["Capabilities"].as_array().into_iter().flatten();
    let words = |list: &serde_json::Value| {
        let words = list.as_array().into_iter().flatten();
        let words: Vec<&str> = words.filter_map(|w| w.as_str()).collect();
        format!("[{}]", words.join(" "))
    };
    let lists: Vec<String> = lists.map(words).collect();
    format!(
        "could not select device driver {driver:?} with capabilities: [{}]",
        lists.join(" ")
    )
}

/// Docker's exit code for a program that did not start.
pub(super) fn exit_code(message: &str) -> i64 {
    let has = |words: &[&str]| words.iter().any(|w| message.contains(w));
    if has(&["executable file not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory", "not a directory"]) {
        126
    } else {
        128
    }
}

/// The words by which the docker command chooses its exit code.
fn worded(error: Error, record: &Record) -> Error {
    let program = record.command().into_iter().next().unwrap_or_default();
    let about_program =
        matches!(exit_code(&error.message), 126 | 127) && error.message.contains(&program);
    if error.kind == Kind::Internal && about_program {
        let message = format!("{NO_TASK}: {}", error.message);
        return Error::new(Kind::Invalid, message);
    }
    // Docker finds users itself.
    if let Some(at) = error.message.find("unable to find ") {
        return Error::new(error.kind, &error.message[at..]);
    }
    error
}
