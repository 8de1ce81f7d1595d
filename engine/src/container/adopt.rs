//! The engine's start: containers that still run are found again, others end or start by their policy.

use std::sync::Arc;

use super::Engine;
use super::networking::wanted;
use super::parts::{Connect, Connected, Exit};
use super::record::Status;
use super::registry::Container;
use super::restart::{self, LastRun};
use super::supervise::Begin;

enum Found {
    Runs,
    Ended(Exit),
    Lost,
    StartAgain,
    Remove,
    Nothing,
}

impl Engine {
    /// Takes up every container where the former engine (or the former boot) left it.
    pub async fn adopt(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut found = Vec::new();
        let mut running = Vec::new();
        for container in self.containers.all() {
            let state = self.look(&container).await;
            if matches!(state, Found::Runs) {
                running.extend(connection(&container));
                self.adopt_sources(&container);
            }
            found.push((container, state));
        }
        self.networks.adopt(&running).await?;
        self.volumes.settle()?;
        self.sweep(&found).await;
        for (container, state) in found {
            self.take_up(container, state).await;
        }
        Ok(())
    }

    /// Takes away what no container of these owns: the former engine ended between making a part and its record.
    async fn sweep(&self, found: &[(Arc<Container>, Found)]) {
        let ended = |id: &str| {
            let of = found.iter().find(|(container, _)| container.id == id);
            of.is_none_or(|(_, state)| matches!(state, Found::Nothing))
        };
        for id in self.runtime.known().unwrap_or_default() {
            if ended(&id) {
                tracing::info!(id, "takes back what is left of its processes");
                if let Err(error) = self.runtime.delete(&id).await {
                    tracing::warn!(id, %error, "processes could not be taken back");
                }
            }
        }
        for id in self.images.root_file_systems().unwrap_or_default() {
            // A container's own, or that of an image mounted into it.
            let owner = id.split('-').next().unwrap_or_default();
            let outcome = match found.iter().find(|(c, _)| c.id == owner) {
                None => self.images.discard(&id).await,
                Some((_, Found::Nothing)) => self.images.unmount(&id).await,
                Some(_) => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::warn!(id, %error, "a root file system could not be taken back");
            }
        }
    }

    async fn look(&self, container: &Arc<Container>) -> Found {
        let record = container.snapshot();
        let state = &record.state;
        if !state.status.has_process() && self.runtime.alive(&record.id).await.is_some() {
            // The former engine ended between the start and its record: nobody was told that it runs.
            self.take_back(container).await;
        }
        let ran = state.started_at != super::clock::NEVER;
        match state.status {
            Status::Running | Status::Paused if state.boot_id == self.settings.boot_id => {
                match self.runtime.alive(&record.id).await {
                    Some(pid) if pid == state.pid => {
                        // The former engine may have ended while it held it still for a commit.
                        if state.status == Status::Running
                            && let Err(error) = self.runtime.resume(&record.id).await
                        {
                            tracing::warn!(id = record.id, %error, "could not be let go on");
                        }
                        Found::Runs
                    }
                    _ => match self.runtime.wait(&record.id).await {
                        Ok(exit) => Found::Ended(exit),
                        Err(_) => Found::Ended(Exit {
                            code: 255,
                            ..Exit::default()
                        }),
                    },
                }
            }
            Status::Running | Status::Paused => Found::Lost,
            Status::Restarting => Found::StartAgain,
            Status::Removing | Status::Dead => Found::Remove,
            Status::Exited if record.host_config.auto_remove => Found::Remove,
            Status::Exited
                if restart::starts_with_engine(
                    &record.host_config.restart_policy,
                    LastRun {
                        ran,
                        exit_code: state.exit_code,
                        restart_count: state.restart_count,
                        by_hand: state.stopped_by_hand,
                    },
                ) =>
            {
                Found::StartAgain
            }
            Status::Created | Status::Exited => Found::Nothing,
        }
    }

    async fn take_up(self: &Arc<Self>, container: Arc<Container>, found: Found) {
        let id = &container.id;
        let begin = match found {
            Found::Runs => {
                tracing::info!(id, "adopted");
                self.adopt_execs(&container);
                Begin::Wait
            }
            Found::Ended(exit) => {
                tracing::info!(id, code = exit.code, "ended while the engine was away");
                Begin::Ended(exit)
            }
            Found::Lost => return self.lost(container).await,
            Found::StartAgain => {
                container.update(|r| r.state.status = Status::Restarting);
                container.progress.send_modify(|p| p.running = true);
                Begin::Restart
            }
            Found::Remove => {
                let _one = container.operation.lock().await;
                let volumes = container.read(|r| r.state.with_volumes || r.host_config.auto_remove);
                if let Err(error) = self.remove_locked(&container, volumes).await {
                    tracing::warn!(id, %error, "removal");
                }
                return;
            }
            Found::Nothing => return,
        };
        tokio::spawn(self.clone().supervise(container, begin));
    }

    /// It ran when the host went down.
    async fn lost(self: &Arc<Self>, container: Arc<Container>) {
        self.take_back(&container).await;
        let again = container.update(|r| {
            r.state.pid = 0;
            r.state.exit_code = 255;
            r.state.finished_at = super::clock::now();
            r.state.ports.clear();
            r.state.netns.clear();
            let last = LastRun {
                ran: true,
                exit_code: 255,
                restart_count: r.state.restart_count,
                by_hand: r.state.stopped_by_hand,
            };
            let again = restart::starts_with_engine(&r.host_config.restart_policy, last);
            r.state.status = if again {
                Status::Restarting
            } else {
                Status::Exited
            };
            again
        });
        container.progress.send_modify(|p| {
            p.running = again;
            p.exit_code = 255;
        });
        if again {
            tokio::spawn(self.clone().supervise(container, Begin::Restart));
        } else if container.read(|r| r.host_config.auto_remove) {
            let _one = container.operation.lock().await;
            self.remove_locked(&container, true).await.ok();
        }
    }
}

/// What a running container has of the network.
fn connection(container: &Container) -> Option<(Connect, Connected)> {
    let record = container.snapshot();
    let mode = &record.host_config.network_mode;
    if mode == "none" || mode == "host" || mode.starts_with("container:") {
        return None;
    }
    if record.state.netns.is_empty() {
        return None;
    }
    let connected = Connected {
        netns: record.state.netns.clone().into(),
        endpoints: record.state.endpoints.clone(),
        ports: record.state.ports.clone(),
        nameserver: None,
    };
    Some((wanted(&record).ok()?, connected))
}
