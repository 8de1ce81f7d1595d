//! Where the services of a project answer, for the last lines of `up`.
//!
//! Deliberately absent: whether they do; `up` has waited for that.

use windlass_compose::model::{Project, Service};
use windlass_deploy::ReplicaView;
use windlass_machine::Machine;

/// `(service, address)`: URLs of the ingress, and published ports as `address:port`.
pub fn of(
    project: &Project,
    machines: &[Machine],
    replicas: &[ReplicaView],
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, service) in &project.services {
        let through_ingress = behind_ingress(project, service, machines);
        found.extend(through_ingress.map(|address| (name.clone(), address)));
    }
    for replica in replicas {
        let behind_ingress = |s: &Service| s.ingress.is_some();
        if project
            .services
            .get(&replica.service)
            .is_none_or(behind_ingress)
        {
            continue;
        }
        let machine = machines
            .iter()
            .find(|machine| machine.name == replica.machine);
        let address = machine.and_then(|machine| machine.address.as_deref());
        let ports = replica
            .ports
            .iter()
            .filter_map(|port| published(port, address));
        found.extend(ports.map(|address| (replica.service.clone(), address)));
    }
    found
}

/// The ingress listens on the first `min` machines of the service's fleet.
fn behind_ingress<'a>(
    project: &'a Project,
    service: &'a Service,
    machines: &'a [Machine],
) -> impl Iterator<Item = String> + 'a {
    let constraints = &service.deploy.constraints;
    let constrained = constraints
        .iter()
        .find(|c| c.equal && c.key == "node.labels.fleet")
        .map(|c| c.value.as_str());
    let fleet = constrained.or_else(|| match project.fleets.len() {
        1 => project.fleets.keys().next().map(String::as_str),
        _ => None,
    });
    let least = fleet
        .and_then(|name| project.fleets.get(name))
        .map_or(0, |f| f.min);
    let holds_ingress = move |machine: &&Machine| {
        machine.project.as_ref() == Some(&project.name)
            && machine
                .slot
                .as_ref()
                .is_some_and(|slot| Some(slot.fleet.as_str()) == fleet && slot.ordinal <= least)
    };
    let ingress = service.ingress.as_ref();
    let holders = machines.iter().filter(holds_ingress);
    holders.filter_map(move |machine| {
        let ingress = ingress?;
        let host = bracketed(machine.address.as_deref()?);
        let virtual_host = match &ingress.host {
            Some(name) => format!(" (as {name})"),
            None => String::new(),
        };
        Some(format!(
            "http://{host}:{}{}{virtual_host}",
            ingress.listen, ingress.path
        ))
    })
}

/// `0.0.0.0:8088->80/tcp` as it is reached from here.
fn published(port: &str, address: Option<&str>) -> Option<String> {
    let (bound, _) = port.split_once("->")?;
    let (bound_to, number) = bound.rsplit_once(':')?;
    let everywhere = ["0.0.0.0", "::", "[::]", ""].contains(&bound_to);
    let host = if everywhere {
        bracketed(address?)
    } else {
        bound_to.to_owned()
    };
    Some(format!("{host}:{number}"))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::published;

    #[test]
    fn published_ports() {
        let at = Some("192.0.2.7");
        let cases = [
            ("0.0.0.0:8088->80/tcp", at, Some("192.0.2.7:8088")),
            ("10.0.0.5:81->80/tcp", at, Some("10.0.0.5:81")),
            (
                "[::]:81->80/tcp",
                Some("2001:db8::1"),
                Some("[2001:db8::1]:81"),
            ),
            ("0.0.0.0:81->80/tcp", None, None),
            ("80/tcp", at, None),
        ];
        for (port, address, want) in cases {
            assert_eq!(published(port, address).as_deref(), want, "{port}");
        }
    }
}
