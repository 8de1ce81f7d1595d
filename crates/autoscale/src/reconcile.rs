//! The loop: measure → decide → make the count durable → apply.
//!
//! Deliberately absent: what applying means ([`Target`]) and how a decision looks ([`Reporter`]).

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{Config, ConfigError};
use crate::decision::Decision;
use crate::metrics::{BoxError, Metrics};
use crate::policy::{Observation, State, policy};

/// The fleet that is scaled.
#[async_trait]
pub trait Target: Send + Sync {
    /// The fleet's declared count, from the store.
    async fn desired(&self) -> Result<u32, BoxError>;
    /// Makes a new declared count durable. Nothing outside is touched yet.
    async fn set_desired(&self, count: u32, decision: &Decision) -> Result<(), BoxError>;
    /// Plans and applies until the fleet is as declared. Idempotent; it may be dropped at any point and called again.
    async fn apply(&self) -> Result<(), BoxError>;
}

/// Who is told.
pub trait Reporter: Send + Sync {
    /// A decision, at every tick.
    fn decided(&self, decision: &Decision);
    /// The fleet is as declared again, after so long.
    fn applied(&self, decision: &Decision, took: Duration);
    /// A tick failed; the next one tries again.
    fn failed(&self, failure: &Failure);
}

/// Time since any fixed origin.
pub trait Clock: Send + Sync {
    /// Never goes back.
    fn now(&self) -> Duration;
}

/// The computer's monotonic clock, from its creation on.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(std::time::Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // An hour ahead of the origin, so that what happened shortly before the start has a time too.
        self.0.elapsed() + Duration::from_secs(3600)
    }
}

/// Why a tick did not lead to an applied decision.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was measured; nothing was changed.
    #[error("cannot measure the fleet")]
    Metrics(#[source] BoxError),
    /// The declared count cannot be read.
    #[error("cannot read the fleet's declared count")]
    Read(#[source] BoxError),
    /// The new count was not stored, so nothing was changed.
    #[error("cannot store the fleet's new count {count}")]
    Store {
        /// The count.
        count: u32,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The count is stored, the fleet is not yet so.
    #[error("cannot bring the fleet to {count} machines")]
    Apply {
        /// The count.
        count: u32,
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// Scales one fleet.
pub struct Autoscaler<'a> {
    config: Config,
    metrics: &'a dyn Metrics,
    target: &'a dyn Target,
    reporter: &'a dyn Reporter,
    clock: &'a dyn Clock,
    state: State,
    /// The declared count may not be what is there: at the beginning, and after a failed or dropped apply.
    unapplied: bool,
}

impl<'a> Autoscaler<'a> {
    /// An autoscaler that has not looked yet. Its first tick applies what is declared, in case a former one was interrupted.
    pub fn new(
        config: Config,
        metrics: &'a dyn Metrics,
        target: &'a dyn Target,
        reporter: &'a dyn Reporter,
        clock: &'a dyn Clock,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            metrics,
            target,
            reporter,
            clock,
            state: State::default(),
            unapplied: true,
        })
    }

    /// Ticks every `interval` until `stop` is ready. An apply in progress is dropped then: what it has begun is recorded
    /// and the next run resumes it.
    pub async fn run(&mut self, interval: Duration, stop: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            let tick = async {
                ticks.tick().await;
                self.tick().await
            };
            let failure = tokio::select! {
                biased;
                () = &mut stop => return,
                result = tick => result.err(),
            };
            if let Some(failure) = failure {
                self.reporter.failed(&failure);
            }
        }
    }

    /// One round.
    pub async fn tick(&mut self) -> Result<Decision, Failure> {
        let now = self.clock.now();
        let current = self.target.desired().await.map_err(Failure::Read)?;
        let samples = self.metrics.sample(now).await.map_err(Failure::Metrics)?;
        let (state, decision) = policy(
            &self.state,
            &Observation { current, samples },
            now,
            &self.config,
        );
        self.reporter.decided(&decision);
        let count = decision.desired;
        if decision.changes() {
            self.target
                .set_desired(count, &decision)
                .await
                .map_err(|source| Failure::Store { count, source })?;
            self.unapplied = true;
        }
        self.state = state;
        if self.unapplied {
            let begun = self.clock.now();
            self.target
                .apply()
                .await
                .map_err(|source| Failure::Apply { count, source })?;
            self.unapplied = false;
            self.reporter
                .applied(&decision, self.clock.now().saturating_sub(begun));
        }
        Ok(decision)
    }
}
