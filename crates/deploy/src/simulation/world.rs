//! The simulated world. It carries out actions on values, refuses what a real engine would refuse, and writes down every broken promise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use windlass_compose::model::{Dependency, Mode, Order, Project};
use windlass_ingress::{RouteTable, Status, Upstream};
use windlass_machine::{MachineName, Slot};

use crate::apply::{Executor, World};
use crate::error::{ActionError, Result};
use crate::hosts::Host;
use crate::observe::{
    Availability, Contents, Network, Observed, ObservedIngress, ObservedMachine, Reach, Replica,
    ReplicaState, Volume,
};
use crate::plan::{Action, ReplicaRef, RouteIntent, Until, upstream_id, wire_route};
use crate::spec::{ContainerSpec, digest, labels};

/// A machine of the world.
pub(super) struct SimMachine {
    pub(super) host: Host,
    /// Nobody can talk to it; what runs on it goes on.
    pub(super) unreachable: bool,
    pub(super) contents: Contents,
    /// Container name → what it was made from.
    pub(super) specs: BTreeMap<String, ContainerSpec>,
    next_port: u16,
}

/// What goes wrong, and when: at the n-th action from now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The action is not done, and the run ends.
    InterruptedBefore,
    /// The action is done, and the run ends before anybody knows.
    InterruptedAfter,
    /// A running container ends.
    ContainerDies(usize),
    /// Somebody takes a machine off the network.
    MachineLost(usize),
}

/// What is promised of a service while it is changed.
#[derive(Clone, Copy, Debug)]
struct Promise {
    least: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) machines: BTreeMap<MachineName, SimMachine>,
    pub(super) faults: BTreeMap<usize, Fault>,
    actions: usize,
    addresses: usize,
    /// Service → containers that have died since somebody looked.
    unnoticed: BTreeMap<String, usize>,
    /// Service → replicas that were available when somebody looked.
    seen: BTreeMap<String, usize>,
    pub(super) broken: Vec<String>,
    promises: BTreeMap<String, Promise>,
    removing: bool,
    /// Images that never get well.
    pub(super) bad_images: BTreeSet<String>,
    /// What was brought about last.
    pub(super) applied: Option<Project>,
    /// Volumes of ours that were removed by name.
    pub(super) removed_volumes: Vec<String>,
}

/// The world with one project in it.
pub(super) struct Sim {
    pub(super) project: String,
    /// References that are asked for.
    images: Mutex<BTreeSet<String>>,
    state: Mutex<State>,
}

fn interrupted() -> ActionError {
    ActionError::Host("interrupted".to_owned(), None)
}

fn refused(what: String) -> ActionError {
    ActionError::Host(what, None)
}

