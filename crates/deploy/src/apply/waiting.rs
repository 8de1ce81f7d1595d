//! Waiting for replicas and for proxies: bounded polling, and what a failed replica said last.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_engine_api::types::ContainerInspect;
use windlass_engine_api::{Client, LogOptions};
use windlass_ingress::AdminClient;
use windlass_machine::MachineName;

use crate::error::ActionError;
use crate::observe::{ReplicaState, state};
use crate::plan::{ReplicaRef, Until};

/// Between two looks at a container.
const POLL: Duration = Duration::from_millis(200);
/// A container without a check that has run so long counts as well.
const GRACE: Duration = Duration::from_secs(2);
/// Lines of the log that an error shows.
const LINES: u64 = 10;

/// Waits until the replica has reached `until`.
pub(super) async fn wait_replica(
    client: &Client,
    replica: &ReplicaRef,
    until: Until,
    within: Duration,
) -> Result<(), ActionError> {
    let deadline = Instant::now() + within;
    let mut watch = Watch::default();
    loop {
        let container = match client.inspect_container(&replica.container).await {
            Ok(container) => container,
            Err(e) if e.is_not_found() => return Err(ActionError::Changed(replica.to_string())),
            Err(source) => {
                return Err(ActionError::Engine {
                    machine: replica.machine.clone(),
                    source,
                });
            }
        };
        match watch.judge(&container, until, Instant::now()) {
            Verdict::Reached => return Ok(()),
            Verdict::Hopeless(problem) => {
                return Err(ActionError::Unwell {
                    replica: replica.to_string(),
                    problem,
                    log: last_words(client, &replica.container).await,
                });
            }
            Verdict::Wait if Instant::now() >= deadline => {
                return Err(ActionError::TimedOut {
                    what: format!("{replica} to get well"),
                    within,
                    log: last_words(client, &replica.container).await,
                });
            }
            Verdict::Wait => sleep(POLL).await,
        }
    }
}

enum Verdict {
    Reached,
    Wait,
    Hopeless(String),
}

/// What has been seen of one container.
#[derive(Default)]
struct Watch {
    running_since: Option<(String, Instant)>,
    ends: u32,
    last_start: String,
}

impl Watch {
    fn judge(&mut self, container: &ContainerInspect, until: Until, now: Instant) -> Verdict {
        let s = &container.state;
        // A restart between two looks shows by the time of the start.
        if !self.last_start.is_empty() && self.last_start != s.started_at {
            self.ends += 1;
        }
        self.last_start.clone_from(&s.started_at);
        let code = s.exit_code;
        match state(container) {
            ReplicaState::Exited { code: 0 } if self.may_end(container, until) => Verdict::Reached,
            ReplicaState::Exited { code } => {
                let error = if s.error.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", s.error)
                };
                Verdict::Hopeless(format!("it ended with exit code {code}{error}"))
            }
            ReplicaState::Restarting if until == Until::Well => Verdict::Hopeless(format!(
                "it ended with exit code {code} and is restarted over and over"
            )),
            ReplicaState::Dead => Verdict::Hopeless("it is dead".to_owned()),
            ReplicaState::Paused => Verdict::Hopeless("it is paused".to_owned()),
            ReplicaState::Running if until == Until::Well => self.running(container, now),
            _ => Verdict::Wait,
        }
    }

    fn may_end(&self, container: &ContainerInspect, until: Until) -> bool {
        let policy = container.host_config.restart_policy.name.as_str();
        until == Until::Completed || matches!(policy, "" | "no" | "on-failure")
    }

    fn running(&mut self, container: &ContainerInspect, now: Instant) -> Verdict {
        if self.ends > 0 {
            let times = self.ends;
            return Verdict::Hopeless(format!("it ended and was restarted {times} time(s)"));
        }
        match container.state.health.as_ref().map(|h| h.status.as_str()) {
            Some("healthy") => Verdict::Reached,
            Some("unhealthy") => {
                let log = container.state.health.as_ref().and_then(|h| h.log.last());
                let last = log.map(|l| {
                    let output = l.output.trim();
                    format!(": exit code {} {output}", l.exit_code)
                });
                Verdict::Hopeless(format!(
                    "its health check fails{}",
                    last.unwrap_or_default()
                ))
            }
            Some("starting") => Verdict::Wait,
            _ => {
                let started = container.state.started_at.clone();
                let since = match &self.running_since {
                    Some((start, since)) if *start == started => *since,
                    _ => {
                        self.running_since = Some((started, now));
                        now
                    }
                };
                if now.duration_since(since) >= GRACE {
                    Verdict::Reached
                } else {
                    Verdict::Wait
                }
            }
        }
    }
}

/// The last lines of a container's log, each on a line of its own; nothing when they cannot be had.
pub(super) async fn last_words(client: &Client, container: &str) -> String {
    let read = async {
        let options = LogOptions {
            tail: Some(LINES),
            ..LogOptions::default()
        };
        let mut stream = client.logs(container, &options).await.ok()?;
        let mut text = Vec::new();
        while let Ok(Some(frame)) = stream.next().await {
            text.extend_from_slice(&frame.data);
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES as usize);
        let text: Vec<String> = lines[from..].iter().map(|l| format!("\n  | {l}")).collect();
        Some(text.concat())
    };
    match tokio::time::timeout(Duration::from_secs(5), read).await {
        Ok(Some(text)) => text,
        _ => String::new(),
    }
}

/// Waits until the proxy has the table in force and no request in progress at the address; when the time is over, that is enough too.
pub(super) async fn wait_drained(
    admin: &AdminClient,
    machine: &MachineName,
    address: SocketAddr,
    generation: u64,
    deadline: Instant,
) -> Result<(), ActionError> {
    loop {
        let status = admin
            .status()
            .await
            .map_err(|source| ActionError::Ingress {
                machine: machine.clone(),
                source,
            })?;
        if status.generation < generation {
            return Err(ActionError::Changed(format!(
                "the route table on machine `{machine}`"
            )));
        }
        let busy = status
            .upstreams
            .iter()
            .any(|u| u.address == address && u.active_requests > 0);
        if !busy || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Waits until a proxy answers that was just started.
pub(super) async fn wait_ingress(
    client: &Client,
    admin: &AdminClient,
    machine: &MachineName,
    container: &str,
    within: Duration,
) -> Result<(), ActionError> {
    let deadline = Instant::now() + within;
    loop {
        let Err(source) = admin.status().await else {
            return Ok(());
        };
        let inspect = client.inspect_container(container).await;
        let failed = inspect.is_ok_and(|c| !c.state.running || c.restart_count > 2);
        if failed {
            return Err(ActionError::Unwell {
                replica: format!("the ingress on {machine}"),
                problem: "it does not stay up".to_owned(),
                log: last_words(client, container).await,
            });
        }
        if Instant::now() >= deadline {
            return Err(ActionError::Ingress {
                machine: machine.clone(),
                source,
            });
        }
        sleep(POLL).await;
    }
}
