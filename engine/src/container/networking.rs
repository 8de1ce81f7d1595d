//! A container's networks: what it wants of them, going into one and out of one while it exists, and what it sees of them in `/etc`.
//!
//! Deliberately absent: how networks work (`parts::Networks`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use fs_err as fs;
use windlass_engine_api::types::{
    EndpointSettings, HostConfig, NetworkInspect, NetworkingConfig, PortBinding, PortMap,
};

use super::error::{Error, Kind, Result};
use super::parts::{Connect, Connected, Join, Netns};
use super::record::{Record, Status};
use super::registry::Container;
use super::{Engine, inspect, links, validate};

/// Of `/etc/hosts` and `/etc/resolv.conf`, in bytes.
const LARGEST: u64 = 4 << 20;
const NO_STATIC: &str = "user specified IP address is supported on user defined networks only";
const NO_ALIAS: &str =
    "network-scoped alias is supported only for containers in user defined networks";

impl Engine {
    /// The networks of a new container, by their names.
    pub(super) fn settle_networks(
        &self,
        host: &HostConfig,
        mac: &str,
        networking: &mut NetworkingConfig,
    ) -> Result<()> {
        let mode = host.network_mode.as_str();
        if mode.starts_with("container:") {
            networking.endpoints_config.clear();
            return Ok(());
        }
        let named = |key: &str| match key {
            "default" => "bridge".to_owned(),
            key => self
                .networks
                .find(key)
                .map_or_else(|_| key.to_owned(), |n| n.name),
        };
        let asked = std::mem::take(&mut networking.endpoints_config);
        let mut settled: BTreeMap<String, EndpointSettings> = asked
            .into_iter()
            .map(|(key, settings)| (named(&key), settings))
            .collect();
        let own = named(mode);
        let built_in = matches!(own.as_str(), "bridge" | "host" | "none");
        if settled.is_empty() || !built_in {
            settled.entry(own.clone()).or_default();
        }
        if let Some(settings) = settled.get_mut(&own).filter(|s| s.mac_address.is_empty()) {
            mac.clone_into(&mut settings.mac_address);
        }
        for (name, settings) in &settled {
            check(name, settings).map_err(|e| {
                let message = format!(
                    "invalid config for network {name}: invalid endpoint settings:\n{}",
                    e.message
                );
                Error::new(e.kind, message)
            })?;
        }
        networking.endpoints_config = settled;
        Ok(())
    }

    /// The container's network, made.
    pub(super) async fn connect(&self, record: &Record) -> Result<(Netns, Option<Connected>)> {
        let mode = record.host_config.network_mode.as_str();
        if let Some(other) = mode.strip_prefix("container:") {
            if self.containers.find(other)?.id == record.id {
                return Err(Error::invalid("cannot join own network namespace"));
            }
            let pid = self.pid_of(other)?;
            return Ok((Netns::Path(format!("/proc/{pid}/ns/net").into()), None));
        }
        let names = inspect::network_names(record);
        if mode == "host" || names.iter().any(|n| n == "host") {
            return Ok((Netns::Host, None));
        }
        if mode == "none" || names.iter().any(|n| n == "none") || record.config.network_disabled {
            return Ok((Netns::None, None));
        }
        let owned = Connect {
            user: self
                .remap_of(&record.host_config)
                .map(|remap| remap.maps.clone()),
            ..wanted(record)?
        };
        let connected = self.networks.connect(&owned).await?;
        Ok((Netns::Path(connected.netns.clone()), Some(connected)))
    }

    /// Tells everybody that a container came into its networks, or left them.
    pub(super) fn tell_networks(&self, container: &Container, action: &str) {
        let endpoints = container.read(|r| r.state.endpoints.clone());
        for (name, endpoint) in endpoints {
            self.tell_network(container, action, &endpoint.network_id, &name);
        }
    }

