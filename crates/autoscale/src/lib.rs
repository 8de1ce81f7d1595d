//! Autoscaling: metrics → policy (pure) → reconcile.
//!
//! [`policy`](policy()) is a function of values; [`Autoscaler`] feeds it, makes its decision durable and has it applied, through the
//! traits [`Metrics`], [`Target`] and [`Reporter`]. [`EngineMetrics`] reads the machines' CPU from their engines, and
//! [`FileLeader`] keeps a second autoscaler of the same fleet away.
//!
//! Deliberately absent: how machines are made and removed. The autoscaler only changes the fleet's declared count, then the
//! deploy pipeline plans and applies as for everybody else.

mod config;
mod decision;
mod engine_metrics;
mod leader;
mod metrics;
mod policy;
mod reconcile;

pub use config::{Config, ConfigError, StepLimit};
pub use decision::{Decision, Reason};
pub use engine_metrics::{EngineMetrics, Member, Roster};
pub use leader::{FileLeader, LeaderError};
pub use metrics::{BoxError, Cpu, Metrics, Sample};
pub use policy::{Observation, State, policy};
pub use reconcile::{Autoscaler, Clock, Failure, Reporter, SystemClock, Target};
