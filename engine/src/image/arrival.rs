//! One arrival at a time for each layer: the second who wants it waits for the first, then finds it there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// Locks by layer digest.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Arrivals {
    /// Waits until nobody else brings this layer in.
    pub async fn alone(&self, diff_id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(diff_id.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}