    fn tell_network(&self, container: &Container, action: &str, id: &str, name: &str) {
        let driver = self.networks.find(id).map(|n| n.driver);
        let attributes = [
            ("container", container.id.clone()),
            ("name", name.to_owned()),
            ("type", driver.unwrap_or_else(|_| "bridge".to_owned())),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
        self.events
            .publish("network", action, id, attributes.into());
    }

    /// `docker network connect`.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let network = self.networks.find(network)?;
        let container = self.containers.find(container)?;
        let _one = container.operation.lock().await;
        let mut record = container.snapshot();
        may_change(&record, &network)?;
        check(&network.name, &settings)?;
        let runs = record.state.status.has_process();
        settle_old(&mut record);
        if runs && record.state.endpoints.contains_key(&network.name) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "endpoint with name {} already exists in network {}",
                    record.name, network.name
                ),
            ));
        }
        let known = &mut record.networking.endpoints_config;
        known.insert(network.name.clone(), settings);
        let connected = if runs && !record.state.netns.is_empty() {
            let mut wanted = wanted(&record)?;
            wanted.joins.retain(|j| j.network == network.name);
            Some(self.networks.join(&wanted).await?)
        } else {
            None
        };
        container.update(|r| {
            r.networking = record.networking.clone();
            r.networks_settled = true;
            if let Some(connected) = &connected {
                r.state.endpoints.clone_from(&connected.endpoints);
                r.state.ports.clone_from(&connected.ports);
            }
        });
        if let Some(connected) = &connected {
            let before = &record.state.endpoints;
            self.refresh(&container, before, connected)?;
        }
        self.tell_network(&container, "connect", &network.id, &network.name);
        Ok(())
    }

    /// `docker network disconnect`.
    pub async fn disconnect_network(&self, network: &str, container: &str) -> Result<()> {
        let network = self.networks.find(network)?;
        let container = self.containers.find(container)?;
        let _one = container.operation.lock().await;
        let mut record = container.snapshot();
        if network.name == "host" || record.host_config.network_mode == "host" {
            return Err(Error::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        settle_old(&mut record);
        let known = &mut record.networking.endpoints_config;
        if known.remove(&network.name).is_none() {
            return Err(Error::message(format!(
                "container {} is not connected to network {}",
                container.id, network.name
            )));
        }
        let runs = record.state.status.has_process() && !record.state.netns.is_empty();
        let connected = if runs {
            Some(self.networks.leave(&container.id, &network.id).await?)
        } else {
            None
        };
        container.update(|r| {
            r.networking = record.networking.clone();
            r.networks_settled = true;
            r.state.endpoints.remove(&network.name);
            if let Some(connected) = &connected {
                r.state.ports.clone_from(&connected.ports);
            }
        });
        if let Some(connected) = &connected {
            self.refresh(&container, &record.state.endpoints, connected)?;
        }
        self.tell_network(&container, "disconnect", &network.id, &network.name);
        Ok(())
    }

    /// `/etc/hosts` and `/etc/resolv.conf` of a running container follow its networks; what others have written there stays.
    fn refresh(
        &self,
        container: &Container,
        before: &BTreeMap<String, EndpointSettings>,
        connected: &Connected,
    ) -> Result<()> {
        let record = container.snapshot();
        let lines = |endpoints| own_lines(&record, endpoints);
        let (old, new) = (lines(before), lines(&connected.endpoints));
        let path = container.folder.join("hosts");
        if let Some(mut text) = of_containers_own(&path)? {
            for line in old.iter().filter(|l| !new.contains(l)) {
                text = text.replace(line.as_str(), "");
            }
            for line in new.iter().filter(|l| !old.contains(l)) {
                text.push_str(line);
            }
            // In place: the container has this very file.
            fs::write(&path, text)?;
        }
        let path = container.folder.join("resolv.conf");
        if let Some(server) = connected.nameserver.as_deref()
            && of_containers_own(&path)?.is_some_and(|text| !text.contains(server))
        {
            let original = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let host = &record.host_config;
            let text = super::prepare::resolv_conf(host, &original, false, Some(server));
            fs::write(&path, text)?;
        }
        Ok(())
    }
}

/// The text of a file that the container may write to; `None` where it has made something else of it, which is its own affair.
fn of_containers_own(path: &Path) -> Result<Option<String>> {
    use std::io::Read as _;
    let mut content = Vec::new();
    let file = fs::File::open(path)?;
    file.take(LARGEST + 1).read_to_end(&mut content)?;
    let fits = content.len() as u64 <= LARGEST;
    Ok(String::from_utf8(content).ok().filter(|_| fits))
}

/// An older engine's record says where the container is by its mode only.
fn settle_old(record: &mut Record) {
    if record.networks_settled {
        return;
    }
    for name in inspect::network_names(record) {
        record.networking.endpoints_config.entry(name).or_default();
    }
}

/// Whether the container's networks may change at all.
fn may_change(record: &Record, network: &NetworkInspect) -> Result<()> {
    let mode = record.host_config.network_mode.as_str();
    if matches!(record.state.status, Status::Removing | Status::Dead) {
        return Err(Error::conflict(format!(
            "container {} is marked for removal and cannot be connected or disconnected to the network {}",
            record.id, network.name
        )));
    }
    if mode.starts_with("container:") {
        return Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    if mode == "host" || network.name == "host" {
        return Err(Error::invalid(
            "container cannot be disconnected from host network or connected to host network",
        ));
    }
    let names = inspect::network_names(record);
    if names.iter().any(|n| n == "none") || network.name == "none" && !names.is_empty() {
        return Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}

/// What a container cannot have that has another's network, or the host's.
fn check(network: &str, settings: &EndpointSettings) -> Result<()> {
    let mac = &settings.mac_address;
    if !mac.is_empty() && !is_mac(mac) {
        return Err(Error::invalid(format!("{mac} is not a valid mac address")));
    }
    let fixed = settings.ipam_config.as_ref();
    let wants = |text: &str| !text.is_empty();
    for (family, text, fits) in fixed.into_iter().flat_map(|f| {
        let v4: fn(&IpAddr) -> bool = IpAddr::is_ipv4;
        let v6: fn(&IpAddr) -> bool = IpAddr::is_ipv6;
        [
            ("IPv4", f.ipv4_address.as_str(), v4),
            ("IPv6", f.ipv6_address.as_str(), v6),
        ]
    }) {
        if wants(text) && !text.parse().is_ok_and(|a: IpAddr| fits(&a)) {
            return Err(Error::invalid(format!("invalid {family} address: {text}")));
        }
    }
    if !matches!(network, "bridge" | "host" | "none" | "default") {
        return Ok(());
    }
    if fixed.is_some_and(|f| wants(&f.ipv4_address) || wants(&f.ipv6_address)) {
        return Err(Error::invalid(NO_STATIC));
    }
    if settings.aliases.as_ref().is_some_and(|a| !a.is_empty()) {
        return Err(Error::invalid(NO_ALIAS));
    }
    Ok(())
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let byte = |p: &&str| p.len() <= 2 && u8::from_str_radix(p, 16).is_ok();
    parts.len() == 6 && parts.iter().all(byte)
}

/// What it wants of its networks, the one it was made for first.
pub(super) fn wanted(record: &Record) -> Result<Connect> {
    let own = inspect::network_name(record);
    let mut names = inspect::network_names(record);
    let priority = |name: &String| {
        let settings = record.networking.endpoints_config.get(name);
        settings.map_or(0, |s| s.gw_priority)
    };
    names.sort_by_key(|n| (*n != own, std::cmp::Reverse(priority(n)), n.clone()));
    let joins = names.into_iter().map(|name| join(record, name)).collect();
    Ok(Connect {
        container: record.id.clone(),
        joins,
        ports: ports(record)?,
        former_ports: record.state.former_ports.clone(),
        publish_from: validate::publish_from(&record.config.labels)?,
        dns: record.host_config.dns.clone(),
        user: None,
    })
}

fn join(record: &Record, network: String) -> Join {
    let endpoint = record.networking.endpoints_config.get(&network);
    let endpoint = endpoint.cloned().unwrap_or_default();
    let names = dns_names(record, &endpoint);
    let text = |value: String| (!value.is_empty()).then_some(value);
    let ipam = endpoint.ipam_config.unwrap_or_default();
    let mut own = endpoint.links.unwrap_or_default();
    // What was asked for with the container itself is for the network that it begins in.
    if network != "bridge" && network == inspect::network_name(record) {
        own.extend(record.host_config.links.clone());
    }
    let linked = own.iter().filter_map(|link| links::split(link).ok());
    let linked = linked.map(|(target, alias)| (alias, target));
    let former = record.state.endpoints.get(&network);
    let mac = text(endpoint.mac_address).or_else(|| {
        let first = network == inspect::network_name(record);
        text(record.config.mac_address.clone()).filter(|_| first)
    });
    Join {
        names,
        links: linked.collect(),
        v4: text(ipam.ipv4_address),
        v6: text(ipam.ipv6_address),
        mac,
        priority: endpoint.gw_priority,
        options: endpoint.driver_opts.unwrap_or_default(),
        former_v4: former.and_then(|f| text(f.ip_address.clone())),
        former_v6: former.and_then(|f| text(f.global_ipv6_address.clone())),
        network,
    }
}

/// Names by which others in the network find it.
pub(super) fn dns_names(record: &Record, endpoint: &EndpointSettings) -> Vec<String> {
    let short = record.id[..12.min(record.id.len())].to_owned();
    let all = [record.name.clone()]
        .into_iter()
        .chain(endpoint.aliases.clone().unwrap_or_default())
        .chain([short, record.config.hostname.clone()]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|n| !n.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn ports(record: &Record) -> Result<PortMap> {
    let mut ports = PortMap::new();
    for (port, bindings) in &record.host_config.port_bindings {
        let (number, protocol) = validate::parse_port(port)?;
        let bindings = if bindings.is_empty() {
            vec![PortBinding::default()]
        } else {
            bindings.clone()
        };
        ports.insert(format!("{number}/{protocol}"), bindings);
    }
    if record.host_config.publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            ports
                .entry(port.clone())
                .or_insert_with(|| vec![PortBinding::default()]);
        }
    }
    Ok(ports)
}

/// Its own lines of `/etc/hosts`, one an address.
fn own_lines(record: &Record, endpoints: &BTreeMap<String, EndpointSettings>) -> Vec<String> {
    let (hostname, domain) = (&record.config.hostname, &record.config.domainname);
    let name = match hostname.split_once('.') {
        _ if !domain.is_empty() => format!("{hostname}.{domain} {hostname}"),
        // `-h boat.example.org` is a name and its domain in one.
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.clone(),
    };
    let own = inspect::network_name(record);
    let mut ordered: Vec<_> = endpoints.iter().collect();
    ordered.sort_by_key(|(network, _)| **network != own);
    let addresses = |e: &EndpointSettings| [e.ip_address.clone(), e.global_ipv6_address.clone()];
    let all = ordered.into_iter().flat_map(|(_, e)| addresses(e));
    all.filter(|a| !a.is_empty())
        .map(|address| format!("{address}\t{name}\n"))
        .collect()
}

/// `/etc/hosts`; `links` are lines for containers that it is linked with.
pub(super) fn hosts(
    record: &Record,
    links: &[String],
    connected: Option<&Connected>,
) -> Result<String> {
    let host = &record.host_config;
    let mut text = if host.network_mode == "host" {
        fs::read_to_string(Path::new("/etc/hosts")).unwrap_or_default()
    } else {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned()
    };
    for extra in &host.extra_hosts {
        let (name, address) = extra
            .split_once([':', '='])
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: \"{extra}\"")))?;
        let address = if address == "host-gateway" {
            connected.and_then(Connected::gateway).unwrap_or_default()
        } else {
            address.trim_matches(['[', ']'])
        };
        if address.parse::<IpAddr>().is_err() {
            return Err(Error::invalid(format!(
                "invalid IP address in add-host: \"{address}\""
            )));
        }
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.extend(links.iter().map(String::as_str));
    if let Some(connected) = connected {
        text.extend(own_lines(record, &connected.endpoints));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            networks_settled: true,
            ..Record::default()
        };
        record.config.hostname = "boat".to_owned();
        record.host_config.network_mode = "back".to_owned();
        record
    }

    fn endpoint(v4: &str, v6: &str, gateway: &str) -> EndpointSettings {
        EndpointSettings {
            ip_address: v4.to_owned(),
            global_ipv6_address: v6.to_owned(),
            gateway: gateway.to_owned(),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn host_lines() {
        let mut record = record();
        record.config.domainname = "sea".to_owned();
        record.host_config.extra_hosts =
            vec!["db:10.0.0.9".to_owned(), "up=host-gateway".to_owned()];
        let connected = Connected {
            endpoints: [
                ("a".to_owned(), endpoint("10.2.0.2", "", "")),
                (
                    "back".to_owned(),
                    endpoint("10.1.0.2", "fd00::2", "10.1.0.1"),
                ),
            ]
            .into(),
            ..Connected::default()
        };
        let linked = ["10.1.0.7\tother\n".to_owned()];
        let text = hosts(&record, &linked, Some(&connected)).unwrap();
        let end = "10.0.0.9\tdb\n10.1.0.1\tup\n10.1.0.7\tother\n10.1.0.2\tboat.sea boat\nfd00::2\tboat.sea boat\n10.2.0.2\tboat.sea boat\n";
        assert!(text.ends_with(end), "{text}");
        record.host_config.extra_hosts = vec!["db:nowhere".to_owned()];
        assert!(hosts(&record, &[], None).is_err());
    }

    #[test]
    fn what_it_wants_of_several_networks() {
        let mut record = record();
        let front = EndpointSettings {
            gw_priority: 5,
            aliases: Some(vec!["www".to_owned(), "web".to_owned()]),
            ..EndpointSettings::default()
        };
        record.networking.endpoints_config = [
            ("front".to_owned(), front),
            ("aaa".to_owned(), EndpointSettings::default()),
            ("back".to_owned(), EndpointSettings::default()),
        ]
        .into();
        let formerly = endpoint("10.1.0.2", "", "");
        record.state.endpoints = [("back".to_owned(), formerly)].into();
        let wanted = wanted(&record).unwrap();
        let names: Vec<_> = wanted.joins.iter().map(|j| j.network.as_str()).collect();
        assert_eq!(names, ["back", "front", "aaa"]);
        assert_eq!(wanted.joins[0].former_v4.as_deref(), Some("10.1.0.2"));
        let names = &wanted.joins[1].names;
        assert_eq!(names, &["web", "www", "0123456789ab", "boat"]);
    }

    #[test]
    fn endpoint_settings_that_make_no_sense() {
        let fixed = |v4: &str| EndpointSettings {
            ipam_config: Some(windlass_engine_api::types::EndpointIpam {
                ipv4_address: v4.to_owned(),
                ..Default::default()
            }),
            ..EndpointSettings::default()
        };
        assert!(check("back", &fixed("10.0.0.1")).is_ok());
        assert_eq!(
            check("bridge", &fixed("10.0.0.1")).unwrap_err().message,
            NO_STATIC
        );
        assert!(check("back", &fixed("fd00::1")).is_err());
        let aliased = EndpointSettings {
            aliases: Some(vec!["x".to_owned()]),
            ..EndpointSettings::default()
        };
        assert!(check("back", &aliased).is_ok() && check("bridge", &aliased).is_err());
        let mac = EndpointSettings {
            mac_address: "zz".to_owned(),
            ..EndpointSettings::default()
        };
        let error = check("back", &mac).unwrap_err();
        assert_eq!(error.message, "zz is not a valid mac address");
    }

    #[test]
    fn what_a_container_made_of_its_files_is_its_own_affair() {
        let dir = tempfile::tempdir().unwrap();
        let read = |content: &[u8]| {
            let path = dir.path().join("hosts");
            fs::write(&path, content).unwrap();
            of_containers_own(&path).unwrap()
        };
        assert_eq!(read(b"1.2.3.4 a\n").as_deref(), Some("1.2.3.4 a\n"));
        assert_eq!(read(b"\xff\n"), None);
        let endless = fs::File::options()
            .write(true)
            .open(dir.path().join("hosts"));
        endless.unwrap().set_len(1 << 40).unwrap();
        assert_eq!(of_containers_own(&dir.path().join("hosts")).unwrap(), None);
    }
}
