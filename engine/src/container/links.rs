//! `--link`: on the default network, where names are not resolved, a linked container is found by `/etc/hosts` and variables.

use std::collections::BTreeMap;

use windlass_engine_api::types::HostConfig;

use super::error::{Error, Result};
use super::record::Record;
use super::{Engine, inspect, validate};

/// `target[:alias]`, also as `docker inspect` shows it (`/target:/container/alias`).
pub(super) fn split(link: &str) -> Result<(String, String)> {
    let bad = || Error::invalid(format!("bad format for links: {link}"));
    let parts: Vec<&str> = link.split(':').collect();
    let (target, alias) = match parts[..] {
        [one] => (one, one),
        [target, alias] => (target, alias),
        _ => return Err(bad()),
    };
    let target = target.trim_start_matches('/');
    let alias = alias.rsplit('/').next().unwrap_or_default();
    if target.is_empty() || alias.is_empty() {
        return Err(bad());
    }
    Ok((target.to_owned(), alias.to_owned()))
}

/// As `docker inspect` shows them.
pub(super) fn shown(container: &str, links: &[String]) -> Vec<String> {
    let mut all: Vec<String> = links
        .iter()
        .filter_map(|link| split(link).ok())
        .map(|(target, alias)| format!("/{target}:/{container}/{alias}"))
        .collect();
    all.sort();
    all
}

/// What a container gets from its links.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Linked {
    /// Lines of `/etc/hosts`.
    pub hosts: Vec<String>,
    /// Variables.
    pub env: Vec<String>,
}

impl Engine {
    /// Whether the containers are there that a new one links with; the names are those that they have now.
    pub(super) fn check_links(&self, host: &mut HostConfig) -> Result<()> {
        if !matches!(host.network_mode.as_str(), "bridge" | "host" | "none") {
            // By name, whenever somebody of that name is in the network.
            return host.links.iter().try_for_each(|l| split(l).map(drop));
        }
        for link in &mut host.links {
            let (target, alias) = split(link)?;
            // Not found would tell the client to pull the image.
            // Whoever is in another's network is reached by that one.
            let other = self.network_owner(&target).map_err(|e| {
                Error::invalid(format!(
                    "could not get container for {target}: {}",
                    e.message
                ))
            })?;
            if other.read(|r| r.host_config.network_mode == "host") {
                return Err(Error::invalid(
                    "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
                ));
            }
            *link = format!("{}:{alias}", other.read(|r| r.name.clone()));
        }
        Ok(())
    }

    /// The names that containers have by the links of others, `container/alias`, by the container linked with.
    pub(super) fn names_by_links(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.containers.all() {
            let (name, links) = container.read(|r| (r.name.clone(), r.host_config.links.clone()));
            for (target, alias) in links.iter().filter_map(|l| split(l).ok()) {
                if let Ok(other) = self.containers.find(&target) {
                    let known = names.entry(other.id.clone()).or_default();
                    known.push(format!("/{name}/{alias}"));
                }
            }
        }
        names
    }

    /// `docker rm --link container/alias`.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        let name = name.trim_start_matches('/');
        let (parent, alias) = name.rsplit_once('/').ok_or_else(|| {
            Error::invalid("Conflict, cannot remove the default link name of the container")
        })?;
        let container = self.containers.find(parent).map_err(|e| {
            Error::new(
                e.kind,
                format!("Cannot get parent /{parent} for link /{name}"),
            )
        })?;
        container.update(|r| {
            let other = |link: &String| split(link).is_ok_and(|(_, own)| own != alias);
            r.host_config.links.retain(other);
        });
        Ok(())
    }

    /// What a container of the default network gets from its links.
    pub(super) fn linked(&self, record: &Record) -> Result<Linked> {
        let mut linked = Linked::default();
        if inspect::network_name(record) != "bridge" {
            return Ok(linked);
        }
        for link in &record.host_config.links {
            let (target, alias) = split(link)?;
            let other = self.containers.find(&target)?.snapshot();
            let endpoint = other.state.endpoints.get("bridge");
            if !other.state.status.has_process() {
                return Err(Error::message(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, record.name
                )));
            }
            let endpoint = endpoint.ok_or_else(|| {
                Error::message(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    other.name
                ))
            })?;
            let address = &endpoint.ip_address;
            let mut names = format!("{alias} {}", other.config.hostname);
            if alias != other.name {
                names.push_str(&format!(" {}", other.name));
            }
            linked.hosts.push(format!("{address}\t{names}\n"));
            linked
                .env
                .extend(variables(&record.name, &alias, address, &other));
        }
        Ok(linked)
    }
}

/// Docker's variables for a linked container.
fn variables(own: &str, alias: &str, address: &str, other: &Record) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<(bool, u16, String)> = other
        .config
        .exposed_ports
        .keys()
        .filter_map(|p| validate::parse_port(p).ok())
        .map(|(port, protocol)| (protocol != "tcp", port, protocol))
        .collect();
    ports.sort();
    let mut env = Vec::new();
    if let Some((_, port, protocol)) = ports.iter().min_by_key(|(_, port, _)| *port) {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (_, port, protocol) in &ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        env.push(format!("{name}={protocol}://{address}:{port}"));
        env.push(format!("{name}_ADDR={address}"));
        env.push(format!("{name}_PORT={port}"));
        env.push(format!("{name}_PROTO={protocol}"));
    }
    env.push(format!("{prefix}_NAME=/{own}/{alias}"));
    let theirs = other.config.env.iter().filter_map(|v| v.split_once('='));
    for (name, value) in theirs.filter(|(name, _)| !matches!(*name, "HOME" | "PATH")) {
        env.push(format!("{prefix}_ENV_{name}={value}"));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("db").unwrap(), pair("db", "db"));
        assert_eq!(split("db:store").unwrap(), pair("db", "store"));
        assert_eq!(split("/db:/web/store").unwrap(), pair("db", "store"));
        for bad in ["", ":x", "x:", "a:b:c"] {
            assert!(split(bad).is_err(), "{bad}");
        }
        assert_eq!(shown("web", &["db:store".to_owned()]), ["/db:/web/store"]);
    }

    #[test]
    fn variables_of_a_linked_container() {
        let mut other = Record::default();
        for port in ["80/tcp", "53/udp"] {
            other
                .config
                .exposed_ports
                .insert(port.to_owned(), Default::default());
        }
        other.config.env = vec!["A=b".to_owned(), "PATH=/x".to_owned()];
        let env = variables("web", "my-db", "10.0.0.2", &other);
        assert_eq!(env[0], "MY_DB_PORT=udp://10.0.0.2:53");
        assert_eq!(env[1], "MY_DB_PORT_80_TCP=tcp://10.0.0.2:80");
        assert_eq!(env[4], "MY_DB_PORT_80_TCP_PROTO=tcp");
        assert_eq!(env[9..], ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=b"]);
    }
}
