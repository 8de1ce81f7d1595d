//! Route tables: which proxies there are, what each routes, and when a new table must be published.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use windlass_compose::model::Project;
use windlass_ingress::{Balance, HealthCheck, Route, Upstream};
use windlass_machine::MachineName;

use super::action::{Action, ReplicaRef, RouteIntent, UpstreamIntent};
use super::builder::Builder;
use super::fleets::{Site, Sites};
use crate::observe::{Availability, Observed, Replica};

/// Names a replica in tables and in the proxy's log.
pub(crate) fn upstream_id(replica: &ReplicaRef) -> String {
    format!("{}.{}@{}", replica.service, replica.number, replica.machine)
}

/// The route as the proxy takes it.
pub(crate) fn wire_route(intent: &RouteIntent, upstreams: Vec<Upstream>) -> Route {
    let host = intent.host.clone().filter(|h| !h.starts_with("*."));
    Route {
        host: intent.host.clone(),
        path: intent.path.clone(),
        upstreams,
        health: intent.health_path.as_ref().map(|path| HealthCheck {
            path: path.clone(),
            host,
            ..HealthCheck::default()
        }),
        balance: Balance::default(),
    }
}

/// A proxy that takes tables, with the last one that the plan gives it.
struct Target {
    services: BTreeSet<String>,
    /// Steps that must be done before it answers.
    after: Vec<usize>,
    generation: u64,
    last: Last,
}

enum Last {
    /// As observed.
    InForce(Vec<Route>),
    Planned(Vec<RouteIntent>),
}

/// The tables as the plan goes on.
pub(super) struct Tables<'a> {
    project: &'a Project,
    targets: BTreeMap<MachineName, Target>,
    /// Service → replicas that get requests.
    routed: BTreeMap<String, BTreeSet<Arc<UpstreamIntent>>>,
    next_generation: u64,
    /// Publications follow each other.
    tail: Vec<usize>,
    /// Addresses in tables and statuses as observed.
    in_use: BTreeSet<SocketAddr>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(project: &'a Project, observed: &Observed, sites: &Sites<'_>) -> Self {
        let mut tables = Self {
            project,
            targets: BTreeMap::new(),
            routed: BTreeMap::new(),
            next_generation: 1,
            tail: Vec::new(),
            in_use: BTreeSet::new(),
        };
        for (machine, _, contents) in observed.reachable() {
            for replica in &contents.replicas {
                if replica.availability == Availability::Available {
                    tables.route(
                        replica_ref(machine, replica),
                        &sites.all[machine],
                        Some(replica),
                    );
                }
            }
            let answer = contents.ingress.as_ref().and_then(|i| i.answer.as_ref());
            if let Some((table, status)) = answer {
                let generation = table.generation.max(status.generation);
                tables.next_generation = tables.next_generation.max(generation + 1);
                tables.look_at(sites, &table.routes);
                tables
                    .in_use
                    .extend(status.upstreams.iter().map(|u| u.address));
            }
        }
        tables
    }

    /// What is in force; replicas on machines that nobody can see stay routed.
    fn look_at(&mut self, sites: &Sites<'_>, routes: &[Route]) {
        for upstream in routes.iter().flat_map(|r| &r.upstreams) {
            self.in_use.insert(upstream.address);
            let Some((service, number, machine)) = parse_id(&upstream.id) else {
                continue;
            };
            let has_ingress = self
                .project
                .services
                .get(service)
                .is_some_and(|s| s.ingress.is_some());
            let unseen = sites.all.get(&machine).is_some_and(Site::is_unknown);
            if has_ingress && unseen {
                let intent = UpstreamIntent {
                    replica: ReplicaRef {
                        service: service.to_owned(),
                        number,
                        machine,
                        container: String::new(),
                    },
                    host: None,
                    address: Some(upstream.address),
                };
                self.routed
                    .entry(service.to_owned())
                    .or_default()
                    .insert(Arc::new(intent));
            }
        }
    }

    /// A proxy that tables are published to, once `after` is done.
    pub(super) fn add_target(
        &mut self,
        machine: &MachineName,
        services: BTreeSet<String>,
        in_force: Option<(u64, Vec<Route>)>,
        after: Vec<usize>,
    ) {
        let (generation, routes) = in_force.unwrap_or_default();
        self.targets.insert(
            machine.clone(),
            Target {
                services,
                after,
                generation,
                last: Last::InForce(routes),
            },
        );
    }

    /// From the next table on, the replica gets requests. `observed`: it is there already and keeps its port.
    pub(super) fn route(
        &mut self,
        replica: ReplicaRef,
        site: &Site<'_>,
        observed: Option<&Replica>,
    ) {
        let Some(service) = self.project.services.get(&replica.service) else {
            return;
        };
        let Some(ingress) = &service.ingress else {
            return;
        };
        let on_host = service.network_mode.as_deref() == Some("host");
        let address = match site.address {
            Some(ip) if on_host => Some(SocketAddr::new(ip, ingress.port)),
            Some(ip) => observed.and_then(|r| r.published_on(ip, ingress.port)),
            None => None,
        };
        if observed.is_some() && address.is_none() {
            // Made before the service had an ingress: nobody reaches it.
            return;
        }
        let intent = UpstreamIntent {
            host: site.address,
            address,
            replica: replica.clone(),
        };
        self.routed
            .entry(replica.service.clone())
            .or_default()
            .insert(Arc::new(intent));
    }

    /// From the next table on, the replica gets no requests.
    pub(super) fn unroute(&mut self, replica: &ReplicaRef) {
        if let Some(set) = self.routed.get_mut(&replica.service) {
            set.retain(|u| u.replica != *replica);
        }
    }

    /// The address by which requests may still reach an observed replica.
    pub(super) fn reached_at(&self, replica: &Replica, site: &Site<'_>) -> Option<SocketAddr> {
        let ingress = self
            .project
            .services
            .get(&replica.service)
            .and_then(|s| s.ingress.as_ref());
        let known = ingress
            .zip(site.address)
            .and_then(|(i, ip)| replica.published_on(ip, i.port));
        let in_table = || {
            replica
                .ports
                .iter()
                .map(|(_, a)| *a)
                .find(|a| self.in_use.contains(a))
        };
        known.or_else(in_table)
    }

    /// Publishes what has changed, after `after`. Returns what must be done before the new tables can be relied on.
    pub(super) fn publish(&mut self, builder: &mut Builder, after: &[usize]) -> Vec<usize> {
        let generation = self.next_generation;
        let mut steps = Vec::new();
        for (machine, target) in &mut self.targets {
            let routes = routes(self.project, &target.services, &self.routed);
            let same = match &target.last {
                Last::Planned(last) => *last == routes,
                Last::InForce(in_force) => is_in_force(in_force, &routes),
            };
            if same {
                continue;
            }
            let needs = [after, &self.tail, &target.after].concat();
            target.last = Last::Planned(routes.clone());
            target.generation = generation;
            steps.push(builder.push(
                Action::PublishRoutes {
                    machine: machine.clone(),
                    generation,
                    routes,
                },
                &needs,
            ));
        }
        if steps.is_empty() {
            return [after, &self.tail].concat();
        }
        self.next_generation += 1;
        self.tail.clone_from(&steps);
        steps
    }

    /// The proxies with the generation that each has by then.
    pub(super) fn acknowledged(&self) -> BTreeMap<MachineName, u64> {
        self.targets
            .iter()
            .map(|(m, t)| (m.clone(), t.generation))
            .collect()
    }
}

