//! Machines as the plan sees them: those that are there, those still to come, those that go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use windlass_compose::model::Project;
use windlass_machine::{MachineName, Slot};

use super::Settings;
use crate::error::PlanError;
use crate::hosts::Host;
use crate::observe::{Contents, Observed, ObservedMachine, Reach};

/// A machine.
pub(super) struct Site<'a> {
    pub(super) name: MachineName,
    pub(super) slot: Option<Slot>,
    /// For placement; `fleet` is among them.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) address: Option<IpAddr>,
    /// It has no address of its own for other machines, so that everybody gets to what is published for them.
    pub(super) is_public: bool,
    /// Where its connections to other machines may come from; `None`: that is not known.
    pub(super) sources: Option<BTreeSet<Ipv4Addr>>,
    /// As the store has it, for messages.
    pub(super) address_text: String,
    pub(super) view: View<'a>,
    /// It shall be there; otherwise its fleet has become smaller.
    pub(super) stays: bool,
    /// Made by this project.
    pub(super) ours: bool,
}

/// What is known of what is on it.
pub(super) enum View<'a> {
    /// Everything.
    Ready(&'a Contents),
    /// Nothing is on it yet.
    Coming,
    /// Nothing, for this reason; it may be full.
    Unknown(String),
}

impl<'a> Site<'a> {
    pub(super) fn contents(&self) -> Option<&'a Contents> {
        match self.view {
            View::Ready(contents) => Some(contents),
            _ => None,
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.view, View::Unknown(_))
    }

    pub(super) fn fleet(&self) -> Option<&str> {
        self.slot.as_ref().map(|s| s.fleet.as_str())
    }
}

/// All of them.
pub(super) struct Sites<'a> {
    pub(super) all: BTreeMap<MachineName, Site<'a>>,
    /// Half-made machines that are not wanted.
    pub(super) unfinished: Vec<MachineName>,
}

impl<'a> Sites<'a> {
    pub(super) fn new(
        project: &Project,
        observed: &'a Observed,
        settings: &Settings,
    ) -> Result<Self, PlanError> {
        let mut sites = Self {
            all: BTreeMap::new(),
            unfinished: Vec::new(),
        };
        let mut members: BTreeMap<&str, Vec<&'a ObservedMachine>> = BTreeMap::new();
        for machine in observed.machines.values() {
            match (&machine.host.project, &machine.host.slot) {
                (Some(_), Some(slot)) => members.entry(&slot.fleet).or_default().push(machine),
                _ => sites.add(machine, View::standalone(machine), Stay::Stays),
            }
        }
        for list in members.values_mut() {
            list.sort_by_key(|m| m.host.slot.as_ref().map(|s| s.ordinal));
        }
        for fleet in project.fleets.keys() {
            let list = members.remove(fleet.as_str()).unwrap_or_default();
            sites.add_fleet(project, observed, settings, fleet, &list)?;
        }
        // Fleets that are declared no more.
        for machine in members.into_values().flatten() {
            sites.add_leaving(machine);
        }
        Ok(sites)
    }

