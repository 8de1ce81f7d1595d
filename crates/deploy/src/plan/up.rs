//! The plan that leads to what is declared: machines and images, networks and volumes, proxies, services, and then what is too much.

use std::collections::{BTreeMap, BTreeSet};

use windlass_compose::model::{Project, ServiceVolume};
use windlass_machine::MachineName;

use super::action::Action;
use super::builder::Builder;
use super::eligible::eligible;
use super::fleets::{Site, Sites, View};
use super::placement::{Placed, Placing};
use super::ports::Ports;
use super::proxies::Proxies;
use super::rollout::Rollout;
use super::routes::Tables;
use super::{Note, Plan, Settings, order};
use crate::error::PlanError;
use crate::observe::Observed;
use crate::spec::{network_keys, network_name, volume_name};

/// What must be done so that everything is as declared; empty when it is.
pub fn plan(
    project: &Project,
    observed: &Observed,
    settings: &Settings,
) -> Result<Plan, PlanError> {
    let sites = Sites::new(project, observed, settings)?;
    let order = order::services(project)?;
    let machines = all_eligible(project, &order, &sites)?;
    let proxies = Proxies::new(project, &machines, &sites)?;
    let mut placing = Placing {
        project,
        settings,
        sites: &sites,
        proxies: &proxies,
        ports: Ports::default(),
    };
    for (machine, (listen, _)) in &proxies.wanted {
        let fixed: Vec<_> = listen
            .iter()
            .map(|p| (*p, "tcp".to_owned(), None))
            .collect();
        placing.ports.take(machine, &fixed, "the ingress")?;
    }
    let placed = placing.place_all(&order, &machines)?;
    let mut up = Up {
        project,
        settings,
        sites: &sites,
        proxies: &proxies,
        builder: Builder::default(),
    };
    up.note_unseen(&placed);
    let created = up.create_machines();
    up.get_images(&placed, &created);
    let prepared = up.networks_and_volumes(&placed, &created)?;
    let mut tables = Tables::new(project, observed, &sites);
    up.start_proxies(&mut tables, &created)?;
    let names = sites
        .ready()
        .flat_map(|(s, c)| c.replicas.iter().map(|r| (s.name.clone(), r.name.clone())))
        .collect();
    let rollout = Rollout {
        project,
        settings,
        sites: &sites,
        builder: up.builder,
        tables,
        prepared,
        ready: BTreeMap::new(),
        retired: BTreeMap::new(),
        unseen_proxies: unseen_proxies(&proxies, settings, &sites),
        names,
    };
    Ok(finish(rollout, &placed, &sites, &proxies))
}

fn all_eligible<'a>(
    project: &'a Project,
    order: &[&'a str],
    sites: &Sites<'_>,
) -> Result<BTreeMap<&'a str, Vec<MachineName>>, PlanError> {
    let mut machines = BTreeMap::new();
    for name in order {
        if let Some(service) = project.services.get(*name) {
            machines.insert(*name, eligible(project, name, service, sites)?);
        }
    }
    Ok(machines)
}

/// Machines out of reach that have a proxy, or had one when the project was last applied.
fn unseen_proxies(
    wanted: &Proxies,
    settings: &Settings,
    sites: &Sites<'_>,
) -> BTreeSet<MachineName> {
    let mut machines: BTreeSet<MachineName> = wanted.wanted.keys().cloned().collect();
    if let Some(former) = &settings.formerly {
        // Machines may have gone since: what cannot be placed any more has no proxy there either.
        let names: Vec<&str> = former.services.keys().map(String::as_str).collect();
        let placed: BTreeMap<&str, Vec<MachineName>> = names
            .iter()
            .filter_map(|name| all_eligible(former, &[*name], sites).ok())
            .flatten()
            .collect();
        if let Ok(proxies) = Proxies::new(former, &placed, sites) {
            machines.extend(proxies.wanted.into_keys());
        }
    }
    machines.retain(|m| sites.all[m].is_unknown());
    machines
}

