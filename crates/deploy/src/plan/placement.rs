//! Which replica is on which machine: spread evenly, and each kept where it is for as long as that is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_compose::model::{Mode, Order, Project, Service};
use windlass_machine::MachineName;

use super::Settings;
use super::fleets::{Site, Sites, View};
use super::ports::{Fixed, Ports, fixed_ports};
use super::proxies::Proxies;
use crate::error::PlanError;
use crate::observe::{Availability, Replica};
use crate::spec::{self, Callers, ContainerSpec};

/// A service with its replicas on machines.
pub(super) struct Placed<'a> {
    pub(super) name: &'a str,
    pub(super) service: &'a Service,
    /// Reference of its image.
    pub(super) image: &'a str,
    /// Machines that qualify.
    pub(super) eligible: Vec<MachineName>,
    /// What shall be.
    pub(super) places: Vec<Place<'a>>,
    /// What is, and shall not be.
    pub(super) surplus: Vec<(MachineName, &'a Replica)>,
}

/// One replica that shall be.
pub(super) struct Place<'a> {
    pub(super) machine: MachineName,
    pub(super) number: u32,
    /// What is there in its place.
    pub(super) current: Option<&'a Replica>,
    /// What it shall be made from; `None`: the image or the machine is still to come.
    pub(super) spec: Option<Arc<ContainerSpec>>,
}

impl Place<'_> {
    /// Whether what is there is made from something else.
    pub(super) fn differs(&self, image: &str) -> bool {
        match (self.current, &self.spec) {
            (Some(replica), Some(spec)) => replica.spec != spec.hash,
            (Some(replica), None) => replica.image != image,
            (None, _) => false,
        }
    }
}

/// The image that a service runs from.
pub(super) fn image_of<'a>(
    project: &'a Project,
    settings: &'a Settings,
    service: &str,
) -> Option<&'a str> {
    match settings.builds.get(service) {
        Some(built) => Some(built),
        None => project.services.get(service).map(|s| s.image.as_str()),
    }
}

/// Places one service. Replicas that are there take their ports first, see [`keep`].
pub(super) struct Placing<'p, 'a> {
    pub(super) project: &'a Project,
    pub(super) settings: &'a Settings,
    pub(super) sites: &'p Sites<'a>,
    pub(super) proxies: &'p Proxies,
    pub(super) ports: Ports,
}

impl<'a> Placing<'_, 'a> {
    /// What the service's container on a machine shall be made from.
    fn spec(&self, name: &str, image: &str, site: &Site<'_>) -> Option<Arc<ContainerSpec>> {
        let id = site.contents()?.images.get(image)?;
        let address = site.address.map(|a| a.to_string());
        let callers = self.callers(name, site)?;
        spec::container(self.project, name, image, id, address.as_deref(), &callers).map(Arc::new)
    }

    /// Who may reach on this machine what is published for the ingress; `None`: a machine with a proxy is still to come.
    fn callers(&self, name: &str, site: &Site<'_>) -> Option<Callers> {
        if !site.is_public {
            return Some(Callers::Everybody);
        }
        let mut addresses = BTreeSet::new();
        for machine in self.proxies.of(name) {
            let proxy = &self.sites.all[machine];
            match &proxy.sources {
                _ if matches!(proxy.view, View::Coming) => return None,
                Some(sources) => addresses.extend(sources),
                // Whom to let in is not known, and to let nobody in would end the service.
                None => return Some(Callers::Everybody),
            }
        }
        Some(Callers::Only(addresses))
    }

    /// All services, in the given order.
    pub(super) fn place_all(
        &mut self,
        order: &[&'a str],
        eligible: &BTreeMap<&'a str, Vec<MachineName>>,
    ) -> Result<Vec<Placed<'a>>, PlanError> {
        let mut placed = Vec::new();
        for name in order {
            if let Some(service) = self.project.services.get(*name) {
                check(name, service)?;
                let machines = eligible.get(name).cloned().unwrap_or_default();
                placed.push(self.keep(name, service, machines)?);
            }
        }
        for p in &mut placed {
            self.fill(p)?;
        }
        Ok(placed)
    }

    /// The replicas that stay where they are.
    fn keep(
        &mut self,
        name: &'a str,
        service: &'a Service,
        eligible: Vec<MachineName>,
    ) -> Result<Placed<'a>, PlanError> {
        let image = image_of(self.project, self.settings, name).unwrap_or_default();
        let mut placed = Placed {
            name,
            service,
            image,
            eligible,
            places: Vec::new(),
            surplus: Vec::new(),
        };
        for (site, contents) in self.sites.ready() {
            for replica in contents.replicas.iter().filter(|r| r.service == name) {
                if placed.eligible.contains(&site.name) {
                    placed.places.push(Place {
                        machine: site.name.clone(),
                        number: replica.number,
                        current: Some(replica),
                        spec: self.spec(name, image, site),
                    });
                } else {
                    placed.surplus.push((site.name.clone(), replica));
                }
            }
        }
        let fixed = fixed_ports(service);
        let one_each = service.deploy.mode == Mode::Global || !fixed.is_empty();
        if one_each {
            drop_second_ones(&mut placed);
        }
        if let Mode::Replicated(wanted) = service.deploy.mode {
            drop_surplus(&mut placed, wanted as usize);
        }
        for place in &placed.places {
            self.ports.take(&place.machine, &fixed, name)?;
        }
        Ok(placed)
    }

    /// The replicas that are missing.
    fn fill(&mut self, placed: &mut Placed<'a>) -> Result<(), PlanError> {
        let fixed = fixed_ports(placed.service);
        match placed.service.deploy.mode {
            Mode::Global => {
                for machine in placed.eligible.clone() {
                    let there = placed.places.iter().any(|p| p.machine == machine);
                    if !there && !self.sites.all[&machine].is_unknown() {
                        self.ports.take(&machine, &fixed, placed.name)?;
                        self.add(placed, &machine);
                    }
                }
            }
            Mode::Replicated(wanted) => {
                let missing = self.missing(placed, wanted as usize);
                for _ in 0..missing {
                    let Some(machine) = self.least_loaded(placed, &fixed) else {
                        return Err(PlanError::Port {
                            service: placed.name.to_owned(),
                            port: fixed.first().map_or(0, |f| f.0),
                            wanted,
                            possible: placed.places.len() as u32,
                        });
                    };
                    self.ports.take(&machine, &fixed, placed.name)?;
                    self.add(placed, &machine);
                }
            }
        }
        placed
            .places
            .sort_by(|a, b| (a.number, &a.machine).cmp(&(b.number, &b.machine)));
        Ok(())
    }

    /// How many to add. Machines that cannot be seen are taken to hold their share.
    fn missing(&self, placed: &Placed<'a>, wanted: usize) -> usize {
        let missing = wanted.saturating_sub(placed.places.len());
        let total = placed.eligible.len().max(1);
        let unseen = placed
            .eligible
            .iter()
            .filter(|m| self.sites.all[*m].is_unknown())
            .count();
        missing - missing.min(unseen * wanted.div_ceil(total))
    }

    fn least_loaded(&self, placed: &Placed<'a>, fixed: &[Fixed]) -> Option<MachineName> {
        let mut loads: BTreeMap<&MachineName, usize> = BTreeMap::new();
        for place in &placed.places {
            *loads.entry(&place.machine).or_default() += 1;
        }
        placed
            .eligible
            .iter()
            .filter(|m| !self.sites.all[*m].is_unknown() && self.ports.is_free(m, fixed))
            .min_by_key(|m| loads.get(m).copied().unwrap_or(0))
            .cloned()
    }

    fn add(&self, placed: &mut Placed<'a>, machine: &MachineName) {
        let used: BTreeSet<u32> = placed
            .places
            .iter()
            .map(|p| p.number)
            .chain(placed.surplus.iter().map(|(_, r)| r.number))
            .collect();
        let number = (1..).find(|n| !used.contains(n)).unwrap_or(u32::MAX);
        placed.places.push(Place {
            machine: machine.clone(),
            number,
            current: None,
            spec: self.spec(placed.name, placed.image, &self.sites.all[machine]),
        });
    }
}

