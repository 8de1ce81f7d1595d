//! What is left of HTTP after an upgrade: bytes in both directions.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::backend::Active;

/// Copies until either side ends. The upstream has a request in progress for as long.
pub fn open(client: OnUpgrade, upstream: OnUpgrade, active: Active) {
    tokio::spawn(async move {
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(e) => {
                tracing::debug!(error = %e, "an upgrade came to nothing");
                return;
            }
        };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(error = %e, "an upgraded connection broke");
        }
        drop(active);
    });
}
