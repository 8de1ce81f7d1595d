//! The client that is always there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Connection, Reuse, Target};
use crate::report::{Report, Tally};

/// Sends a request at every interval, alternately on a kept connection and on a new one, until it is stopped.
pub struct Steady {
    begun: Instant,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    sent: AtomicU64,
}

impl Steady {
    /// Begins at once. A request without an answer within `timeout` has failed.
    pub fn start(target: Target, interval: Duration, timeout: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let (stopping, stopped) = watch::channel(false);
        let task = tokio::spawn(send(
            target,
            interval,
            timeout,
            Arc::clone(&shared),
            stopped,
        ));
        Self {
            begun: Instant::now(),
            shared,
            stopping,
            task,
        }
    }

    /// Requests sent up to now.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// What came of them up to now; the one in progress is not in it.
    pub fn report(&self) -> Report {
        self.tally().report(self.begun.elapsed())
    }

    /// Stops after the request in progress and returns the sum.
    pub async fn stop(self) -> Report {
        // Nobody listens any more when the task has ended by a panic; that shows in the next line.
        let _ = self.stopping.send(true);
        let ended = self.task.await;
        let mut tally = self
            .shared
            .tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Err(e) = ended {
            tally.failed(format!("the steady client ended: {e}"));
        }
        tally.report(self.begun.elapsed())
    }

    fn tally(&self) -> Tally {
        self.shared
            .tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn send(
    target: Target,
    interval: Duration,
    timeout: Duration,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut kept = Connection::new(target.clone(), Reuse::Kept);
    let mut each = Connection::new(target, Reuse::Each);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0u64.. {
        tokio::select! {
            biased;
            _ = stopped.changed() => return,
            _ = ticks.tick() => {}
        }
        let connection = if turn % 2 == 0 { &mut kept } else { &mut each };
        shared.sent.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let answer = connection.get(timeout).await;
        let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(status) => tally.answered(status, begun.elapsed()),
            Err(problem) => tally.failed(format!("{problem} (request {turn})")),
        }
    }
}
