//! Active checks: each upstream is asked at an interval, over a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::backend::{Backend, Probed};
use crate::table::HealthCheck;

/// Probes until the task is aborted.
pub async fn probe_for_ever(backend: Arc<Backend>, check: HealthCheck) {
    let mut ticks = tokio::time::interval(check.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut good, mut bad) = (0u32, 0u32);
    loop {
        ticks.tick().await;
        let outcome = tokio::time::timeout(check.timeout, probe(&backend, &check)).await;
        let problem = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem),
            Err(_) => Some("no answer in time".to_owned()),
        };
        let before = backend.probed();
        match problem {
            None => {
                (good, bad) = (good.saturating_add(1), 0);
                if good >= check.healthy_after {
                    backend.set_probed(Probed::Healthy);
                }
                backend.answered();
            }
            Some(problem) => {
                (good, bad) = (0, bad.saturating_add(1));
                tracing::debug!(address = %backend.address(), problem, "probe failed");
                // A new upstream has to show that it works; one that worked may stumble.
                if bad >= check.unhealthy_after || before == Probed::Unknown {
                    backend.set_probed(Probed::Unhealthy);
                }
            }
        }
        let after = backend.probed();
        if before != after {
            tracing::info!(address = %backend.address(), id = %backend.upstream.id, health = ?after, "health changed");
        }
    }
}

async fn probe(backend: &Backend, check: &HealthCheck) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let address = backend.address();
    let stream = TcpStream::connect(address).await.map_err(|e| text(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let request = http::Request::get(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, "windlass-ingress")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let mut exchange = std::pin::pin!(sender.send_request(request));
    let mut connection = std::pin::pin!(connection);
    let response = tokio::select! {
        biased;
        response = &mut exchange => response,
        _ = &mut connection => exchange.await,
    }
    .map_err(|e| text(&e))?;
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!("status {}", status.as_u16()))
    }
}
