//! The merged tree into the project.
//!
//! Deliberately absent: what needs a look at the whole (see `check`).

mod deploy;
mod environment;
mod fleets;
mod mounts;
mod networking;
mod ports;
mod service;
mod storage;

use std::collections::{BTreeMap, BTreeSet};

use crate::Context;
use crate::error::Log;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::{Dependency, Project, Restart, Service};
use crate::node::{Mark, Node};

/// What every part of the reader needs.
pub(crate) struct Reader<'a> {
    pub log: &'a mut Log,
    pub project: &'a str,
    pub context: &'a Context<'a>,
    pub variables: &'a BTreeMap<String, String>,
    /// Services that are left out by their profiles.
    pub left_out: BTreeSet<String>,
}

impl Reader<'_> {
    pub fn project(&mut self, root: &Node) -> Option<Project> {
        let path = String::new();
        let top = Field { node: root, path }.fields(&keys::TOP, self.log)?;
        Some(Project {
            name: self.project.to_owned(),
            services: self.services(&top),
            volumes: self.volumes(&top),
            networks: self.networks(&top),
            fleets: self.fleets(&top),
        })
    }

    fn services(&mut self, top: &Fields<'_>) -> BTreeMap<String, Service> {
        let Some(field) = top.get("services") else {
            let hint = "add `services:` with at least one service that has an `image` or a `build`";
            self.log
                .error_with_hint(top.mark, "the file declares no services", hint);
            return BTreeMap::new();
        };
        let members = field.members(self.log);
        self.left_out = self.leave_out(&members);
        let mut services = BTreeMap::new();
        for (name, field) in members {
            self.check_name(name, &field);
            let service = self.service(name, &field);
            if !self.left_out.contains(name) {
                services.insert(name.to_owned(), service);
            }
        }
        end_after_completion(&mut services, field.node);
        services
    }

    /// The services that have profiles, but none that was asked for.
    fn leave_out(&mut self, members: &[(&str, Field<'_>)]) -> BTreeSet<String> {
        let listed = self
            .variables
            .get("COMPOSE_PROFILES")
            .map(String::as_str)
            .unwrap_or_default();
        let listed = listed
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let given = self.context.profiles.iter().map(String::as_str);
        let asked: BTreeSet<&str> = match self.context.profiles.is_empty() {
            true => listed.collect(),
            false => given.collect(),
        };
        let mut left_out = BTreeSet::new();
        for (name, field) in members {
            let profiles = self.profiles(field);
            let wanted = |profile: &String| asked.contains(profile.as_str()) || asked.contains("*");
            if !profiles.is_empty() && !profiles.iter().any(wanted) {
                left_out.insert((*name).to_owned());
            }
        }
        left_out
    }

    fn profiles(&mut self, service: &Field<'_>) -> Vec<String> {
        let Some(node) = service.node.get("profiles").filter(|node| !node.is_null()) else {
            return Vec::new();
        };
        let path = format!("{}.profiles", service.path);
        let items = Field { node, path }.items(self.log);
        items
            .iter()
            .filter_map(|item| item.string(self.log))
            .collect()
    }

    /// Names of services, volumes and networks.
    fn check_name(&mut self, name: &str, field: &Field<'_>) {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !(starts && name.chars().all(good) && name.len() <= 128) {
            let problem = "is not a valid name: it takes letters, digits, `.`, `_` and `-`, a letter or digit first";
            field.reject(problem, self.log);
        }
    }
}

/// A service that others wait for to complete is not started again, unless it says so itself.
fn end_after_completion(services: &mut BTreeMap<String, Service>, declared: &Node) {
    let dependencies = services.values().flat_map(|service| &service.depends_on);
    let awaited: BTreeSet<String> = dependencies
        .filter(|(_, condition)| **condition == Dependency::Completed)
        .map(|(name, _)| name.clone())
        .collect();
    for name in awaited {
        let given = declared.get(&name).is_some_and(|service| {
            let policy = service
                .get("deploy")
                .and_then(|deploy| deploy.get("restart_policy"));
            service.get("restart").or(policy).is_some()
        });
        if let (false, Some(service)) = (given, services.get_mut(&name)) {
            service.restart = Restart::No;
        }
    }
}

/// Where a path of keys stands; where it ends early, how far it goes.
pub(crate) fn locate(root: &Node, path: &[&str]) -> Mark {
    let mut mark = root.mark;
    let mut node = root;
    for key in path {
        let crate::node::Value::Map(entries) = &node.value else {
            break;
        };
        let Some(entry) = entries.iter().find(|entry| entry.key == *key) else {
            break;
        };
        mark = entry.mark;
        node = &entry.value;
    }
    mark
}
