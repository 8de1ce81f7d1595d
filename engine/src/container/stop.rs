//! Stopping, killing, freezing, removing, waiting, renaming.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_err as fs;
use windlass_engine_api::types::ContainerInspect;

use super::error::{Error, Kind, Result};
use super::record::Status;
use super::registry::{Container, Progress};
use super::{Engine, Sizes, inspect, logs, signal};

const KILL: i32 = libc::SIGKILL;
/// From SIGKILL to its end, for a process that the kernel holds.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removal {
    /// Kill it first.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// It does not run.
    NotRunning,
    /// It ends.
    NextExit,
    /// It is removed.
    Removed,
}

impl Engine {
    /// `docker stop`.
    pub async fn stop(
        &self,
        id: &str,
        signal: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        if self.cancel_restart(&container) {
            return Ok(());
        }
        if !container.status().has_process() {
            return Err(Error::not_modified());
        }
        self.halt(&container, signal, timeout).await?;
        self.tell(&container, "stop");
        Ok(())
    }

    /// `docker restart`.
    pub async fn restart(
        self: &Arc<Self>,
        id: &str,
        signal: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        if !self.cancel_restart(&container) && container.status().has_process() {
            container.kept.store(true, Ordering::Release);
            let halted = self.halt(&container, signal, timeout).await;
            if halted.is_err() {
                container.kept.store(false, Ordering::Release);
            }
            halted?;
            self.tell(&container, "stop");
        }
        container.update_in_memory(|r| r.state.restart_count = 0);
        let begun = self.begin(&container).await;
        container.kept.store(false, Ordering::Release);
        begun?;
        self.tell(&container, "restart");
        Ok(())
    }

    /// Ends a wait for a restart; whether there was one.
    fn cancel_restart(&self, container: &Container) -> bool {
        let waiting = container.update(|r| {
            let waiting = r.state.status == Status::Restarting;
            if waiting {
                r.state.status = Status::Exited;
                r.state.stopped_by_hand = true;
            }
            waiting
        });
        if waiting {
            container.progress.send_modify(|p| p.running = false);
            container.wake.notify_one();
        }
        waiting
    }

