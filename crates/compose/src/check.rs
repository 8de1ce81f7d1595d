//! What only a look at the whole shows: references, cycles, ports that collide, settings that exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Log;
use crate::keys::nearest;
use crate::model::{Dependency, Order, Project, Restart, Service, ServiceVolume};
use crate::node::{Mark, Node};
use crate::read::locate;

/// Reports what is wrong between the parts.
pub(crate) fn check(project: &Project, root: &Node, log: &mut Log) {
    let mut checks = Checks { project, root, log };
    for (name, service) in &project.services {
        checks.references(name, service);
        checks.ports(name, service);
        checks.network_mode(name, service);
        checks.mounts(name, service);
    }
    checks.cycles();
    checks.routes();
    checks.ingress_listeners();
}

struct Checks<'a> {
    project: &'a Project,
    root: &'a Node,
    log: &'a mut Log,
}

impl<'a> Checks<'a> {
    fn mark(&self, service: &str, key: &str) -> Mark {
        locate(self.root, &["services", service, key])
    }

    fn references(&mut self, name: &str, service: &Service) {
        for (other, condition) in &service.depends_on {
            let mark = self.mark(name, "depends_on");
            let problem = format!("`services.{name}.depends_on` names the service `{other}`");
            if self.is_left_out(other) {
                let hint = format!("ask for a profile of `{other}`, or say `required: false`");
                self.log.error_with_hint(
                    mark,
                    format!("{problem}, which is left out by its profiles"),
                    hint,
                );
            } else {
                self.known(mark, &problem, other, self.project.services.keys());
            }
            if *condition == Dependency::Completed {
                self.completes(other, mark);
            }
        }
        // Every project has `default`.
        for network in service.networks.keys().filter(|name| *name != "default") {
            let problem = format!("`services.{name}.networks` names the network `{network}`");
            self.known(
                self.mark(name, "networks"),
                &problem,
                network,
                self.project.networks.keys(),
            );
        }
        for volume in &service.volumes {
            if let ServiceVolume::Volume {
                name: Some(volume), ..
            } = volume
            {
                let problem = format!("`services.{name}.volumes` names the volume `{volume}`");
                self.known(
                    self.mark(name, "volumes"),
                    &problem,
                    volume,
                    self.project.volumes.keys(),
                );
            }
        }
        if self.project.fleets.is_empty() {
            return;
        }
        for constraint in &service.deploy.constraints {
            if constraint.key == "node.labels.fleet" {
                let fleet = &constraint.value;
                let mark = locate(
                    self.root,
                    &["services", name, "deploy", "placement", "constraints"],
                );
                let problem = format!(
                    "`services.{name}.deploy.placement.constraints` names the fleet `{fleet}`"
                );
                self.known(mark, &problem, fleet, self.project.fleets.keys());
            }
        }
    }

    /// What is started again whenever it ends is never done.
    fn completes(&mut self, name: &str, mark: Mark) {
        let service = self.project.services.get(name);
        if service.is_some_and(|s| matches!(s.restart, Restart::Always | Restart::UnlessStopped)) {
            let message = format!(
                "`{name}` must complete, but its `restart` starts it again whenever it ends"
            );
            let hint = format!("say `restart: no` or `restart: on-failure` in `services.{name}`");
            self.log.error_with_hint(mark, message, hint);
        }
    }

    /// Declared, but no profile that was asked for brings it in.
    fn is_left_out(&self, service: &str) -> bool {
        let declared = self
            .root
            .get("services")
            .and_then(|services| services.get(service));
        declared.is_some() && !self.project.services.contains_key(service)
    }

