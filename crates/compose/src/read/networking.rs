//! A service's networks, names and `x-ingress`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Reader;
use crate::field::Field;
use crate::keys;
use crate::model::Ingress;
use crate::node::Value;

impl Reader<'_> {
    pub(super) fn memberships(&mut self, field: &Field<'_>) -> BTreeMap<String, Vec<String>> {
        if let Value::List(_) = field.node.value {
            let names = field.items(self.log);
            let names = names.iter().filter_map(|item| item.string(self.log));
            return names.map(|name| (name, Vec::new())).collect();
        }
        let mut memberships = BTreeMap::new();
        for (name, field) in field.members(self.log) {
            let mut aliases = Vec::new();
            if !field.node.is_null() {
                let fields = field.fields(&keys::SERVICE_NETWORK, self.log);
                let list = fields.and_then(|fields| fields.get("aliases"));
                let items = list.map(|list| list.items(self.log)).unwrap_or_default();
                aliases.extend(items.iter().filter_map(|item| item.string(self.log)));
            }
            memberships.insert(name.to_owned(), aliases);
        }
        memberships
    }

    pub(super) fn network_mode(&mut self, field: &Field<'_>) -> Option<String> {
        let mode = field.string(self.log)?;
        match mode.as_str() {
            "host" | "none" | "bridge" => Some(mode),
            other if other.starts_with("service:") || other.starts_with("container:") => {
                field.reject(
                    &format!("is `{other}`, which windlass does not have yet"),
                    self.log,
                );
                None
            }
            other => {
                field.reject(
                    &format!("must be `host`, `none` or `bridge`, but is `{other}`"),
                    self.log,
                );
                None
            }
        }
    }

    pub(super) fn host_name(&mut self, field: &Field<'_>) -> Option<String> {
        let name = field.string(self.log)?;
        if !is_host_name(&name) {
            field.reject(&format!("must be a host name, but is `{name}`"), self.log);
            return None;
        }
        Some(name)
    }

    /// `name:address`, `name=address`, a list or a mapping (to one address or several).
    pub(super) fn extra_hosts(&mut self, field: &Field<'_>) -> Vec<String> {
        let mut hosts = Vec::new();
        if let Value::List(_) = field.node.value {
            for item in field.items(self.log) {
                let Some(text) = item.string(self.log) else {
                    continue;
                };
                match text.split_once('=').or_else(|| text.split_once(':')) {
                    Some((name, address)) => hosts.extend(self.extra_host(name, address, &item)),
                    None => item.reject(
                        &format!("must be `name:address`, but is `{text}`"),
                        self.log,
                    ),
                }
            }
            return hosts;
        }
        for (name, field) in field.members(self.log) {
            for address in field.one_or_more() {
                if let Some(text) = address.string(self.log) {
                    hosts.extend(self.extra_host(name, &text, &address));
                }
            }
        }
        hosts
    }

    fn extra_host(&mut self, name: &str, address: &str, field: &Field<'_>) -> Option<String> {
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let good = bare == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok();
        if !good || name.is_empty() {
            let problem = format!("must be a name and an address, but is `{name}` and `{address}`");
            field.reject(&problem, self.log);
            return None;
        }
        Some(format!("{name}:{bare}"))
    }

    pub(super) fn ingress(&mut self, field: &Field<'_>) -> Option<Ingress> {
        let fields = field.fields(&keys::INGRESS, self.log)?;
        let host = fields.get("host").and_then(|host| self.host_name(&host));
        let listen = fields
            .get("listen")
            .and_then(|listen| self.port_number(&listen));
        let mut path_of = |key: &str| {
            let field = fields.get(key)?;
            let path = field.string(self.log)?;
            if !path.starts_with('/') || path.contains(char::is_whitespace) {
                field.reject(
                    &format!("must be a path that begins with `/`, but is `{path}`"),
                    self.log,
                );
                return None;
            }
            Some(path)
        };
        let (path, health_path) = (path_of("path"), path_of("health_path"));
        let drain = fields.duration("drain", self.log);
        let Some(port) = fields.get("port") else {
            field.reject("needs `port`, the port in the container", self.log);
            return None;
        };
        Some(Ingress {
            host,
            path: path.unwrap_or_else(|| "/".into()),
            port: self.port_number(&port)?,
            listen: listen.unwrap_or(80),
            health_path,
            drain: drain.unwrap_or(Duration::from_secs(30)),
        })
    }
}

fn is_host_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