    /// Signals, waits, kills; the caller holds `operation`.
    async fn halt(
        &self,
        container: &Arc<Container>,
        wanted: Option<&str>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let (configured, seconds) =
            container.read(|r| (r.config.stop_signal.clone(), r.config.stop_timeout));
        let text = wanted.unwrap_or(if configured.is_empty() {
            "SIGTERM"
        } else {
            &configured
        });
        let number =
            signal::parse(text).ok_or_else(|| Error::invalid(format!("Invalid signal: {text}")))?;
        let configured =
            seconds.map(|s| u64::try_from(s).map_or(Duration::MAX, Duration::from_secs));
        let timeout = timeout.or(configured).unwrap_or(Duration::from_secs(10));
        container.update(|r| r.state.stopped_by_hand = true);
        // On a full disk too a container must stop: that is how room is made.
        if let Err(error) = container.persist() {
            tracing::warn!(id = container.id, %error, "that it was stopped by hand is not on disk");
        }
        let mut progress = container.progress.subscribe();
        let Progress {
            exits: before,
            running,
            ..
        } = *progress.borrow_and_update();
        if !running {
            // It ended by itself since the caller looked: no other end will come.
            return Ok(());
        }
        self.send_signal(container, number).await?;
        if container.status() == Status::Paused {
            // It may have ended by the signal; one that stays frozen is found out below.
            if self.runtime.resume(&container.id).await.is_ok() {
                container.update(|r| {
                    if r.state.status == Status::Paused {
                        r.state.status = Status::Running;
                    }
                });
                self.tell(container, "unpause");
            }
        }
        let ended = progress.wait_for(|p| p.exits > before);
        if tokio::time::timeout(timeout, ended).await.is_ok() {
            return Ok(());
        }
        self.send_signal(container, KILL).await?;
        match tokio::time::timeout(KILL_TIMEOUT, progress.wait_for(|p| p.exits > before)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::message(format!(
                "container {} did not end within 10 s of SIGKILL: a process hangs in the kernel",
                container.id
            ))),
        }
    }

    /// A process that has just ended is no error.
    async fn send_signal(&self, container: &Container, number: i32) -> Result<()> {
        let mut attributes = container.attributes();
        attributes.insert("signal".to_owned(), number.to_string());
        self.events
            .publish("container", "kill", &container.id, attributes);
        match self.runtime.signal(&container.id, number).await {
            Err(error)
                if error.kind != Kind::NotFound
                    && self.runtime.alive(&container.id).await.is_some() =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// `docker kill`.
    pub async fn kill(&self, id: &str, text: &str) -> Result<()> {
        let number = signal::parse(text).ok_or_else(|| {
            let is_number = text.parse::<u32>().is_ok_and(|n| n > 0);
            Error::invalid(if is_number {
                format!("the linux daemon does not support signal {text}")
            } else {
                format!("Invalid signal: {text}")
            })
        })?;
        let words = |e: Error| {
            Error::new(
                e.kind,
                format!("cannot kill container: {id}: {}", e.message),
            )
        };
        let container = self.containers.find(id).map_err(words)?;
        let (status, configured) =
            container.read(|r| (r.state.status, r.config.stop_signal.clone()));
        if !status.has_process() {
            return Err(Error::conflict(format!(
                "cannot kill container: {id}: container {} is not running",
                container.id
            )));
        }
        let stop_signal = if configured.is_empty() {
            Some(libc::SIGTERM)
        } else {
            signal::parse(&configured)
        };
        if number == KILL || Some(number) == stop_signal {
            container.update(|r| r.state.stopped_by_hand = true);
        }
        if status == Status::Paused && number == KILL {
            self.runtime.resume(&container.id).await?;
            container.update(|r| r.state.status = Status::Running);
        }
        let mut progress = container.progress.subscribe();
        let before = progress.borrow_and_update().exits;
        self.send_signal(&container, number).await?;
        if number == KILL {
            tokio::time::timeout(KILL_TIMEOUT, progress.wait_for(|p| p.exits > before))
                .await
                .ok();
        }
        Ok(())
    }

    /// `docker pause`.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        match container.status() {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "Container {} is already paused",
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
        self.runtime.pause(&container.id).await?;
        container.update(|r| r.state.status = Status::Paused);
        self.tell(&container, "pause");
        Ok(())
    }

    /// `docker unpause`.
    pub async fn unpause(&self, id: &str) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        if container.status() != Status::Paused {
            return Err(Error::conflict(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        self.runtime.resume(&container.id).await?;
        container.update(|r| r.state.status = Status::Running);
        self.tell(&container, "unpause");
        Ok(())
    }

    /// `docker rename`.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        let container = self.containers.find(id)?;
        let former = container.name();
        self.containers.rename(&container, name)?;
        self.networks
            .renamed(&super::networking::wanted(&container.snapshot())?);
        let mut attributes = container.attributes();
        attributes.insert("oldName".to_owned(), format!("/{former}"));
        self.events
            .publish("container", "rename", &container.id, attributes);
        Ok(())
    }

    /// `docker rm`.
    pub async fn remove(&self, id: &str, how: Removal) -> Result<()> {
        let container = self.containers.find(id)?;
        let _one = container.operation.lock().await;
        let refuse = |why: &str| {
            Error::conflict(format!(
                "cannot remove container \"/{}\": {why}",
                container.name()
            ))
        };
        match container.status() {
            Status::Running if !how.force => {
                return Err(refuse(
                    "container is running: stop the container before removing or force remove",
                ));
            }
            Status::Paused if !how.force => {
                return Err(refuse("container is paused and must be unpaused first"));
            }
            Status::Restarting if !how.force => {
                return Err(refuse(
                    "container is restarting: stop the container before removing or force remove",
                ));
            }
            Status::Restarting => drop(self.cancel_restart(&container)),
            status if status.has_process() => {
                self.halt(&container, Some("SIGKILL"), Some(KILL_TIMEOUT))
                    .await?
            }
            _ => {}
        }
        if container.progress.borrow().removed {
            return Err(Error::not_found(format!("No such container: {id}")));
        }
        self.remove_locked(&container, how.volumes).await
    }

    /// Removes what does not run; the caller holds `operation`.
    pub(super) async fn remove_locked(
        &self,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<()> {
        if container.progress.borrow().removed {
            return Ok(());
        }
        // Whoever goes on with it after a crash must know what was asked for.
        container.update(|r| {
            r.state.status = Status::Removing;
            r.state.with_volumes = volumes;
        });
        self.take_back(container).await;
        if let Err(error) = self.images.discard(&container.id).await {
            container.update(|r| r.state.status = Status::Dead);
            return Err(Error::new(
                error.kind,
                format!(
                    "unable to remove the file system of {}: {}",
                    container.id, error.message
                ),
            ));
        }
        self.discard_image_mounts(container).await?;
        if volumes {
            self.remove_anonymous_volumes(container);
        }
        // Last on disk: until it is gone a crash leaves a container that is being removed.
        fs::remove_dir_all(&container.folder)?;
        container.forget_spare();
        self.containers.remove(container);
        self.drop_execs(&container.id);
        container.clear_attachers();
        container.progress.send_modify(|p| {
            p.removed = true;
            p.running = false;
        });
        self.tell(container, "destroy");
        Ok(())
    }

    fn remove_anonymous_volumes(&self, container: &Container) {
        let names = container.read(|r| {
            r.mounts
                .iter()
                .filter(|m| m.anonymous)
                .map(|m| m.name.clone())
                .collect::<Vec<_>>()
        });
        for name in names
            .iter()
            .filter(|name| self.volume_users(name).iter().all(|id| *id == container.id))
        {
            match self.volumes.remove(name) {
                Ok(()) => self.tell_volume("destroy", name, &[]),
                Err(error) => tracing::warn!(name, %error, "an anonymous volume stays"),
            }
        }
    }

    /// The containers that use a volume.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |c: &Arc<Container>| {
            c.read(|r| {
                r.mounts
                    .iter()
                    .any(|m| m.kind == "volume" && m.name == name)
            })
        };
        self.containers
            .all()
            .iter()
            .filter(|c| uses(c))
            .map(|c| c.id.clone())
            .collect()
    }

    /// Resolves with the exit code when the condition holds.
    pub fn wait(
        &self,
        id: &str,
        condition: WaitFor,
    ) -> Result<impl Future<Output = Result<i64>> + use<>> {
        let container = self.containers.find(id)?;
        let mut progress = container.progress.subscribe();
        let before = progress.borrow_and_update().exits;
        Ok(async move {
            let done = progress.wait_for(|p| match condition {
                // An end counts also where a restart follows.
                WaitFor::NotRunning => !p.running || p.exits > before,
                WaitFor::NextExit => p.exits > before || p.removed,
                WaitFor::Removed => p.removed,
            });
            let code = done.await.map(|p| p.exit_code);
            drop(container);
            code.map_err(|_| Error::message("the engine ends"))
        })
    }

    /// `docker inspect`.
    pub fn inspect(&self, id: &str, sizes: Sizes) -> Result<ContainerInspect> {
        let container = self.containers.find(id)?;
        let record = container.snapshot();
        // Others may read the file of this driver only.
        let log = match record.host_config.log_config.kind.as_str() {
            "json-file" => logs::path(&container.folder, &record.id),
            _ => std::path::PathBuf::new(),
        };
        let mut shown = inspect::inspect(
            &record,
            &container.folder,
            &log,
            self.exec_ids(&record.id),
            self.images.folders(&record.id, &record.image_id),
        );
        if sizes == Sizes::Counted {
            let (own, all) = self.sizes(&record)?;
            (shown.size_rw, shown.size_root_fs) = (Some(own), Some(all));
        }
        Ok(shown)
    }
}