/// The services, and what is too much after that.
fn finish<'a>(
    mut rollout: Rollout<'_, 'a>,
    placed: &[Placed<'a>],
    sites: &Sites<'a>,
    proxies: &Proxies,
) -> Plan {
    // What is declared no more may hold ports that are wanted.
    let first = ports_in_the_way(placed, sites).then(|| rollout.drop_undeclared(&[]));
    let freed = first.clone().unwrap_or_default();
    for steps in rollout.prepared.values_mut() {
        steps.extend(&freed);
    }
    for p in placed {
        rollout.bring_up(p);
    }
    for p in placed {
        rollout.drop_surplus(p);
    }
    let all_ready: Vec<usize> = rollout.ready.values().flatten().copied().collect();
    if first.is_none() {
        rollout.drop_undeclared(&all_ready);
    }
    let last = rollout.tables.publish(&mut rollout.builder, &all_ready);
    let held = rollout
        .builder
        .notes
        .iter()
        .any(|n| matches!(n, Note::HeldBack { .. }));
    let retired: Vec<usize> = rollout.retired.values().flatten().copied().collect();
    let after = [last, retired].concat();
    if !held {
        clear(
            &mut rollout.builder,
            rollout.project,
            sites,
            proxies,
            &after,
        );
    }
    rollout.builder.finish()
}

/// Proxies, networks and machines that are too much, after everything else.
fn clear(
    builder: &mut Builder,
    project: &Project,
    sites: &Sites<'_>,
    proxies: &Proxies,
    after: &[usize],
) {
    let wanted: BTreeSet<String> = project
        .networks
        .keys()
        .map(|key| network_name(project, key))
        .chain([network_name(project, "default")])
        .collect();
    for (site, contents) in sites.ready() {
        let mut tail = after.to_vec();
        if contents.ingress.is_some() && !proxies.wanted.contains_key(&site.name) {
            let machine = site.name.clone();
            tail = vec![builder.push(Action::RemoveIngress { machine }, &tail)];
        }
        if !site.stays {
            let machine = site.name.clone();
            builder.push(Action::RemoveMachine { machine }, &tail);
            continue;
        }
        for network in contents.networks.iter().filter(|n| n.ours) {
            if !wanted.contains(&network.name) {
                builder.push(
                    Action::RemoveNetwork {
                        machine: site.name.clone(),
                        network: network.name.clone(),
                    },
                    &tail,
                );
            }
        }
    }
    for machine in &sites.unfinished {
        let machine = machine.clone();
        builder.push(Action::RemoveMachine { machine }, after);
    }
}

