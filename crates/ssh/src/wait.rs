//! Waiting for a host that is starting.

use std::time::Duration;

use tokio::time::Instant;

use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::host_key::FirstUse;
use crate::session::Session;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// For everything.
    pub total: Duration,
    /// How long after the first refused login the next may still work: a booting host may let us in before it has our key.
    pub refused_login: Duration,
    /// Between two attempts.
    pub interval: Duration,
}

impl Default for WaitLimits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(300),
            refused_login: Duration::ZERO,
            interval: Duration::from_millis(500),
        }
    }
}

/// Connects as soon as the host lets us in. Refused and silent hosts are tried again until the time is over; a changed host key, a
/// bad name or key file end it at once.
pub async fn wait_until_up(
    destination: &Destination,
    limits: WaitLimits,
    on_first_use: &(dyn Fn(&FirstUse) + Send + Sync),
) -> Result<Session> {
    let end = Instant::now() + limits.total;
    let mut refused_since: Option<Instant> = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let attempt_limit = destination.connect_timeout.min(left.max(limits.interval));
        let attempt = Session::connect_within(destination, attempt_limit, on_first_use);
        let error = match attempt.await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let again = match &error {
            Error::Auth { .. } => {
                let since = *refused_since.get_or_insert_with(Instant::now);
                since.elapsed() < limits.refused_login
            }
            other => other.may_be_starting(),
        };
        if !again || Instant::now() + limits.interval >= end {
            return Err(error);
        }
        tracing::debug!(host = %destination.host, %error, "not up yet");
        tokio::time::sleep(limits.interval).await;
    }
}
