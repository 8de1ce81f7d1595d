//! The plan of `down`: what the project made goes; machines made by `windlass create` and, unless asked, volumes stay.

use windlass_machine::MachineName;

use super::action::Action;
use super::builder::Builder;
use super::routes::replica_ref;
use super::{Note, Plan, Volumes};
use crate::ingress;
use crate::observe::{Contents, Observed, Reach, ReplicaState};

/// What must be done so that nothing of the project is left; empty when it is so.
pub fn plan_down(project: &str, observed: &Observed, volumes: Volumes) -> Plan {
    let mut builder = Builder::default();
    for (name, machine) in &observed.machines {
        let ours = machine.host.project.as_deref() == Some(project);
        match &machine.reach {
            Reach::Ready(contents) => {
                let state = ingress::state_volume(project);
                clear(&mut builder, name, contents, &state, ours, volumes);
            }
            Reach::Unfinished if ours => {
                let machine = name.clone();
                builder.push(Action::RemoveMachine { machine }, &[]);
            }
            Reach::Unfinished => {}
            Reach::Unreachable { .. } if ours && volumes == Volumes::Remove => {
                let machine = name.clone();
                builder.push(Action::RemoveMachine { machine }, &[]);
            }
            Reach::Unreachable { reason } => {
                let (machine, reason) = (name.clone(), reason.clone());
                builder.note(if ours {
                    Note::Unreachable { machine, reason }
                } else {
                    Note::Unseen { machine, reason }
                });
            }
        }
    }
    builder.finish()
}

/// Proxy first, so that requests in progress end; then replicas, and what they used.
fn clear(
    builder: &mut Builder,
    machine: &MachineName,
    contents: &Contents,
    state_volume: &str,
    ours: bool,
    volumes: Volumes,
) {
    let data: Vec<String> = contents
        .volumes
        .iter()
        .filter(|v| v.ours)
        .map(|v| v.name.clone())
        .collect();
    let keeps_data = volumes == Volumes::Keep && !data.is_empty();
    let goes = ours && !keeps_data;
    let mut tail = Vec::new();
    if contents.ingress.is_some() {
        let machine = machine.clone();
        tail = vec![builder.push(Action::RemoveIngress { machine }, &[])];
    }
    let mut gone = tail.clone();
    for replica in &contents.replicas {
        let at = replica_ref(machine, replica);
        let mut actions = Vec::new();
        if !matches!(
            replica.state,
            ReplicaState::Created | ReplicaState::Exited { .. } | ReplicaState::Dead
        ) {
            actions.push(Action::StopReplica {
                replica: at.clone(),
            });
        }
        if !goes {
            actions.push(Action::RemoveReplica {
                replica: at,
                anonymous_volumes: volumes,
            });
        }
        gone.extend(builder.chain(actions, &tail));
    }
    if goes {
        let machine = machine.clone();
        builder.push(Action::RemoveMachine { machine }, &gone);
        return;
    }
    for network in contents.networks.iter().filter(|n| n.ours) {
        builder.push(
            Action::RemoveNetwork {
                machine: machine.clone(),
                network: network.name.clone(),
            },
            &gone,
        );
    }
    let own_state = contents.volumes.iter().filter(|v| v.name == state_volume);
    let asked = contents
        .volumes
        .iter()
        .filter(|v| v.ours && volumes == Volumes::Remove);
    for volume in own_state.chain(asked) {
        builder.push(
            Action::RemoveVolume {
                machine: machine.clone(),
                volume: volume.name.clone(),
            },
            &gone,
        );
    }
    if ours {
        builder.note(Note::Kept {
            machine: machine.clone(),
            volumes: data,
        });
    }
}
