//! The steps of services: missing replicas made, differing ones replaced in batches, surplus ones retired.
//!
//! A replica is stopped only after every proxy has a table without it and its requests are done, and never below the declared availability.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windlass_compose::model::{Healthcheck, Order, Project, Restart, Service};
use windlass_machine::MachineName;

use super::action::{Action, ReplicaRef, Until};
use super::builder::Builder;
use super::fleets::Sites;
use super::order::is_awaited_to_complete;
use super::placement::{Place, Placed};
use super::retire::{Leaving, drain_time};
use super::routes::{Tables, replica_ref};
use super::{Settings, Volumes};
use crate::observe::{Availability, Replica, ReplicaState};

/// How long something may take that has to complete.
const COMPLETE_WITHIN: Duration = Duration::from_secs(3600);

/// The services' part of a plan in the making.
pub(super) struct Rollout<'p, 'a> {
    pub(super) project: &'a Project,
    pub(super) settings: &'a Settings,
    pub(super) sites: &'p Sites<'a>,
    pub(super) builder: Builder,
    pub(super) tables: Tables<'a>,
    /// Steps that prepare a machine: networks, volumes.
    pub(super) prepared: BTreeMap<MachineName, Vec<usize>>,
    /// Steps after which a service is as declared.
    pub(super) ready: BTreeMap<String, Vec<usize>>,
    /// Last steps on machines where something was retired.
    pub(super) retired: BTreeMap<MachineName, Vec<usize>>,
    /// A proxy that cannot be asked may still send requests to any replica.
    pub(super) unseen_proxies: BTreeSet<MachineName>,
    /// Names of containers, so that none is given twice.
    pub(super) names: BTreeSet<(MachineName, String)>,
}

