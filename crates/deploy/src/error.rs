//! What can go wrong: in planning (the declaration cannot be met) and in applying (a step failed on a machine).

use windlass_ingress::AdminError;
use windlass_machine::{MachineName, NameError, StoreError};

use crate::hosts::BoxError;
use crate::images::ContextError;

/// The result of deploying.
pub type Result<T, E = DeployError> = std::result::Result<T, E>;

/// Why a project is not as declared.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The declaration cannot be met; nothing was changed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The list of machines cannot be read.
    #[error("cannot list the machines")]
    List(#[source] BoxError),
    /// A step failed; what was done before stays, and the same command goes on from there.
    #[error("cannot {step}")]
    Step {
        /// The step in words, with its machine.
        step: String,
        /// Why.
        #[source]
        source: ActionError,
    },
    /// Everything that could be reached is as it shall be.
    #[error("{machines} could not be reached; everything else is done")]
    Unreachable {
        /// Names with their reasons.
        machines: String,
    },
    /// A part had to wait for something out of reach.
    #[error("not everything is as declared: {notes}")]
    HeldBack {
        /// What, and why.
        notes: String,
    },
    /// The rounds are used up: something changes what was applied.
    #[error(
        "the project is still not as declared after {rounds} rounds; the next step would be to {next}"
    )]
    NotSettled {
        /// How many.
        rounds: usize,
        /// The first step of the plan that is left.
        next: String,
    },
    /// The store failed, or somebody else holds the project.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A build context cannot be read.
    #[error("cannot read the build context of service `{service}`")]
    Context {
        /// Which.
        service: String,
        /// Why.
        #[source]
        source: ContextError,
    },
    /// The proxy's binary is not there.
    #[error("cannot find the ingress for {architecture}")]
    IngressBinary {
        /// As Docker names it.
        architecture: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The project cannot be written down as a release.
    #[error("cannot write the release")]
    Release(#[source] serde_json::Error),
    /// No service of that name.
    #[error("project `{project}` has no service `{service}` running (there is: {known})")]
    NoService {
        /// The project.
        project: String,
        /// As asked.
        service: String,
        /// What there is.
        known: String,
    },
}

/// Why a declaration cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nowhere to run anything.
    #[error(
        "service `{service}` has no machine to run on: make one with `windlass create`, or declare one under `x-fleets`"
    )]
    NoMachine {
        /// The service.
        service: String,
    },
    /// Several places, and the service does not say which.
    #[error(
        "service `{service}` does not say where it runs, and there are several choices: {choices}; add `deploy.placement.constraints` like `{example}`"
    )]
    Ambiguous {
        /// The service.
        service: String,
        /// Fleets or machines.
        choices: String,
        /// A constraint that would do.
        example: String,
    },
    /// Constraints that nothing meets.
    #[error("service `{service}`: no machine meets `{constraint}` (there are: {choices})")]
    NoMatch {
        /// The service.
        service: String,
        /// All of them.
        constraint: String,
        /// What there is.
        choices: String,
    },
    /// A constraint on something unknown.
    #[error(
        "service `{service}`: constraint on `{key}` is not known; use `node.hostname` or `node.labels.<label>`"
    )]
    Constraint {
        /// The service.
        service: String,
        /// As given.
        key: String,
    },
    /// More replicas than machines that can bind the port.
    #[error(
        "service `{service}` wants {wanted} replicas that publish port {port}, and only {possible} of its machines can bind it"
    )]
    Port {
        /// The service.
        service: String,
        /// On the host.
        port: u16,
        /// How many replicas.
        wanted: u32,
        /// How many can be.
        possible: u32,
    },
    /// Two services, one port, one machine.
    #[error("port {port} on machine `{machine}` is wanted by both `{first}` and `{second}`")]
    PortTaken {
        /// On the host.
        port: u16,
        /// Where.
        machine: MachineName,
        /// The one that has it.
        first: String,
        /// The other.
        second: String,
    },
    /// Start-first would need the port twice.
    #[error(
        "service `{service}`: `order: start-first` cannot be done with the fixed host port {port}; use `stop-first`, or the ingress"
    )]
    StartFirstPort {
        /// The service.
        service: String,
        /// On the host.
        port: u16,
    },
    /// Services that wait for each other.
    #[error("services wait for each other by `depends_on`: {0}")]
    Cycle(String),
    /// A dependency that is not declared.
    #[error("service `{service}` depends on `{dependency}`, which is not declared")]
    Dependency {
        /// The service.
        service: String,
        /// The missing one.
        dependency: String,
    },
    /// Two services with the same host and path.
    #[error("services `{first}` and `{second}` both take requests for `{route}`")]
    Route {
        /// The first.
        first: String,
        /// The other.
        second: String,
        /// Host and path.
        route: String,
    },
    /// The ingress cannot reach the replicas there.
    #[error(
        "service `{service}` takes requests through the ingress, but machine `{machine}` has no IP address that other machines can reach ({address})"
    )]
    Address {
        /// The service.
        service: String,
        /// Where.
        machine: MachineName,
        /// What it has.
        address: String,
    },
    /// No binary of the proxy for the machine.
    #[error("machine `{machine}`: there is no ingress for its architecture `{architecture}`")]
    IngressArchitecture {
        /// Where.
        machine: MachineName,
        /// As Docker names it.
        architecture: String,
    },
    /// A machine of ours would need a name that is taken.
    #[error(
        "fleet `{fleet}` needs a machine named `{machine}`, which exists and is not of this project; rename one of them"
    )]
    NameTaken {
        /// The fleet.
        fleet: String,
        /// The name.
        machine: MachineName,
    },
    /// The names of project and fleet make no machine name.
    #[error("fleet `{fleet}` cannot name its machines")]
    Name {
        /// The fleet.
        fleet: String,
        /// Why.
        #[source]
        source: NameError,
    },
    /// More than one network.
    #[error("service `{service}` is in {count} networks; only one is supported yet")]
    Networks {
        /// The service.
        service: String,
        /// How many.
        count: usize,
    },
    /// An external network or volume that is not there.
    #[error("{kind} `{name}` is external, and machine `{machine}` does not have it")]
    External {
        /// `network` or `volume`.
        kind: &'static str,
        /// On the engine.
        name: String,
        /// Where.
        machine: MachineName,
    },
}