fn parse_id(id: &str) -> Option<(&str, u32, MachineName)> {
    let (name, machine) = id.rsplit_once('@')?;
    let (service, number) = name.rsplit_once('.')?;
    Some((
        service,
        number.parse().ok()?,
        MachineName::new(machine).ok()?,
    ))
}

/// The replica as actions name it.
pub(super) fn replica_ref(machine: &MachineName, replica: &Replica) -> ReplicaRef {
    ReplicaRef {
        service: replica.service.clone(),
        number: replica.number,
        machine: machine.clone(),
        container: replica.name.clone(),
    }
}

fn routes(
    project: &Project,
    services: &BTreeSet<String>,
    routed: &BTreeMap<String, BTreeSet<Arc<UpstreamIntent>>>,
) -> Vec<RouteIntent> {
    let mut taken = BTreeSet::new();
    services
        .iter()
        .filter_map(|name| {
            let ingress = project.services.get(name)?.ingress.as_ref()?;
            // A proxy that is about to go may see services of several fleets.
            taken
                .insert((ingress.host.clone(), ingress.path.clone()))
                .then(|| RouteIntent {
                    service: name.clone(),
                    host: ingress.host.clone(),
                    path: ingress.path.clone(),
                    health_path: ingress.health_path.clone(),
                    port: ingress.port,
                    upstreams: routed
                        .get(name)
                        .map(|set| set.iter().cloned().collect())
                        .unwrap_or_default(),
                })
        })
        .collect()
}

/// Whether the table in force says the same.
fn is_in_force(in_force: &[Route], routes: &[RouteIntent]) -> bool {
    let mut wanted = Vec::new();
    for route in routes {
        let mut upstreams = Vec::new();
        for upstream in &route.upstreams {
            let Some(address) = upstream.address else {
                return false;
            };
            upstreams.push(Upstream {
                id: upstream_id(&upstream.replica),
                address,
            });
        }
        wanted.push(wire_route(route, upstreams));
    }
    sorted(wanted) == sorted(in_force.to_vec())
}

fn sorted(mut routes: Vec<Route>) -> Vec<Route> {
    routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    for route in &mut routes {
        route.upstreams.sort_by_key(|u| u.address);
    }
    routes
}