/// Whether an undeclared replica is published on a port that something declared wants.
fn ports_in_the_way(placed: &[Placed<'_>], sites: &Sites<'_>) -> bool {
    let wanted: BTreeSet<u16> = placed
        .iter()
        .flat_map(|p| {
            let published = p.service.ports.iter().filter_map(|port| port.published);
            published.chain(p.service.ingress.iter().map(|i| i.listen))
        })
        .collect();
    let declared: BTreeSet<&str> = placed.iter().map(|p| p.name).collect();
    sites.ready().any(|(_, contents)| {
        contents
            .replicas
            .iter()
            .filter(|r| !declared.contains(r.service.as_str()))
            .any(|r| r.ports.iter().any(|(_, a)| wanted.contains(&a.port())))
    })
}

/// The steps before those of the services.
pub(super) struct Up<'p, 'a> {
    pub(super) project: &'a Project,
    pub(super) settings: &'a Settings,
    pub(super) sites: &'p Sites<'a>,
    pub(super) proxies: &'p Proxies,
    pub(super) builder: Builder,
}

impl Up<'_, '_> {
    fn note_unseen(&mut self, placed: &[Placed<'_>]) {
        for site in self.sites.all.values() {
            let View::Unknown(reason) = &site.view else {
                continue;
            };
            let used = site.ours || placed.iter().any(|p| p.eligible.contains(&site.name));
            let (machine, reason) = (site.name.clone(), reason.clone());
            self.builder.note(if used {
                Note::Unreachable { machine, reason }
            } else {
                Note::Unseen { machine, reason }
            });
        }
    }

    fn create_machines(&mut self) -> BTreeMap<MachineName, usize> {
        let mut created = BTreeMap::new();
        for site in self.sites.staying() {
            if let (View::Coming, Some(slot)) = (&site.view, &site.slot) {
                let action = Action::CreateMachine {
                    machine: site.name.clone(),
                    slot: slot.clone(),
                };
                created.insert(site.name.clone(), self.builder.push(action, &[]));
            }
        }
        created
    }

    fn get_images(&mut self, placed: &[Placed<'_>], created: &BTreeMap<MachineName, usize>) {
        let mut asked = BTreeSet::new();
        for p in placed {
            let built = self.settings.builds.contains_key(p.name);
            for place in &p.places {
                let machine = &place.machine;
                let there = self.sites.all[machine]
                    .contents()
                    .is_some_and(|c| c.images.contains_key(p.image));
                let wanted = !there || (self.settings.pull_always && !built);
                if !wanted || !asked.insert((machine.clone(), p.image)) {
                    continue;
                }
                let after: Vec<usize> = created.get(machine).copied().into_iter().collect();
                let (machine, image) = (machine.clone(), p.image.to_owned());
                let action = if built {
                    Action::BuildImage {
                        machine,
                        service: p.name.to_owned(),
                        image,
                    }
                } else {
                    Action::PullImage { machine, image }
                };
                self.builder.push(action, &after);
            }
        }
    }

    fn networks_and_volumes(
        &mut self,
        placed: &[Placed<'_>],
        created: &BTreeMap<MachineName, usize>,
    ) -> Result<BTreeMap<MachineName, Vec<usize>>, PlanError> {
        let mut wanted: BTreeMap<MachineName, BTreeSet<(Kind, &str)>> = BTreeMap::new();
        for p in placed {
            for place in &p.places {
                let set = wanted.entry(place.machine.clone()).or_default();
                set.extend(
                    network_keys(p.service)
                        .into_iter()
                        .map(|k| (Kind::Network, k)),
                );
                set.extend(p.service.volumes.iter().filter_map(|v| match v {
                    ServiceVolume::Volume {
                        name: Some(key), ..
                    } => Some((Kind::Volume, key.as_str())),
                    _ => None,
                }));
            }
        }
        let mut prepared = BTreeMap::new();
        for site in self.sites.staying().filter(|s| !s.is_unknown()) {
            let before: Vec<usize> = created.get(&site.name).copied().into_iter().collect();
            let mut steps = before.clone();
            for (kind, key) in wanted.remove(&site.name).unwrap_or_default() {
                steps.extend(self.object(site, kind, key, &before)?);
            }
            prepared.insert(site.name.clone(), steps);
        }
        Ok(prepared)
    }

    fn object(
        &mut self,
        site: &Site<'_>,
        kind: Kind,
        key: &str,
        after: &[usize],
    ) -> Result<Option<usize>, PlanError> {
        let (name, external) = match kind {
            Kind::Network => (
                network_name(self.project, key),
                self.project.networks.get(key).is_some_and(|n| n.external),
            ),
            Kind::Volume => (
                volume_name(self.project, key),
                self.project.volumes.get(key).is_some_and(|v| v.external),
            ),
        };
        let there = site.contents().is_some_and(|c| match kind {
            Kind::Network => c.networks.iter().any(|n| n.name == name),
            Kind::Volume => c.volumes.iter().any(|v| v.name == name),
        });
        if there {
            return Ok(None);
        }
        let machine = site.name.clone();
        if external {
            // A machine that is still to come is looked at when it is there.
            if site.contents().is_none() {
                return Ok(None);
            }
            let kind = kind.word();
            return Err(PlanError::External {
                kind,
                name,
                machine,
            });
        }
        let key = key.to_owned();
        let action = match kind {
            Kind::Network => Action::CreateNetwork {
                machine,
                network: name,
                key,
            },
            Kind::Volume => Action::CreateVolume {
                machine,
                volume: name,
                key,
            },
        };
        Ok(Some(self.builder.push(action, after)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Network,
    Volume,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}