/// Why one action failed.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// Making, removing or reaching the machine.
    #[error("{0}")]
    Host(String, #[source] Option<BoxError>),
    /// The engine refused or was not reached.
    #[error("machine `{machine}`")]
    Engine {
        /// Where.
        machine: MachineName,
        /// Why.
        #[source]
        source: windlass_engine_api::Error,
    },
    /// An image's build failed.
    #[error("machine `{machine}`: the build failed{log}")]
    Build {
        /// Where.
        machine: MachineName,
        /// Its last lines, each on a line of its own; or empty.
        log: String,
        /// Why.
        #[source]
        source: windlass_engine_api::Error,
    },
    /// The ingress refused or was not reached.
    #[error("the ingress on machine `{machine}`")]
    Ingress {
        /// Where.
        machine: MachineName,
        /// Why.
        #[source]
        source: AdminError,
    },
    /// A new replica does not get well. The former ones are left as they are.
    #[error("{replica} is not well: {problem}{log}")]
    Unwell {
        /// `web.1 on m1`.
        replica: String,
        /// What was seen.
        problem: String,
        /// Its last lines, each on a line of its own; or empty.
        log: String,
    },
    /// Not done in time.
    #[error("{what} took longer than {} s{log}", within.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        within: std::time::Duration,
        /// Last lines of its log, or empty.
        log: String,
    },
    /// A name on the engine is taken by something of somebody else.
    #[error("machine `{machine}` has a {kind} named `{name}` that is not of this project")]
    NotOurs {
        /// Where.
        machine: MachineName,
        /// What.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What the plan relied on has changed; observe and plan again.
    #[error("{0} has changed meanwhile")]
    Changed(String),
    /// A build context cannot be read.
    #[error("cannot read the build context")]
    Context(#[source] ContextError),
    /// A plan that was made without knowing everything.
    #[error("the plan does not know {0} yet")]
    NotKnown(&'static str),
}

impl ActionError {
    /// Whether another look and another plan may do.
    pub fn is_outdated(&self) -> bool {
        match self {
            Self::Changed(_) => true,
            Self::Ingress { source, .. } => matches!(source, AdminError::Stale { .. }),
            _ => false,
        }
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = e.source();
    }
    text
}
