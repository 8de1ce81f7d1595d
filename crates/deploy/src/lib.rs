//! Deploying a project: observe → plan (pure) → apply.
//!
//! [`plan()`] takes values and returns a value; [`apply()`] makes no choices. [`Deployer`] goes round observe → plan → apply until
//! the plan is empty. Deliberately absent: providers and SSH, which come in through [`Hosts`]; the declared file's syntax.

mod apply;
mod deployer;
mod error;
mod hosts;
mod images;
mod ingress;
mod observe;
mod plan;
mod report;
#[cfg(test)]
mod simulation;
mod spec;
mod views;

pub use apply::{Executor, FailedStep, apply};
pub use deployer::{Clock, Deployer, Outcome, Pull, SystemClock, UpOptions};
pub use error::{ActionError, DeployError, PlanError, Result};
pub use hosts::{BoxError, Host, Hosts};
pub use images::{BuildContext, ContextError, Credentials, registry_of};
pub use observe::{
    Availability, Contents, Network, Observed, ObservedIngress, ObservedMachine, Reach, Replica,
    ReplicaState, Volume,
};
pub use plan::{
    Action, Note, Plan, ReplicaRef, RouteIntent, Settings, Step, Until, UpstreamIntent, Volumes,
    plan, plan_down,
};
pub use report::{Event, Reporter, Silent};
pub use spec::{ContainerSpec, labels};
pub use views::{LogTarget, Ps, ReplicaView};
