//! Replicas that go: taken out of every table, drained, stopped, removed; and what holds that back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use windlass_compose::model::{Mode, Service};
use windlass_machine::MachineName;

use super::action::{Action, ReplicaRef};
use super::placement::Placed;
use super::rollout::Rollout;
use super::routes::replica_ref;
use super::{Note, Volumes};
use crate::observe::{Availability, Replica, ReplicaState};

/// Drain time of replicas whose service says none.
const DRAIN: Duration = Duration::from_secs(30);
/// A replica that goes.
#[derive(Clone)]
pub(super) struct Leaving<'r> {
    pub(super) at: ReplicaRef,
    pub(super) replica: &'r Replica,
}

impl<'a> Rollout<'_, 'a> {
    /// Takes replicas out of the tables, lets their requests end, stops and removes them.
    pub(super) fn retire(
        &mut self,
        leaving: &[Leaving<'_>],
        live: &BTreeSet<Arc<ReplicaRef>>,
        drain: Duration,
        after: &[usize],
    ) -> Vec<usize> {
        let mut after = after.to_vec();
        let counts = |l: &Leaving<'_>| l.replica.availability == Availability::Available;
        if leaving.iter().any(counts) && !live.is_empty() {
            let check = Action::CheckReplicas {
                replicas: live.iter().cloned().collect(),
            };
            after = vec![self.builder.push(check, &after)];
        }
        for l in leaving {
            self.tables.unroute(&l.at);
        }
        let published = self.tables.publish(&mut self.builder, &after);
        let mut gone = Vec::new();
        for l in leaving {
            let steps = self.end(l, drain, &published);
            self.retired
                .entry(l.at.machine.clone())
                .or_default()
                .extend(&steps);
            gone.extend(steps);
        }
        gone
    }

    fn end(&mut self, leaving: &Leaving<'_>, drain: Duration, after: &[usize]) -> Vec<usize> {
        let mut actions = Vec::new();
        let site = &self.sites.all[&leaving.at.machine];
        let ingresses = self.tables.acknowledged();
        if let Some(address) = self.tables.reached_at(leaving.replica, site)
            && !ingresses.is_empty()
        {
            actions.push(Action::Drain {
                replica: leaving.at.clone(),
                address,
                ingresses,
                within: drain,
            });
        }
        if !matches!(
            leaving.replica.state,
            ReplicaState::Created | ReplicaState::Exited { .. } | ReplicaState::Dead
        ) {
            actions.push(Action::StopReplica {
                replica: leaving.at.clone(),
            });
        }
        actions.push(Action::RemoveReplica {
            replica: leaving.at.clone(),
            anonymous_volumes: Volumes::Keep,
        });
        self.builder.chain(actions, after)
    }

    /// Retires what a service has too many of, once it is as declared otherwise.
    pub(super) fn drop_surplus(&mut self, placed: &Placed<'a>) {
        if placed.surplus.is_empty() || self.hold_back(placed) {
            return;
        }
        let declared = match placed.service.deploy.mode {
            Mode::Replicated(n) => n as usize,
            Mode::Global => placed.eligible.len(),
        };
        if placed.places.len() < declared && self.hold_for_unseen(placed) {
            return;
        }
        let live = placed
            .places
            .iter()
            .filter_map(|p| {
                p.current
                    .filter(|_| !p.differs(placed.image))
                    .map(|r| (p, r))
            })
            .filter(|(_, r)| r.availability == Availability::Available)
            .map(|(p, r)| Arc::new(replica_ref(&p.machine, r)))
            .collect();
        let leaving: Vec<Leaving<'a>> = placed
            .surplus
            .iter()
            .map(|(machine, replica)| Leaving {
                at: replica_ref(machine, replica),
                replica,
            })
            .collect();
        let ready = self.ready.get(placed.name).cloned().unwrap_or_default();
        self.retire(&leaving, &live, drain_time(Some(placed.service)), &ready);
    }

    /// Retires the replicas of services that are declared no more. Their last steps are returned.
    pub(super) fn drop_undeclared(&mut self, after: &[usize]) -> Vec<usize> {
        let mut leaving = Vec::new();
        for (site, contents) in self.sites.ready() {
            for replica in &contents.replicas {
                if self.project.services.contains_key(&replica.service) {
                    continue;
                }
                if self.may_be_routed(&site.name, replica) && self.hold(&replica.service) {
                    continue;
                }
                leaving.push(Leaving {
                    at: replica_ref(&site.name, replica),
                    replica,
                });
            }
        }
        if leaving.is_empty() {
            return Vec::new();
        }
        self.retire(&leaving, &BTreeSet::new(), DRAIN, after)
    }

    /// Whether some replica of the service must not be stopped, because a proxy may send requests there.
    pub(super) fn hold_back(&mut self, placed: &Placed<'_>) -> bool {
        let current = placed.places.iter();
        let routed = placed.service.ingress.is_some()
            || current
                .filter_map(|p| p.current.map(|r| (&p.machine, r)))
                .chain(placed.surplus.iter().map(|(m, r)| (m, *r)))
                .any(|(machine, replica)| self.may_be_routed(machine, replica));
        routed && self.hold(placed.name)
    }

    /// Published where a proxy reaches it, or in a table.
    fn may_be_routed(&self, machine: &MachineName, replica: &Replica) -> bool {
        let site = &self.sites.all[machine];
        let private = replica
            .ports
            .iter()
            .any(|(_, a)| Some(a.ip()) == site.address);
        private || self.tables.reached_at(replica, site).is_some()
    }

    /// What cannot be seen can neither be counted as gone nor as well.
    pub(super) fn hold_for_unseen(&mut self, placed: &Placed<'_>) -> bool {
        let unseen = placed
            .eligible
            .iter()
            .find(|m| self.sites.all[*m].is_unknown());
        if let Some(machine) = unseen {
            self.builder.note(Note::HeldBack {
                service: placed.name.to_owned(),
                reason: format!(
                    "machine {machine} cannot be reached, and fewer would be left than declared"
                ),
            });
        }
        unseen.is_some()
    }

    /// Whether replicas that get requests must not be stopped now.
    fn hold(&mut self, service: &str) -> bool {
        let Some(machine) = self.unseen_proxies.first() else {
            return false;
        };
        let reason = format!(
            "the ingress on {machine} cannot be asked to let go of it (start that machine, or `windlass rm` it)"
        );
        self.builder.note(Note::HeldBack {
            service: service.to_owned(),
            reason,
        });
        true
    }
}

/// How long requests in progress may take.
pub(super) fn drain_time(service: Option<&Service>) -> Duration {
    service
        .and_then(|s| s.ingress.as_ref())
        .map_or(DRAIN, |i| i.drain)
}
