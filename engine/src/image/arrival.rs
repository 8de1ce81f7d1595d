//! Layers on their way: each comes in once, however many pulls want it, and only so many at a time.
//!
//! The second who wants a layer waits for the first, then finds it there. What a pull brought that came to nothing goes
//! again, unless another pull may be counting on it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{ImageStore, Pins};

/// Of all pulls together; more does not help, and each costs a few megabytes.
const AT_ONCE: usize = 4;

/// Locks by layer digest, and turns.
#[derive(Debug)]
pub struct Arrivals {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    turns: Arc<Semaphore>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            locks: Mutex::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Arrivals {
    /// Waits until nobody else brings this layer in.
    pub async fn alone(&self, diff_id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(diff_id.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// A free place among the layers that arrive, if there is one.
    pub fn turn_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).try_acquire_owned().ok()
    }

    /// Waits for a place.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }
}

/// What one pull brought; unless it is kept, it goes when the last of the pull's threads is through.
pub struct Brought {
    store: Arc<ImageStore>,
    layers: Mutex<Vec<String>>,
    kept: AtomicBool,
    pins: Option<Pins>,
}

impl Brought {
    /// A pull begins that is of these layers.
    pub fn nothing_yet(store: &Arc<ImageStore>, diff_ids: &[String]) -> Self {
        Self {
            store: Arc::clone(store),
            layers: Mutex::default(),
            kept: AtomicBool::new(false),
            pins: Some(store.pin(diff_ids)),
        }
    }

    /// A layer got its name.
    pub fn push(&self, diff_id: &str) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.push(diff_id.to_owned());
    }

    /// An image has the layers now.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        drop(self.pins.take());
        let layers = self.layers.get_mut();
        let mut layers = std::mem::take(layers.unwrap_or_else(PoisonError::into_inner));
        if layers.is_empty() || self.kept.load(Ordering::Acquire) {
            return;
        }
        let store = Arc::clone(&self.store);
        // Not here: this may be a thread that must not wait for a disk.
        std::thread::spawn(move || {
            let Ok(images) = store.list() else { return };
            layers.retain(|layer| {
                !images
                    .iter()
                    .any(|image| image.config.rootfs.diff_ids.contains(layer))
            });
            for layer in layers {
                // Another pull that counts on it has pinned it.
                if let Err(error) = store.remove_unpinned(&layer) {
                    tracing::warn!(%error, layer, "a layer of no image stays until the next start");
                }
            }
        });
    }
}
