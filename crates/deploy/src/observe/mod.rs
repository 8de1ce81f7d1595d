//! What is there, as values: machines, and what the engines on them hold of one project.
//!
//! Deliberately absent: any judgement of it; that is the plan's.

mod engine;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use windlass_ingress::{RouteTable, Status};
use windlass_machine::MachineName;

use crate::hosts::Host;
pub(crate) use engine::{Question, availability, observe, published, state};

/// What is there of one project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The machines that the project may use: its own, and those of no project.
    pub machines: BTreeMap<MachineName, ObservedMachine>,
    /// Names of machines of other projects, which cannot be given to ours.
    pub foreign: Vec<MachineName>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedMachine {
    /// What the store says of it.
    pub host: Host,
    /// What its engine says.
    pub reach: Reach,
}

/// How far a machine could be looked into.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// Its engine answered.
    Ready(Box<Contents>),
    /// Its create or remove was interrupted, and goes on when asked again.
    Unfinished,
    /// Nobody knows what is on it; never counted as empty.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// What an engine holds of the project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// As Docker names it.
    pub architecture: String,
    /// Reference → image id, of those that the project asks for and that are there.
    pub images: BTreeMap<String, String>,
    /// Containers with the project's label.
    pub replicas: Vec<Replica>,
    /// All networks.
    pub networks: Vec<Network>,
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// The project's proxy.
    pub ingress: Option<ObservedIngress>,
}

/// One container of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The service.
    pub service: String,
    /// From 1.
    pub number: u32,
    /// Hex SHA-256 of what it was made from.
    pub spec: String,
    /// What it was released with.
    pub release: String,
    /// As it was asked for.
    pub image: String,
    /// Whether it runs.
    pub state: ReplicaState,
    /// Whether it is well.
    pub availability: Availability,
    /// Since when, RFC 3339; empty when it never ran.
    pub started_at: String,
    /// Container port like `80/tcp` → where it is published.
    pub ports: Vec<(String, SocketAddr)>,
}

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Never started.
    Created,
    /// It runs.
    Running,
    /// Between an end and the next start.
    Restarting,
    /// Frozen by somebody.
    Paused,
    /// It ended.
    Exited {
        /// With this.
        code: i64,
    },
    /// Half removed.
    Dead,
}

/// Whether a replica counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It runs, and its check (if it has one) says so.
    Available,
    /// Its check has not spoken yet, or it has not run for long enough.
    Starting,
    /// Its check says no, or it does not run.
    Unavailable,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// On the engine.
    pub name: String,
    /// With the project's label.
    pub ours: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// On the engine.
    pub name: String,
    /// With the project's label.
    pub ours: bool,
}

/// The project's proxy on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedIngress {
    /// Its container's id.
    pub id: String,
    /// What it was made from.
    pub spec: String,
    /// Whether the container runs.
    pub running: bool,
    /// The table in force and the requests in progress; `None`: it does not answer.
    pub answer: Option<(RouteTable, Status)>,
}

impl Observed {
    /// The contents of the machines that answered.
    pub fn reachable(&self) -> impl Iterator<Item = (&MachineName, &ObservedMachine, &Contents)> {
        self.machines.iter().filter_map(|(name, m)| match &m.reach {
            Reach::Ready(contents) => Some((name, m, contents.as_ref())),
            _ => None,
        })
    }

    /// Machines that did not answer, and why.
    pub fn silent(&self) -> BTreeMap<MachineName, String> {
        let reason = |m: &ObservedMachine| match &m.reach {
            Reach::Unreachable { reason } => Some(reason.clone()),
            _ => None,
        };
        self.machines
            .iter()
            .filter_map(|(name, m)| Some((name.clone(), reason(m)?)))
            .collect()
    }

    /// All replicas that were seen, with their machine.
    pub fn replicas(&self) -> impl Iterator<Item = (&MachineName, &Replica)> {
        self.reachable()
            .flat_map(|(name, _, c)| c.replicas.iter().map(move |r| (name, r)))
    }
}

impl Replica {
    /// Where container port `port` (TCP) is published on the address `ip`.
    pub fn published_on(&self, ip: IpAddr, port: u16) -> Option<SocketAddr> {
        let wanted = format!("{port}/tcp");
        self.ports
            .iter()
            .find(|(p, a)| *p == wanted && a.ip() == ip && a.port() != 0)
            .map(|(_, a)| *a)
    }
}

/// How long one machine may take to answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