fn check(name: &str, service: &Service) -> Result<(), PlanError> {
    let networks = spec::network_keys(service).len();
    if networks > 1 {
        return Err(PlanError::Networks {
            service: name.to_owned(),
            count: networks,
        });
    }
    match fixed_ports(service).first() {
        Some((port, _, _)) if service.deploy.update.order == Order::StartFirst => {
            Err(PlanError::StartFirstPort {
                service: name.to_owned(),
                port: *port,
            })
        }
        _ => Ok(()),
    }
}

/// How little a place is worth keeping; the highest goes first. Of two with one number, what an interrupted replacement left, the one
/// that is made from something else goes, or else the one that is not well.
fn worth(placed: &Placed<'_>, place: &Place<'_>) -> (bool, bool, bool, usize, bool, u32) {
    let differs = place.differs(placed.image);
    let same_number = placed.places.iter().filter(|p| p.number == place.number);
    let twice = same_number.count() > 1;
    let unwell = place
        .current
        .is_some_and(|r| r.availability == Availability::Unavailable);
    let load = placed
        .places
        .iter()
        .filter(|p| p.machine == place.machine)
        .count();
    (twice, twice && differs, unwell, load, differs, place.number)
}

fn drop_surplus(placed: &mut Placed<'_>, wanted: usize) {
    while placed.places.len() > wanted {
        let worst = (0..placed.places.len()).max_by_key(|i| worth(placed, &placed.places[*i]));
        let Some(worst) = worst else { return };
        drop_place(placed, worst);
    }
}

/// Of several on one machine, the one that is made from what it shall be made from stays.
fn drop_second_ones(placed: &mut Placed<'_>) {
    let machines: BTreeSet<MachineName> = placed.places.iter().map(|p| p.machine.clone()).collect();
    for machine in machines {
        loop {
            let on_it: Vec<usize> = (0..placed.places.len())
                .filter(|i| placed.places[*i].machine == machine)
                .collect();
            if on_it.len() < 2 {
                break;
            }
            let key = |i: &usize| {
                let place = &placed.places[*i];
                let (_, _, unwell, _, differs, number) = worth(placed, place);
                (differs, unwell, number)
            };
            let Some(worst) = on_it.into_iter().max_by_key(key) else {
                break;
            };
            drop_place(placed, worst);
        }
    }
}

fn drop_place(placed: &mut Placed<'_>, index: usize) {
    let place = placed.places.remove(index);
    if let Some(replica) = place.current {
        placed.surplus.push((place.machine, replica));
    }
}
