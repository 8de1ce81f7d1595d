//! Waiting for ends, and what follows: restart, removal.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::error::Kind;
use super::lifecycle::{check, exit_code};
use super::parts::Exit;
use super::record::Status;
use super::registry::Container;
use super::restart::{self, Ended};
use super::{Engine, clock};

/// Where supervision begins.
#[derive(Debug)]
pub(super) enum Begin {
    /// It runs.
    Wait,
    /// It ended while the engine was away.
    Ended(Exit),
    /// It is to start again at once.
    Restart,
}

impl Engine {
    /// One task a running container: until it stays ended.
    pub(super) async fn supervise(self: Arc<Self>, container: Arc<Container>, begin: Begin) {
        let mut delay = Duration::ZERO;
        let mut begin = begin;
        loop {
            let exit = match begin {
                Begin::Wait => Some(self.watch(&container).await),
                Begin::Ended(exit) => Some(exit),
                Begin::Restart => None,
            };
            if let Some(exit) = exit {
                match self.ended(&container, exit, delay).await {
                    Some(next) => delay = next,
                    None => return self.after_end(&container).await,
                }
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = container.wake.notified() => {}
                }
            }
            let _one = container.operation.lock().await;
            if container.status() != Status::Restarting {
                return;
            }
            container.update_in_memory(|r| r.state.restart_count += 1);
            begin = match self.launch(&container).await {
                Ok(()) => Begin::Wait,
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "restart failed");
                    container.update_in_memory(|r| {
                        r.state.error.clone_from(&error.message);
                        r.state.started_at = clock::now();
                    });
                    Begin::Ended(Exit {
                        code: exit_code(&error.message),
                        ..Exit::default()
                    })
                }
            };
        }
    }

    /// Waits for the end, with the health prober beside it.
    async fn watch(self: &Arc<Self>, container: &Arc<Container>) -> Exit {
        if let Some(check) = container.read(check) {
            let task = tokio::spawn(self.clone().probe(container.clone(), check));
            container.set_prober(Some(task.abort_handle()));
        }
        loop {
            match self.runtime.wait(&container.id).await {
                Ok(exit) => return exit,
                Err(error) if error.kind == Kind::NotFound => {
                    return Exit {
                        code: 255,
                        ..Exit::default()
                    };
                }
                Err(error) => {
                    tracing::error!(id = container.id, %error, "waiting for the container");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if self.runtime.alive(&container.id).await.is_none() {
                        return Exit {
                            code: 255,
                            ..Exit::default()
                        };
                    }
                }
            }
        }
    }

    /// Records an end; the answer is the delay before a restart.
    async fn ended(
        &self,
        container: &Arc<Container>,
        exit: Exit,
        last_delay: Duration,
    ) -> Option<Duration> {
        container.set_prober(None);
        self.take_back(container).await;
        let finished_at = if exit.at.is_empty() {
            clock::now()
        } else {
            exit.at.clone()
        };
        let started_at = container.read(|r| r.state.started_at.clone());
        let ran_for: Duration = match (clock::parse(&started_at), clock::parse(&finished_at)) {
            (Some(from), Some(to)) => (to - from).try_into().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let next = container.update(|r| {
            let ended = Ended {
                exit_code: exit.code,
                restart_count: r.state.restart_count,
                by_hand: r.state.stopped_by_hand,
                ran_for,
                last_delay,
            };
            let next = restart::decide(&r.host_config.restart_policy, ended);
            let state = &mut r.state;
            state.status = if next.is_some() {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.pid = 0;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom_killed;
            state.finished_at = finished_at;
            state.netns.clear();
            state.ports.clear();
            next
        });
        let mut attributes = container.attributes();
        attributes.insert("exitCode".to_owned(), exit.code.to_string());
        attributes.insert("execDuration".to_owned(), ran_for.as_secs().to_string());
        if exit.oom_killed {
            self.tell(container, "oom");
        }
        self.events
            .publish("container", "die", &container.id, attributes);
        self.tell_networks(container, "disconnect");
        container.progress.send_modify(|p| {
            p.exits += 1;
            p.exit_code = exit.code;
            p.running = next.is_some();
        });
        self.forget_execs(&container.id);
        next
    }

    async fn after_end(self: &Arc<Self>, container: &Arc<Container>) {
        let auto_remove = container.read(|r| r.host_config.auto_remove) && !container.is_kept();
        if !auto_remove {
            return;
        }
        let _one = container.operation.lock().await;
        if container.status() != Status::Exited {
            return;
        }
        if let Err(error) = self.remove_locked(container, true).await {
            tracing::warn!(id = container.id, %error, "automatic removal");
        }
    }

    /// What the docker command calls `Up 5 minutes` begins here.
    pub(super) fn since_start(container: &Container) -> Duration {
        let started = container.read(|r| clock::parse(&r.state.started_at));
        started
            .and_then(|t| (OffsetDateTime::now_utc() - t).try_into().ok())
            .unwrap_or_default()
    }
}