impl<'a> Rollout<'_, 'a> {
    /// All steps of one service but the retirement of its surplus.
    pub(super) fn bring_up(&mut self, placed: &Placed<'a>) {
        let mut after: Vec<usize> = Vec::new();
        for dependency in placed.service.depends_on.keys() {
            after.extend(self.ready.get(dependency).into_iter().flatten());
        }
        let mut well: Vec<usize> = after.clone();
        let mut live: BTreeSet<Arc<ReplicaRef>> = BTreeSet::new();
        let mut differing = Vec::new();
        for place in &placed.places {
            match place.current {
                Some(replica) if place.differs(placed.image) => {
                    if replica.availability == Availability::Available {
                        live.insert(Arc::new(replica_ref(&place.machine, replica)));
                    }
                    differing.push(place);
                }
                Some(replica) => {
                    let (at, steps) = self.repair(placed, place, replica, &after);
                    well.extend(steps);
                    live.extend(at.map(Arc::new));
                }
                None => {
                    let name = self.free_name(placed.name, place, None);
                    let (at, steps) = self.create(placed, place, name, &after);
                    well.extend(steps);
                    live.insert(Arc::new(at));
                }
            }
        }
        let mut tail = well;
        if placed.service.ingress.is_some() {
            tail = self.tables.publish(&mut self.builder, &tail);
        }
        let stops_first = placed.service.deploy.update.order == Order::StopFirst;
        let held = !differing.is_empty()
            && (self.hold_back(placed) || (stops_first && self.hold_for_unseen(placed)));
        if !differing.is_empty() && !held {
            tail = self.replace_all(placed, differing, live, tail);
        }
        self.ready.insert(placed.name.to_owned(), tail);
    }

    /// Makes and starts a replica and waits for it. It is routed from the next table on.
    fn create(
        &mut self,
        placed: &Placed<'a>,
        place: &Place<'a>,
        name: String,
        after: &[usize],
    ) -> (ReplicaRef, Vec<usize>) {
        let replica = ReplicaRef {
            service: placed.name.to_owned(),
            number: place.number,
            machine: place.machine.clone(),
            container: name,
        };
        let create = Action::CreateReplica {
            replica: replica.clone(),
            image: placed.image.to_owned(),
            spec: place
                .spec
                .as_ref()
                .map(|s| s.hash.clone())
                .unwrap_or_default(),
            container: place.spec.clone(),
            release: self.settings.release.clone(),
        };
        let prepared = self.prepared.get(&place.machine).cloned();
        let needs = [after, &prepared.unwrap_or_default()].concat();
        let actions = vec![
            create,
            Action::StartReplica {
                replica: replica.clone(),
            },
            self.wait(placed, &replica),
        ];
        let steps = self.builder.chain(actions, &needs);
        self.tables
            .route(replica.clone(), &self.sites.all[&place.machine], None);
        (replica, steps)
    }

    fn wait(&self, placed: &Placed<'_>, replica: &ReplicaRef) -> Action {
        let completes = is_awaited_to_complete(self.project, placed.name);
        Action::WaitReplica {
            replica: replica.clone(),
            until: if completes {
                Until::Completed
            } else {
                Until::Well
            },
            within: if completes {
                COMPLETE_WITHIN
            } else {
                time_to_get_well(placed.service.healthcheck.as_ref())
            },
        }
    }

    /// What a replica still needs that is made from the right thing. It counts as well when it is available.
    fn repair(
        &mut self,
        placed: &Placed<'a>,
        place: &Place<'a>,
        replica: &'a Replica,
        after: &[usize],
    ) -> (Option<ReplicaRef>, Vec<usize>) {
        let at = replica_ref(&place.machine, replica);
        if is_done(self.project, placed.name, placed.service, replica) {
            return (None, Vec::new());
        }
        let completes = is_awaited_to_complete(self.project, placed.name);
        match replica.state {
            ReplicaState::Running
                if replica.availability == Availability::Available && !completes =>
            {
                (Some(at), Vec::new())
            }
            ReplicaState::Running | ReplicaState::Restarting | ReplicaState::Paused => {
                let wait = self.wait(placed, &at);
                let steps = self.builder.chain(vec![wait], after);
                self.reroute(place, &at, Some(replica));
                (Some(at), steps)
            }
            ReplicaState::Dead => {
                let remove = vec![Action::RemoveReplica {
                    replica: at,
                    anonymous_volumes: Volumes::Keep,
                }];
                let removed = self.builder.chain(remove, after);
                let (at, steps) = self.create(placed, place, replica.name.clone(), &removed);
                (Some(at), steps)
            }
            ReplicaState::Created | ReplicaState::Exited { .. } => {
                let start = Action::StartReplica {
                    replica: at.clone(),
                };
                let wait = self.wait(placed, &at);
                let steps = self.builder.chain(vec![start, wait], after);
                // A start chooses a port anew.
                self.reroute(place, &at, None);
                (Some(at), steps)
            }
        }
    }

    fn reroute(&mut self, place: &Place<'_>, at: &ReplicaRef, observed: Option<&Replica>) {
        self.tables.unroute(at);
        self.tables
            .route(at.clone(), &self.sites.all[&place.machine], observed);
    }

    /// Batch after batch; what is not well goes first, for nothing is lost with it.
    fn replace_all(
        &mut self,
        placed: &Placed<'a>,
        mut differing: Vec<&Place<'a>>,
        mut live: BTreeSet<Arc<ReplicaRef>>,
        mut tail: Vec<usize>,
    ) -> Vec<usize> {
        let is_available = |p: &&Place<'_>| {
            p.current
                .is_some_and(|r| r.availability == Availability::Available)
        };
        differing.sort_by_key(|p| (is_available(p), p.number, p.machine.clone()));
        let at_once = placed.service.deploy.update.parallelism.max(1) as usize;
        for batch in differing.chunks(at_once) {
            let leaving: Vec<Leaving<'a>> = batch
                .iter()
                .filter_map(|p| {
                    p.current.map(|replica| Leaving {
                        at: replica_ref(&p.machine, replica),
                        replica,
                    })
                })
                .collect();
            for l in &leaving {
                live.remove(&l.at);
            }
            tail = match placed.service.deploy.update.order {
                Order::StartFirst => self.start_first(placed, batch, &leaving, &mut live, tail),
                Order::StopFirst => self.stop_first(placed, batch, &leaving, &mut live, tail),
            };
        }
        tail
    }

    fn start_first(
        &mut self,
        placed: &Placed<'a>,
        batch: &[&Place<'a>],
        leaving: &[Leaving<'a>],
        live: &mut BTreeSet<Arc<ReplicaRef>>,
        tail: Vec<usize>,
    ) -> Vec<usize> {
        let mut well = Vec::new();
        for place in batch {
            let name = self.free_name(placed.name, place, None);
            let (at, steps) = self.create(placed, place, name, &tail);
            well.extend(steps);
            live.insert(Arc::new(at));
        }
        let drain = drain_time(Some(placed.service));
        self.retire(leaving, live, drain, &well)
    }

    fn stop_first(
        &mut self,
        placed: &Placed<'a>,
        batch: &[&Place<'a>],
        leaving: &[Leaving<'a>],
        live: &mut BTreeSet<Arc<ReplicaRef>>,
        tail: Vec<usize>,
    ) -> Vec<usize> {
        let drain = drain_time(Some(placed.service));
        let gone = self.retire(leaving, live, drain, &tail);
        let mut well = Vec::new();
        for place in batch {
            let name = self.free_name(placed.name, place, place.current);
            let (at, steps) = self.create(placed, place, name, &gone);
            well.extend(steps);
            live.insert(Arc::new(at));
        }
        if placed.service.ingress.is_some() {
            well = self.tables.publish(&mut self.builder, &well);
        }
        well
    }

    /// A name that no container on the machine has: `shop-web-1`, or with the beginning of its digest. `replaces` is gone by then.
    fn free_name(
        &mut self,
        service: &str,
        place: &Place<'_>,
        replaces: Option<&Replica>,
    ) -> String {
        if let Some(replica) = replaces {
            return replica.name.clone();
        }
        let base = format!("{}-{service}-{}", self.project.name, place.number);
        let digest = place.spec.as_ref().map_or("new", |s| &s.hash[..6]);
        let candidates = [base.clone(), format!("{base}-{digest}")]
            .into_iter()
            .chain((2..).map(|n| format!("{base}-{digest}-{n}")));
        for name in candidates {
            if self.names.insert((place.machine.clone(), name.clone())) {
                return name;
            }
        }
        base
    }
}

/// Whether a replica has done what it was for.
fn is_done(project: &Project, name: &str, service: &Service, replica: &Replica) -> bool {
    let may_end = is_awaited_to_complete(project, name)
        || matches!(service.restart, Restart::No | Restart::OnFailure { .. });
    may_end && replica.state == ReplicaState::Exited { code: 0 }
}

/// As long as its check may take to make up its mind, and a minute for a slow start.
fn time_to_get_well(check: Option<&Healthcheck>) -> Duration {
    let half_a_minute = Duration::from_secs(30);
    let (start, interval, timeout, retries) = check.map_or((None, None, None, None), |c| {
        (c.start_period, c.interval, c.timeout, c.retries)
    });
    let probe = interval.unwrap_or(half_a_minute) + timeout.unwrap_or(half_a_minute);
    start.unwrap_or_default() + probe * (retries.unwrap_or(3) + 1) + 2 * half_a_minute
}
