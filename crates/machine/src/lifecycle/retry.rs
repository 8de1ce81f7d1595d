//! Calls to a provider, repeated while the failure may pass.

use std::time::Duration;

use windlass_provider::{ErrorKind, ProviderError};

use super::Patience;

/// The longest wait between two tries, whatever the provider asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// Calls until it succeeds, fails for good, or the tries are used up.
pub(super) async fn call<T, F>(
    patience: &Patience,
    mut once: impl FnMut() -> F,
) -> Result<T, ProviderError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let mut tried = 0;
    loop {
        let error = match once().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tried += 1;
        let wait = match error.kind {
            ErrorKind::Throttled(wait) => wait.min(LONGEST),
            ErrorKind::Other => (patience.poll * 2u32.saturating_pow(tried - 1)).min(LONGEST),
            _ => return Err(error),
        };
        if tried >= patience.tries {
            return Err(error);
        }
        tracing::debug!(%error, ?wait, tried, "provider call failed; trying again");
        tokio::time::sleep(wait).await;
    }
}