impl Sim {
    pub(super) fn new(project: &str, standalone: usize) -> Self {
        let mut state = State::default();
        for n in 1..=standalone {
            let name = MachineName::new(format!("vps{n}")).expect("name");
            state.add(name, None, None, &BTreeMap::new());
        }
        Self {
            project: project.to_owned(),
            images: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    /// From now on this is what is declared: what is asked for, and what is promised.
    pub(super) fn declare(&self, project: &Project, counts: &BTreeMap<String, u32>) {
        *self.images.lock().expect("images") =
            project.services.values().map(|s| s.image.clone()).collect();
        let standalone = self
            .state()
            .machines
            .values()
            .filter(|m| m.host.project.is_none())
            .count();
        let mut state = self.state();
        state.removing = false;
        state.promises.clear();
        for (name, service) in &project.services {
            let declared = match service.deploy.mode {
                Mode::Replicated(n) => n as usize,
                Mode::Global => match service.deploy.constraints.first() {
                    Some(c) if c.key == "node.labels.fleet" => counts[&c.value] as usize,
                    Some(c) if c.equal => 1,
                    Some(_) => standalone,
                    None if project.fleets.is_empty() => standalone,
                    None => *counts.values().next().expect("one fleet") as usize,
                },
            };
            let spare = match service.deploy.update.order {
                Order::StopFirst => service.deploy.update.parallelism as usize,
                Order::StartFirst => 0,
            };
            // A job that has to end is never available for long.
            let is_job = project
                .services
                .values()
                .any(|s| s.depends_on.get(name) == Some(&Dependency::Completed));
            let least = if is_job {
                0
            } else {
                declared.saturating_sub(spare)
            };
            state.promises.insert(name.clone(), Promise { least });
        }
    }

    /// From now on nothing is promised but the volumes.
    pub(super) fn declare_nothing(&self) {
        self.images.lock().expect("images").clear();
        let mut state = self.state();
        state.removing = true;
        state.promises.clear();
    }
}

impl State {
    fn add(
        &mut self,
        name: MachineName,
        project: Option<String>,
        slot: Option<Slot>,
        fleet_labels: &BTreeMap<String, String>,
    ) {
        self.addresses += 1;
        let n = self.addresses;
        let at = |network: &str| format!("{network}.{}.{}", n / 200, n % 200 + 1);
        // Every other one has a network of its own.
        let private_address = n.is_multiple_of(2).then(|| at("10.0"));
        let machine = SimMachine {
            host: Host {
                name: name.clone(),
                slot,
                project,
                labels: fleet_labels.clone(),
                address: Some(at("198.18")),
                private_address,
                ready: true,
                unfinished: false,
            },
            unreachable: false,
            contents: Contents {
                architecture: "x86_64".to_owned(),
                ..Contents::default()
            },
            specs: BTreeMap::new(),
            next_port: 32768,
        };
        self.machines.insert(name, machine);
    }

    fn machine(&mut self, name: &MachineName) -> Result<&mut SimMachine, ActionError> {
        match self.machines.get_mut(name) {
            Some(m) if !m.unreachable => Ok(m),
            _ => Err(refused(format!("machine {name} cannot be reached"))),
        }
    }

    fn break_promise(&mut self, what: String) {
        self.broken.push(what);
    }

    /// Every table in force anywhere.
    fn tables(&self) -> impl Iterator<Item = (&MachineName, &RouteTable)> {
        self.machines.iter().filter_map(|(name, m)| {
            let ingress = m.contents.ingress.as_ref().filter(|i| i.running)?;
            Some((name, &ingress.answer.as_ref()?.0))
        })
    }

    pub(super) fn available(&self, service: &str) -> usize {
        self.machines
            .values()
            .flat_map(|m| &m.contents.replicas)
            .filter(|r| r.service == service && r.availability == Availability::Available)
            .count()
    }

    /// Before a running replica is stopped by us.
    fn check_stop(&mut self, at: &ReplicaRef) {
        if self.removing {
            return;
        }
        let Some(replica) = self.machines[&at.machine]
            .contents
            .replicas
            .iter()
            .find(|r| r.name == at.container)
            .cloned()
        else {
            return;
        };
        let routed: Vec<String> = self
            .tables()
            .filter(|(_, t)| replica.ports.iter().any(|(_, a)| t.contains(*a)))
            .map(|(m, _)| m.to_string())
            .collect();
        if !routed.is_empty() && replica.state == ReplicaState::Running {
            self.break_promise(format!("{at} is stopped while {routed:?} route to it"));
        }
        if replica.availability != Availability::Available {
            return;
        }
        if let Some(promise) = self.promises.get(&at.service).copied() {
            let left = self.available(&at.service) - 1;
            let unnoticed = self.unnoticed.get(&at.service).copied().unwrap_or(0);
            // What was missing because a machine is out of reach need not be made up for, only not made worse.
            let least = if self.machines.values().any(|m| m.unreachable) {
                let seen = self.seen.get(&at.service).copied().unwrap_or(0);
                promise.least.min(seen)
            } else {
                promise.least
            };
            if left + unnoticed < least {
                self.break_promise(format!(
                    "{at} is stopped, which leaves {left} of at least {least}"
                ));
            }
        }
    }

    fn kill_one(&mut self, which: usize) {
        let mut running: Vec<(MachineName, usize)> = Vec::new();
        for (name, m) in &self.machines {
            for (i, r) in m.contents.replicas.iter().enumerate() {
                if r.state == ReplicaState::Running {
                    running.push((name.clone(), i));
                }
            }
        }
        if running.is_empty() {
            return;
        }
        let (machine, index) = &running[which % running.len()];
        if let Some(m) = self.machines.get_mut(machine) {
            let replica = &mut m.contents.replicas[*index];
            if replica.availability == Availability::Available {
                *self.unnoticed.entry(replica.service.clone()).or_default() += 1;
            }
            replica.state = ReplicaState::Exited { code: 137 };
            replica.availability = Availability::Unavailable;
            replica.ports.clear();
        }
    }

    fn lose_one(&mut self, which: usize) {
        let count = self.machines.len().max(1);
        if let Some(m) = self.machines.values_mut().nth(which % count) {
            m.unreachable = true;
        }
    }
}

/// Single actions.
impl State {
    fn perform(&mut self, project: &str, action: &Action) -> Result<(), ActionError> {
        match action {
            Action::CreateMachine { machine, slot } => {
                match self.machines.get_mut(machine) {
                    Some(there) => there.host.unfinished = false,
                    None => self.add(
                        machine.clone(),
                        Some(project.to_owned()),
                        Some(slot.clone()),
                        &BTreeMap::new(),
                    ),
                }
                Ok(())
            }
            Action::PullImage { machine, image } | Action::BuildImage { machine, image, .. } => {
                let images = &mut self.machine(machine)?.contents.images;
                images.insert(image.clone(), digest(image.as_bytes()));
                Ok(())
            }
            Action::CreateNetwork {
                machine, network, ..
            } => {
                let network = Network {
                    name: network.clone(),
                    ours: true,
                };
                let networks = &mut self.machine(machine)?.contents.networks;
                networks.retain(|n| *n != network);
                networks.push(network);
                Ok(())
            }
            Action::CreateVolume {
                machine, volume, ..
            } => {
                let volume = Volume {
                    name: volume.clone(),
                    ours: true,
                };
                let volumes = &mut self.machine(machine)?.contents.volumes;
                volumes.retain(|v| *v != volume);
                volumes.push(volume);
                Ok(())
            }
            Action::StartIngress { machine, spec, .. } => {
                let m = self.machine(machine)?;
                let old = m.contents.ingress.take();
                if old.as_ref().is_some_and(|i| i.spec != *spec) {
                    return Err(refused("the name of the ingress is taken".to_owned()));
                }
                let answer = old.and_then(|i| i.answer).unwrap_or_default();
                m.contents.ingress = Some(ObservedIngress {
                    id: "ingress".to_owned(),
                    spec: spec.clone(),
                    running: true,
                    answer: Some(answer),
                });
                Ok(())
            }
            Action::RemoveIngress { machine } => {
                self.machine(machine)?.contents.ingress = None;
                Ok(())
            }
            Action::PublishRoutes {
                machine,
                generation,
                routes,
            } => self.publish(machine, *generation, routes),
            Action::Drain {
                address, ingresses, ..
            } => self.drained(*address, ingresses),
            Action::CheckReplicas { replicas } => self.check(replicas),
            Action::RemoveNetwork { machine, network } => {
                let contents = &mut self.machine(machine)?.contents;
                contents.networks.retain(|n| n.name != *network);
                Ok(())
            }
            Action::RemoveVolume { machine, volume } => {
                let contents = &mut self.machine(machine)?.contents;
                contents.volumes.retain(|v| v.name != *volume);
                self.removed_volumes.push(volume.clone());
                Ok(())
            }
            Action::RemoveMachine { machine } => self.remove_machine(machine),
            Action::CreateReplica {
                replica, container, ..
            } => {
                let container = container.as_ref().ok_or(ActionError::NotKnown("image"))?;
                self.create(replica, container)
            }
            Action::StartReplica { replica } => self.start(replica),
            Action::WaitReplica { replica, until, .. } => self.wait(replica, *until),
            Action::StopReplica { replica } => self.stop(replica),
            Action::RemoveReplica { replica, .. } => self.remove(replica),
        }
    }

    fn replica(&mut self, at: &ReplicaRef) -> Result<Option<&mut Replica>, ActionError> {
        let m = self.machine(&at.machine)?;
        Ok(m.contents
            .replicas
            .iter_mut()
            .find(|r| r.name == at.container))
    }

    fn create(&mut self, at: &ReplicaRef, spec: &ContainerSpec) -> Result<(), ActionError> {
        let m = self.machine(&at.machine)?;
        if m.specs.get(&at.container) == Some(spec) {
            return Ok(());
        }
        if m.specs.contains_key(&at.container) {
            self.break_promise(format!("{}: the name is taken", at.container));
            return Err(refused("name taken".to_owned()));
        }
        let create = &spec.create;
        let network = &create.host_config.network_mode;
        let missing = !m.contents.images.contains_key(&create.config.image)
            || !m.contents.networks.iter().any(|n| n.name == *network)
            || create.host_config.mounts.iter().any(|v| {
                !m.contents
                    .volumes
                    .iter()
                    .any(|there| there.name == v.source)
            });
        m.specs.insert(at.container.clone(), spec.clone());
        m.contents.replicas.push(Replica {
            id: format!("{}@{}", at.container, at.machine),
            name: at.container.clone(),
            service: create.config.labels[labels::SERVICE].clone(),
            number: at.number,
            spec: spec.hash.clone(),
            release: String::new(),
            image: create.config.image.clone(),
            state: ReplicaState::Created,
            availability: Availability::Unavailable,
            started_at: String::new(),
            ports: Vec::new(),
        });
        if missing {
            self.break_promise(format!("{at} is created before what it needs"));
        }
        Ok(())
    }

    fn start(&mut self, at: &ReplicaRef) -> Result<(), ActionError> {
        let m = self.machine(&at.machine)?;
        let Some(spec) = m.specs.get(&at.container).cloned() else {
            return Err(ActionError::Changed(at.to_string()));
        };
        let mut ports = Vec::new();
        for (port, bindings) in &spec.create.host_config.port_bindings {
            for b in bindings {
                let ip = if b.host_ip.is_empty() {
                    "0.0.0.0"
                } else {
                    &b.host_ip
                };
                let number = if b.host_port.is_empty() {
                    m.next_port += 1;
                    m.next_port
                } else {
                    b.host_port.parse().expect("port")
                };
                ports.push((
                    port.clone(),
                    SocketAddr::new(ip.parse().expect("ip"), number),
                ));
            }
        }
        let taken = m.contents.replicas.iter().any(|r| {
            r.name != at.container
                && r.ports
                    .iter()
                    .any(|(_, a)| ports.iter().any(|(_, b)| a == b))
        });
        for r in &mut m.contents.replicas {
            if r.name == at.container && r.state != ReplicaState::Running {
                r.state = ReplicaState::Running;
                r.availability = Availability::Starting;
                r.ports.clone_from(&ports);
            }
        }
        if taken {
            self.break_promise(format!("{at} is started while its port is taken"));
        }
        Ok(())
    }

    fn wait(&mut self, at: &ReplicaRef, until: Until) -> Result<(), ActionError> {
        let bad = self.bad_images.clone();
        let Some(replica) = self.replica(at)? else {
            return Err(ActionError::Changed(at.to_string()));
        };
        if until == Until::Completed {
            replica.state = ReplicaState::Exited { code: 0 };
            replica.availability = Availability::Unavailable;
            replica.ports.clear();
            return Ok(());
        }
        let well = replica.state == ReplicaState::Running && !bad.contains(&replica.image);
        if well {
            replica.availability = Availability::Available;
            return Ok(());
        }
        replica.availability = Availability::Unavailable;
        Err(ActionError::Unwell {
            replica: at.to_string(),
            problem: "it is bad".to_owned(),
            log: String::new(),
        })
    }

    fn check(&mut self, replicas: &[Arc<ReplicaRef>]) -> Result<(), ActionError> {
        for at in replicas {
            match self.replica(at)? {
                Some(r) if r.availability == Availability::Available => {}
                _ => return Err(ActionError::Changed(at.to_string())),
            }
        }
        if let Some(first) = replicas.first() {
            self.unnoticed.remove(&first.service);
        }
        Ok(())
    }

    fn stop(&mut self, at: &ReplicaRef) -> Result<(), ActionError> {
        self.machine(&at.machine)?;
        self.check_stop(at);
        if let Some(replica) = self.replica(at)? {
            replica.state = ReplicaState::Exited { code: 0 };
            replica.availability = Availability::Unavailable;
            replica.ports.clear();
        }
        Ok(())
    }

    fn remove(&mut self, at: &ReplicaRef) -> Result<(), ActionError> {
        if let Some(replica) = self.replica(at)?
            && replica.state == ReplicaState::Running
        {
            return Err(refused(format!("{at} runs")));
        }
        let m = self.machine(&at.machine)?;
        m.specs.remove(&at.container);
        m.contents.replicas.retain(|r| r.name != at.container);
        Ok(())
    }

    fn publish(
        &mut self,
        machine: &MachineName,
        generation: u64,
        routes: &[RouteIntent],
    ) -> Result<(), ActionError> {
        let mut table = RouteTable {
            generation,
            routes: Vec::new(),
        };
        for route in routes {
            let mut upstreams = Vec::new();
            for u in &route.upstreams {
                let address = match u.address {
                    Some(address) => Some(address),
                    None => self
                        .replica(&u.replica)?
                        .and_then(|r| u.host.and_then(|ip| r.published_on(ip, route.port))),
                };
                let address = address.ok_or_else(|| ActionError::Changed(u.replica.to_string()))?;
                let id = upstream_id(&u.replica);
                upstreams.push(Upstream { id, address });
            }
            table.routes.push(wire_route(route, upstreams));
        }
        if let Err(e) = table.validate() {
            self.break_promise(format!("table {generation} on {machine}: {e}"));
        }
        let m = self.machine(machine)?;
        let Some(ingress) = m.contents.ingress.as_mut() else {
            return Err(ActionError::Changed(format!("the ingress on {machine}")));
        };
        let former = ingress.answer.as_ref().map_or(0, |(t, _)| t.generation);
        let status = Status {
            generation,
            upstreams: Vec::new(),
        };
        ingress.answer = Some((table, status));
        if former >= generation {
            self.break_promise(format!("{machine}: table {generation} after {former}"));
        }
        Ok(())
    }

    fn drained(
        &mut self,
        address: SocketAddr,
        ingresses: &BTreeMap<MachineName, u64>,
    ) -> Result<(), ActionError> {
        for (machine, generation) in ingresses {
            let m = self.machine(machine)?;
            let table = m.contents.ingress.as_ref().and_then(|i| i.answer.as_ref());
            match table {
                Some((t, _)) if t.generation >= *generation && !t.contains(address) => {}
                _ => return Err(ActionError::Changed(format!("the table on {machine}"))),
            }
        }
        Ok(())
    }

    fn remove_machine(&mut self, machine: &MachineName) -> Result<(), ActionError> {
        let Some(m) = self.machines.get(machine) else {
            return Ok(());
        };
        if m.host.project.is_none() {
            self.break_promise(format!("{machine} is not the project's, and removed"));
        }
        let running: Vec<ReplicaRef> = self.machines[machine]
            .contents
            .replicas
            .iter()
            .filter(|r| r.state == ReplicaState::Running)
            .map(|r| ReplicaRef {
                service: r.service.clone(),
                number: r.number,
                machine: machine.clone(),
                container: r.name.clone(),
            })
            .collect();
        if !running.is_empty() && !self.removing {
            self.break_promise(format!("{machine} is removed while {running:?} run"));
        }
        self.machines.remove(machine);
        Ok(())
    }
}

#[async_trait]
impl Executor for Sim {
    async fn execute(&self, action: &Action) -> Result<(), ActionError> {
        let mut state = self.state();
        let at = state.actions;
        state.actions += 1;
        match state.faults.remove(&at) {
            Some(Fault::InterruptedBefore) => {
                if let Action::CreateMachine { machine, slot } = action
                    && !state.machines.contains_key(machine)
                {
                    // The intent is there, the machine is not.
                    let project = Some(self.project.clone());
                    state.add(
                        machine.clone(),
                        project,
                        Some(slot.clone()),
                        &BTreeMap::new(),
                    );
                    if let Some(m) = state.machines.get_mut(machine) {
                        m.host.unfinished = true;
                    }
                }
                return Err(interrupted());
            }
            Some(Fault::InterruptedAfter) => {
                state.perform(&self.project, action)?;
                return Err(interrupted());
            }
            Some(Fault::ContainerDies(which)) => state.kill_one(which),
            Some(Fault::MachineLost(which)) => state.lose_one(which),
            None => {}
        }
        state.perform(&self.project, action)
    }
}

#[async_trait]
impl World for Sim {
    async fn observe(&self) -> Result<Observed> {
        let asked = self.images.lock().expect("images").clone();
        let mut state = self.state();
        state.unnoticed.clear();
        let services: Vec<String> = state.promises.keys().cloned().collect();
        state.seen = services
            .into_iter()
            .map(|name| (name.clone(), state.available(&name)))
            .collect();
        let mut observed = Observed::default();
        for (name, m) in &state.machines {
            let reach = if m.host.unfinished {
                Reach::Unfinished
            } else if m.unreachable {
                Reach::Unreachable {
                    reason: "lost".to_owned(),
                }
            } else {
                let mut contents = m.contents.clone();
                contents.images.retain(|image, _| asked.contains(image));
                Reach::Ready(Box::new(contents))
            };
            let host = m.host.clone();
            observed
                .machines
                .insert(name.clone(), ObservedMachine { host, reach });
        }
        Ok(observed)
    }

    fn executor(&self) -> &dyn Executor {
        self
    }
}

impl State {
    /// From now on, `after` more actions until the fault.
    pub(super) fn inject(&mut self, after: usize, fault: Fault) {
        self.faults.insert(self.actions + after, fault);
    }

    /// No more faults, and everything can be reached again.
    pub(super) fn heal(&mut self) {
        self.faults.clear();
        for m in self.machines.values_mut() {
            m.unreachable = false;
        }
    }
}