    fn add_fleet(
        &mut self,
        project: &Project,
        observed: &Observed,
        settings: &Settings,
        fleet: &str,
        list: &[&'a ObservedMachine],
    ) -> Result<(), PlanError> {
        let Some(declared) = project.fleets.get(fleet) else {
            return Ok(());
        };
        let wanted = settings
            .scale
            .get(fleet)
            .copied()
            .unwrap_or(declared.min)
            .clamp(declared.min, declared.max.max(declared.min)) as usize;
        for (place, machine) in list.iter().enumerate() {
            if place < wanted {
                self.add(machine, View::member(machine), Stay::Stays);
            } else {
                self.add_leaving(machine);
            }
        }
        let mut ordinal = 0;
        for _ in list.len()..wanted {
            ordinal += 1;
            while list.iter().any(|m| has_ordinal(m, ordinal)) {
                ordinal += 1;
            }
            let name = machine_name(&project.name, fleet, ordinal)?;
            if observed.machines.contains_key(&name) || observed.foreign.contains(&name) {
                return Err(PlanError::NameTaken {
                    fleet: fleet.to_owned(),
                    machine: name,
                });
            }
            let mut labels = declared.labels.clone();
            labels.insert("fleet".to_owned(), fleet.to_owned());
            let site = Site {
                name: name.clone(),
                slot: Some(Slot {
                    fleet: fleet.to_owned(),
                    ordinal,
                }),
                labels,
                address: None,
                is_public: false,
                sources: None,
                address_text: String::new(),
                view: View::Coming,
                stays: true,
                ours: true,
            };
            self.all.insert(name, site);
        }
        Ok(())
    }

    fn add_leaving(&mut self, machine: &'a ObservedMachine) {
        if machine.reach == Reach::Unfinished {
            self.unfinished.push(machine.host.name.clone());
        } else {
            self.add(machine, View::member(machine), Stay::Leaves);
        }
    }

    fn add(&mut self, machine: &'a ObservedMachine, view: View<'a>, stay: Stay) {
        let host = &machine.host;
        let mut labels = host.labels.clone();
        if let Some(slot) = &host.slot {
            labels.insert("fleet".to_owned(), slot.fleet.clone());
        }
        let own = host.private_address.as_ref();
        let address_text = own.or(host.address.as_ref()).cloned().unwrap_or_default();
        let address: Option<IpAddr> = address_text.parse().ok();
        let site = Site {
            name: host.name.clone(),
            slot: host.slot.clone(),
            labels,
            address,
            is_public: own.is_none() && address.is_some_and(|a| !a.is_loopback()),
            sources: sources(host),
            address_text,
            view,
            stays: stay == Stay::Stays,
            ours: host.project.is_some(),
        };
        self.all.insert(host.name.clone(), site);
    }

    /// Those that shall be there.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Site<'a>> {
        self.all.values().filter(|s| s.stays)
    }

    /// Those whose contents are known.
    pub(super) fn ready(&self) -> impl Iterator<Item = (&Site<'a>, &'a Contents)> {
        self.all
            .values()
            .filter_map(|s| s.contents().map(|c| (s, c)))
    }
}

#[derive(PartialEq, Clone, Copy)]
enum Stay {
    Stays,
    Leaves,
}

impl<'a> View<'a> {
    /// Of a machine that the project makes: an interrupted create is gone on with.
    fn member(machine: &'a ObservedMachine) -> Self {
        match &machine.reach {
            Reach::Ready(contents) => Self::Ready(contents),
            Reach::Unfinished => Self::Coming,
            Reach::Unreachable { reason } => Self::Unknown(reason.clone()),
        }
    }

    fn standalone(machine: &'a ObservedMachine) -> Self {
        match &machine.reach {
            Reach::Unfinished => Self::Unknown(
                "its `windlass create` was interrupted; run it again, or `windlass rm` it"
                    .to_owned(),
            ),
            _ => Self::member(machine),
        }
    }
}

/// Its addresses; a name says too little. Ports are published on IPv4 only, so the others do not matter.
fn sources(host: &Host) -> Option<BTreeSet<Ipv4Addr>> {
    let mut sources = BTreeSet::new();
    for text in [&host.private_address, &host.address].into_iter().flatten() {
        if let IpAddr::V4(address) = text.parse().ok()? {
            sources.insert(address);
        }
    }
    Some(sources)
}

fn has_ordinal(machine: &ObservedMachine, ordinal: u32) -> bool {
    machine
        .host
        .slot
        .as_ref()
        .is_some_and(|s| s.ordinal == ordinal)
}

/// `<project>-<fleet>-<ordinal>`, as a host name.
fn machine_name(project: &str, fleet: &str, ordinal: u32) -> Result<MachineName, PlanError> {
    let name = format!("{project}-{fleet}-{ordinal}")
        .replace(['_', '.'], "-")
        .to_ascii_lowercase();
    MachineName::new(name).map_err(|source| PlanError::Name {
        fleet: fleet.to_owned(),
        source,
    })
}
