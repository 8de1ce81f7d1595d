//! The proxies: on which machines, listening where, for which services; and the steps that start them.

use std::collections::{BTreeMap, BTreeSet};

use windlass_compose::model::Project;
use windlass_machine::MachineName;

use super::action::Action;
use super::fleets::{Site, Sites};
use super::routes::Tables;
use super::up::Up;
use crate::error::PlanError;
use crate::ingress;
use crate::observe::ReplicaState;

/// Where the proxies are, and what they listen on and route.
#[derive(Default)]
pub(super) struct Proxies {
    /// Machine → ports and services.
    pub(super) wanted: BTreeMap<MachineName, (BTreeSet<u16>, BTreeSet<String>)>,
}

impl Proxies {
    /// On the first `min` machines of each fleet that a service with an ingress runs on; without a fleet, on all its machines.
    pub(super) fn new(
        project: &Project,
        eligible: &BTreeMap<&str, Vec<MachineName>>,
        sites: &Sites<'_>,
    ) -> Result<Self, PlanError> {
        let mut proxies = Self::default();
        for (name, service) in &project.services {
            let Some(ingress) = &service.ingress else {
                continue;
            };
            let machines = eligible.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
            for machine in machines {
                let site = &sites.all[machine];
                if let Some(fleet) = site.fleet() {
                    let count = seen.entry(fleet).or_default();
                    let min = project.fleets.get(fleet).map_or(1, |f| f.min.max(1));
                    *count += 1;
                    if *count > min {
                        continue;
                    }
                }
                let (ports, services) = proxies.wanted.entry(machine.clone()).or_default();
                ports.insert(ingress.listen);
                services.insert(name.clone());
            }
            check_addresses(name, machines, sites)?;
        }
        for (_, services) in proxies.wanted.values() {
            check_routes(project, services)?;
        }
        Ok(proxies)
    }

    /// The machines whose proxies route to a service.
    pub(super) fn of(&self, service: &str) -> impl Iterator<Item = &MachineName> {
        let routing = self
            .wanted
            .iter()
            .filter(move |(_, (_, services))| services.contains(service));
        routing.map(|(machine, _)| machine)
    }
}

fn check_addresses(
    name: &str,
    machines: &[MachineName],
    sites: &Sites<'_>,
) -> Result<(), PlanError> {
    let unusable =
        |s: &&Site<'_>| s.contents().is_some() && s.address.is_none_or(|a| a.is_unspecified());
    match machines.iter().map(|m| &sites.all[m]).find(unusable) {
        None => Ok(()),
        Some(site) => Err(PlanError::Address {
            service: name.to_owned(),
            machine: site.name.clone(),
            address: if site.address_text.is_empty() {
                "none is known".to_owned()
            } else {
                format!("it has `{}`", site.address_text)
            },
        }),
    }
}

fn check_routes(project: &Project, services: &BTreeSet<String>) -> Result<(), PlanError> {
    let mut seen: BTreeMap<(String, String), &str> = BTreeMap::new();
    for name in services {
        let Some(ingress) = project.services.get(name).and_then(|s| s.ingress.as_ref()) else {
            continue;
        };
        let host = ingress
            .host
            .clone()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let path = ingress.path.trim_end_matches('/').to_owned();
        if let Some(first) = seen.insert((host.clone(), path.clone()), name) {
            let host = if host.is_empty() { "any host" } else { &host };
            return Err(PlanError::Route {
                first: first.to_owned(),
                second: name.clone(),
                route: format!("{host}{path}/"),
            });
        }
    }
    Ok(())
}

impl Up<'_, '_> {
    /// Proxies that are missing side by side, those made from something else one after the other.
    pub(super) fn start_proxies(
        &mut self,
        tables: &mut Tables<'_>,
        created: &BTreeMap<MachineName, usize>,
    ) -> Result<(), PlanError> {
        let mut replaced = Vec::new();
        for (machine, (listen, services)) in &self.proxies.wanted {
            let site = &self.sites.all[machine];
            if site.is_unknown() {
                continue;
            }
            let listen: Vec<u16> = listen.iter().copied().collect();
            let (image, spec) = match site.contents() {
                None => (String::new(), String::new()),
                Some(contents) => {
                    let image = self.settings.ingress_images.get(&contents.architecture);
                    let Some(image) = image else {
                        return Err(PlanError::IngressArchitecture {
                            machine: machine.clone(),
                            architecture: contents.architecture.clone(),
                        });
                    };
                    let (_, spec) = ingress::container(&self.project.name, image, &listen);
                    (image.clone(), spec)
                }
            };
            let seen = site.contents().and_then(|c| c.ingress.as_ref());
            let in_force = seen
                .and_then(|i| i.answer.as_ref())
                .map(|(t, _)| (t.generation, t.routes.clone()));
            if seen.is_none() {
                self.check_listen(site, &listen)?;
            }
            let start = Action::StartIngress {
                machine: machine.clone(),
                image,
                listen,
                spec: spec.clone(),
            };
            let steps = match seen {
                Some(i) if i.spec == spec && i.running && i.answer.is_some() => Vec::new(),
                Some(i) if i.spec != spec => {
                    let machine = machine.clone();
                    let remove = Action::RemoveIngress { machine };
                    replaced = self.builder.chain(vec![remove, start], &replaced);
                    replaced.clone()
                }
                _ => {
                    let after: Vec<usize> = created.get(machine).copied().into_iter().collect();
                    vec![self.builder.push(start, &after)]
                }
            };
            // One that was just started may have no table, whatever its predecessor had.
            let in_force = if steps.is_empty() {
                in_force
            } else {
                in_force.map(|(generation, _)| (generation, Vec::new()))
            };
            tables.add_target(machine, services.clone(), in_force, steps);
        }
        self.add_leaving_proxies(tables);
        Ok(())
    }

    /// A port that a replica still has cannot be listened on.
    fn check_listen(&self, site: &Site<'_>, listen: &[u16]) -> Result<(), PlanError> {
        let replicas = site.contents().into_iter().flat_map(|c| &c.replicas);
        for replica in replicas.filter(|r| r.state == ReplicaState::Running) {
            let port = replica.ports.iter().map(|(_, a)| a.port());
            if let Some(port) = port.into_iter().find(|p| listen.contains(p)) {
                return Err(PlanError::PortTaken {
                    port,
                    machine: site.name.clone(),
                    first: format!(
                        "{}.{}, which still runs there",
                        replica.service, replica.number
                    ),
                    second: "the ingress".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// A proxy that is not wanted still routes until it is removed, so it must let go of replicas like the others.
    fn add_leaving_proxies(&self, tables: &mut Tables<'_>) {
        let routed: BTreeSet<String> = self
            .project
            .services
            .iter()
            .filter(|(_, s)| s.ingress.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for (site, contents) in self.sites.ready() {
            let answer = contents.ingress.as_ref().and_then(|i| i.answer.as_ref());
            if let Some((table, _)) = answer
                && !self.proxies.wanted.contains_key(&site.name)
            {
                let in_force = Some((table.generation, table.routes.clone()));
                tables.add_target(&site.name, routed.clone(), in_force, Vec::new());
            }
        }
    }
}