    fn known<'n>(
        &mut self,
        mark: Mark,
        problem: &str,
        name: &str,
        declared: impl Iterator<Item = &'n String>,
    ) {
        let declared: Vec<&str> = declared.map(String::as_str).collect();
        if declared.contains(&name) {
            return;
        }
        let message = format!("{problem}, which is not declared");
        match nearest(name, declared.into_iter()) {
            Some(near) => {
                self.log
                    .error_with_hint(mark, message, format!("did you mean `{near}`?"))
            }
            None => self.log.error(mark, message),
        }
    }

    fn ports(&mut self, name: &str, service: &Service) {
        let mark = self.mark(name, "ports");
        let published: Vec<_> = service
            .ports
            .iter()
            .filter(|port| port.published.is_some())
            .collect();
        for (at, port) in published.iter().enumerate() {
            let everywhere =
                |ip: &Option<String>| ip.as_deref().is_none_or(|ip| ip == "0.0.0.0" || ip == "::");
            let collides = |other: &&&crate::model::Port| {
                let overlap = other.host_ip == port.host_ip
                    || everywhere(&other.host_ip)
                    || everywhere(&port.host_ip);
                other.published == port.published && other.protocol == port.protocol && overlap
            };
            if let (Some(number), true) = (
                port.published,
                published[..at].iter().any(|other| collides(&other)),
            ) {
                self.log.error(
                    mark,
                    format!("`services.{name}.ports` publishes port {number} of the machine twice"),
                );
            }
        }
        if service.deploy.update.order == Order::StartFirst
            && let Some(number) = published.first().and_then(|port| port.published)
        {
            let mark = locate(
                self.root,
                &["services", name, "deploy", "update_config", "order"],
            );
            let message = format!(
                "`services.{name}.deploy.update_config.order` cannot be `start-first`: the new replica and the old one would both need port {number} of the machine"
            );
            let hint = "publish no fixed port (use `x-ingress`), or say `stop-first`";
            self.log.error_with_hint(mark, message, hint);
        }
    }

    fn network_mode(&mut self, name: &str, service: &Service) {
        let Some(mode) = service.network_mode.as_deref() else {
            return;
        };
        let mark = self.mark(name, "network_mode");
        let mut exclude = |what: &str| {
            self.log.error(
                mark,
                format!("`services.{name}.network_mode` is `{mode}`, which cannot be combined with `{what}`"),
            );
        };
        if !service.networks.is_empty() {
            exclude("networks");
        }
        if mode != "bridge" && !service.ports.is_empty() {
            exclude("ports");
        }
        if mode != "bridge" && service.ingress.is_some() {
            exclude("x-ingress");
        }
    }

    fn mounts(&mut self, name: &str, service: &Service) {
        let mut seen = BTreeSet::new();
        for volume in &service.volumes {
            let (ServiceVolume::Volume { target, .. }
            | ServiceVolume::Bind { target, .. }
            | ServiceVolume::Tmpfs { target, .. }) = volume;
            if !seen.insert(target) {
                let mark = self.mark(name, "volumes");
                self.log.error(
                    mark,
                    format!("`services.{name}.volumes` mounts `{target}` twice"),
                );
            }
        }
    }

    /// Takes away what depends on nothing that is left; what cannot be taken away is in a circle or behind one.
    fn cycles(&mut self) {
        let services: &'a BTreeMap<String, Service> = &self.project.services;
        let mut left: BTreeSet<&str> = services.keys().map(String::as_str).collect();
        let next = |name: &str, left: &BTreeSet<&'a str>| first_dependency(services, name, left);
        while let Some(free) = left
            .iter()
            .copied()
            .find(|name| next(name, &left).is_none())
        {
            left.remove(free);
        }
        let Some(start) = left.first().copied() else {
            return;
        };
        let mut way = vec![start];
        while let Some(name) = way.last().and_then(|name| next(name, &left)) {
            if let Some(at) = way.iter().position(|known| *known == name) {
                let circle = way[at..].join("` → `");
                let mark = self.mark(name, "depends_on");
                return self.log.error(
                    mark,
                    format!("`depends_on` has a cycle: `{circle}` → `{name}`"),
                );
            }
            way.push(name);
        }
    }

    fn routes(&mut self) {
        let mut routes: BTreeMap<_, &str> = BTreeMap::new();
        for (name, service) in &self.project.services {
            let Some(ingress) = &service.ingress else {
                continue;
            };
            let route = (
                ingress.listen,
                ingress.host.as_deref(),
                ingress.path.as_str(),
            );
            if let Some(other) = routes.insert(route, name) {
                let mark = self.mark(name, "x-ingress");
                let message = format!(
                    "`services.{name}.x-ingress` has the same host, path and port as that of `{other}`"
                );
                self.log.error(mark, message);
            }
        }
    }

    fn ingress_listeners(&mut self) {
        for (name, service) in &self.project.services {
            let Some(ingress) = &service.ingress else {
                continue;
            };
            let taken = |port: &crate::model::Port| {
                port.published == Some(ingress.listen) && port.protocol == "tcp"
            };
            if service.ports.iter().any(taken) {
                let mark = self.mark(name, "ports");
                let message = format!(
                    "`services.{name}.ports` publishes port {}, on which the ingress listens",
                    ingress.listen
                );
                let hint = "with `x-ingress` no port need be published; or give another `listen`";
                self.log.error_with_hint(mark, message, hint);
            }
        }
    }
}

/// A dependency of a service that is still left.
fn first_dependency<'a>(
    services: &'a BTreeMap<String, Service>,
    name: &str,
    left: &BTreeSet<&'a str>,
) -> Option<&'a str> {
    let mut dependencies = services.get(name)?.depends_on.keys();
    dependencies.find_map(|other| left.get(other.as_str()).copied())
}
