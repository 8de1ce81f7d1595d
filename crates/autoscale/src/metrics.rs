//! What is measured: the CPU of each machine of a fleet, or why it is not known.

use std::time::Duration;

use async_trait::async_trait;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One machine of the fleet at one tick. Times are counted from the origin of the autoscaler's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The machine's name.
    pub machine: String,
    /// Since when it serves; `None` while it is being made.
    pub ready_at: Option<Duration>,
    /// What was measured.
    pub cpu: Cpu,
}

/// A machine's CPU.
#[derive(Clone, Debug, PartialEq)]
pub enum Cpu {
    /// Per cent of the machine's capacity.
    Percent {
        /// The mean over the interval that ended at `at`.
        value: f64,
        /// When it was measured.
        at: Duration,
    },
    /// Not known, and why. Never the same as idle.
    Missing {
        /// For people.
        reason: String,
    },
}

/// Where samples come from.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// A sample for every machine of the fleet, unreachable and unfinished ones too. A machine that is left out would count as
    /// not yet made. `now` is the time of the autoscaler's clock.
    async fn sample(&self, now: Duration) -> Result<Vec<Sample>, BoxError>;
}
