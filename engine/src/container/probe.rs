//! The health prober: one task a running container that has a check.

use std::sync::Arc;
use std::time::Duration;

use windlass_engine_api::types::HealthResult;

use super::health::{self, Check, OUTPUT};
use super::parts::{Attachment, ProcessSpec};
use super::record::Status;
use super::registry::Container;
use super::{Engine, clock, create, prepare};

impl Engine {
    /// Probes until it is aborted.
    pub(super) async fn probe(self: Arc<Self>, container: Arc<Container>, check: Check) {
        loop {
            let pause = container.read(|r| {
                r.state
                    .health
                    .as_ref()
                    .map(|h| check.pause(h, Self::since_start_of(r)))
            });
            tokio::time::sleep(pause.unwrap_or(check.interval)).await;
            if container.status() != Status::Running {
                continue;
            }
            let result = self.probe_once(&container, &check).await;
            let since_start = Self::since_start(&container);
            let changed = container.update_in_memory(|r| {
                let state = r.state.health.get_or_insert_with(health::starting);
                health::record(state, &check, result, since_start).then(|| state.status.clone())
            });
            if let Some(status) = changed {
                container.update(|_| ());
                self.tell(&container, &format!("health_status: {status}"));
            }
        }
    }

    fn since_start_of(record: &super::record::Record) -> Duration {
        let started = clock::parse(&record.state.started_at);
        started
            .and_then(|t| (time::OffsetDateTime::now_utc() - t).try_into().ok())
            .unwrap_or_default()
    }

    async fn probe_once(&self, container: &Container, check: &Check) -> HealthResult {
        let start = clock::now();
        let (exit_code, output) = self.run_probe(container, check).await;
        HealthResult {
            start,
            end: clock::now(),
            exit_code,
            output,
        }
    }

    async fn run_probe(&self, container: &Container, check: &Check) -> (i64, String) {
        let process = container.read(|r| ProcessSpec {
            args: check.command.clone(),
            env: prepare::environment(&r.config),
            cwd: r.config.working_dir.clone(),
            user: r.config.user.clone(),
            ..ProcessSpec::default()
        });
        let exec = create::new_id();
        let (_, attachment) = match self.runtime.exec(&container.id, &exec, &process).await {
            Ok(started) => started,
            Err(error) => return (-1, error.message),
        };
        let finished = async {
            let output = collect(attachment).await;
            let code = self
                .runtime
                .wait_exec(&container.id, &exec)
                .await
                .map_or(-1, |exit| exit.code);
            (code, output)
        };
        match tokio::time::timeout(check.timeout, finished).await {
            Ok(result) => result,
            Err(_) => {
                // By its keeper, which knows whether the number is still its own.
                let killed = self
                    .runtime
                    .signal_exec(&container.id, &exec, libc::SIGKILL);
                killed.await.ok();
                self.runtime.wait_exec(&container.id, &exec).await.ok();
                (
                    -1,
                    format!("Health check exceeded timeout ({:?})", check.timeout),
                )
            }
        }
    }
}

/// The first bytes of the output; the rest is read and dropped, so that the probe does not block.
async fn collect(mut attachment: Attachment) -> String {
    let mut output = Vec::new();
    let mut more = "";
    while let Some(frame) = attachment.output.recv().await {
        let room = OUTPUT.saturating_sub(output.len());
        if room < frame.data.len() {
            more = "...";
        }
        output.extend_from_slice(&frame.data[..room.min(frame.data.len())]);
    }
    format!("{}{more}", String::from_utf8_lossy(&output))
}
