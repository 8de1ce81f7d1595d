//! What `ps` and `logs` show of a project.

use serde::Serialize;
use windlass_engine_api::Client;
use windlass_machine::MachineName;

use crate::observe::{Availability, Observed, Reach, Replica, ReplicaState};
use crate::plan::Note;

/// One container, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// `web.1`.
    pub name: String,
    /// The service.
    pub service: String,
    /// From 1.
    pub number: u32,
    /// Where.
    pub machine: MachineName,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub container_name: String,
    /// As it was asked for.
    pub image: String,
    /// `running`, `exited (1)`, ….
    pub state: String,
    /// `healthy`, `starting`, `unhealthy`; `-` when it does not run.
    pub health: String,
    /// `10.0.0.1:32768->80/tcp`.
    pub ports: Vec<String>,
    /// RFC 3339; empty when it never ran.
    pub started_at: String,
}

/// The containers of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ps {
    /// By service, number and machine.
    pub replicas: Vec<ReplicaView>,
    /// Machines that were not seen.
    pub notes: Vec<Note>,
}

/// Where the log of one container comes from.
#[derive(Clone, Debug)]
pub struct LogTarget {
    /// `web.1`.
    pub name: String,
    /// Where.
    pub machine: MachineName,
    /// Its engine.
    pub client: Client,
    /// The container's id.
    pub container: String,
}

/// Makes the list.
pub(crate) fn ps(observed: &Observed) -> Ps {
    let mut replicas: Vec<ReplicaView> = observed
        .replicas()
        .map(|(machine, replica)| view(machine, replica))
        .collect();
    replicas.sort_by(|a, b| {
        (&a.service, a.number, &a.machine).cmp(&(&b.service, b.number, &b.machine))
    });
    let notes = observed
        .machines
        .iter()
        .filter_map(|(name, m)| match &m.reach {
            Reach::Unreachable { reason } => Some(Note::Unseen {
                machine: name.clone(),
                reason: reason.clone(),
            }),
            _ => None,
        })
        .collect();
    Ps { replicas, notes }
}

fn view(machine: &MachineName, replica: &Replica) -> ReplicaView {
    let state = match replica.state {
        ReplicaState::Created => "created".to_owned(),
        ReplicaState::Running => "running".to_owned(),
        ReplicaState::Restarting => "restarting".to_owned(),
        ReplicaState::Paused => "paused".to_owned(),
        ReplicaState::Exited { code } => format!("exited ({code})"),
        ReplicaState::Dead => "dead".to_owned(),
    };
    let health = match (replica.state, replica.availability) {
        (ReplicaState::Running, Availability::Available) => "healthy",
        (ReplicaState::Running, Availability::Starting) => "starting",
        (ReplicaState::Running, Availability::Unavailable) => "unhealthy",
        _ => "-",
    };
    ReplicaView {
        name: format!("{}.{}", replica.service, replica.number),
        service: replica.service.clone(),
        number: replica.number,
        machine: machine.clone(),
        container: replica.id.clone(),
        container_name: replica.name.clone(),
        image: replica.image.clone(),
        state,
        health: health.to_owned(),
        ports: replica
            .ports
            .iter()
            .map(|(port, address)| format!("{address}->{port}"))
            .collect(),
        started_at: replica.started_at.clone(),
    }
}
