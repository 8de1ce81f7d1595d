//! HTTP load for the demo and the tests.
//!
//! [`closed_loop`] keeps a number of connections busy and reports latencies. [`Steady`] sends requests all along and counts every one
//! that fails: "0 failures" is said of what it saw.
//!
//! Deliberately absent: TLS, HTTP/2, scenarios.

mod client;
mod report;
mod steady;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use client::{Reuse, Target, TargetError};
pub use report::Report;
pub use steady::Steady;

use client::Connection;
use report::Tally;

/// How hard to press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Requests in progress at a time.
    pub connections: usize,
    /// The pause of each connection between an answer and its next request.
    pub pause: Duration,
    /// A request without an answer for so long has failed.
    pub timeout: Duration,
}

impl Pressure {
    /// So many connections, each as fast as it is answered.
    pub fn full(connections: usize) -> Self {
        Self {
            connections,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Sends requests over all connections until `stop` is ready. A request in progress then is finished and counted.
pub async fn closed_loop(
    target: &Target,
    pressure: Pressure,
    stop: impl Future<Output = ()>,
) -> Report {
    let begun = Instant::now();
    let (stopping, stopped) = watch::channel(false);
    let workers: Vec<_> = (0..pressure.connections)
        .map(|_| tokio::spawn(press(target.clone(), pressure, stopped.clone())))
        .collect();
    stop.await;
    // Nobody listens any more when all workers have ended by a panic.
    let _ = stopping.send(true);
    let mut tally = Tally::default();
    for worker in workers {
        match worker.await {
            Ok(one) => tally.add(one),
            Err(e) => tally.failed(format!("a worker ended: {e}")),
        }
    }
    tally.report(begun.elapsed())
}

async fn press(target: Target, pressure: Pressure, stopped: watch::Receiver<bool>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = Connection::new(target, Reuse::Kept);
    while !*stopped.borrow() {
        let begun = Instant::now();
        match connection.get(pressure.timeout).await {
            Ok(status) => tally.answered(status, begun.elapsed()),
            Err(e) => {
                tally.failed(e);
                // A target that is down must not turn the loop into a busy one.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if !pressure.pause.is_zero() {
            tokio::time::sleep(pressure.pause).await;
        }
    }
    tally
}
