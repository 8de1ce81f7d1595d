//! A record as the API shows it.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_engine_api::types::{
    ContainerInspect, EndpointSettings, GraphDriver, HostConfig, NetworkSettings, Port,
    PortBinding, StringMap,
};

use super::list::sort_ports;
use super::record::Record;

/// The network's name in the API: `bridge`, `host`, `none`, or a user's.
pub fn network_name(r: &Record) -> String {
    match r.host_config.network_mode.as_str() {
        "" | "default" | "bridge" => "bridge".to_owned(),
        mode if mode.starts_with("container:") => String::new(),
        other => other.to_owned(),
    }
}

/// The names of all its networks.
pub fn network_names(r: &Record) -> Vec<String> {
    let known = &r.networking.endpoints_config;
    if r.networks_settled {
        return known.keys().cloned().collect();
    }
    Some(network_name(r))
        .filter(|n| !n.is_empty())
        .into_iter()
        .collect()
}

/// The networks it is in: what was asked for, and what it has while it runs.
pub fn networks(r: &Record) -> BTreeMap<String, EndpointSettings> {
    let one = |name: String| {
        let mut shown = r
            .networking
            .endpoints_config
            .get(&name)
            .cloned()
            .unwrap_or_default();
        let wanted_mac = std::mem::take(&mut shown.mac_address);
        let has = r.state.endpoints.get(&name).cloned().unwrap_or_default();
        shown.network_id = has.network_id;
        if r.state.status.has_process() {
            shown.endpoint_id = has.endpoint_id;
            shown.gateway = has.gateway;
            shown.ip_address = has.ip_address;
            shown.ip_prefix_len = has.ip_prefix_len;
            shown.ipv6_gateway = has.ipv6_gateway;
            shown.global_ipv6_address = has.global_ipv6_address;
            shown.global_ipv6_prefix_len = has.global_ipv6_prefix_len;
            shown.mac_address = has.mac_address;
        } else {
            shown.mac_address = wanted_mac;
        }
        let built_in = matches!(name.as_str(), "bridge" | "host" | "none");
        shown.dns_names = (!built_in).then(|| super::networking::dns_names(r, &shown));
        (name, shown)
    };
    network_names(r).into_iter().map(one).collect()
}

/// Exposed and published ports, for a list.
pub fn ports(r: &Record) -> Vec<Port> {
    if !r.state.status.has_process() {
        return Vec::new();
    }
    let split = |text: &str| super::validate::parse_port(text).unwrap_or_default();
    let mut ports = Vec::new();
    for (port, bindings) in &r.state.ports {
        let (private_port, kind) = split(port);
        for binding in bindings {
            let public_port = binding.host_port.parse().ok();
            ports.push(Port {
                ip: binding.host_ip.clone(),
                private_port,
                public_port,
                kind: kind.clone(),
            });
        }
    }
    for port in r
        .config
        .exposed_ports
        .keys()
        .filter(|p| !r.state.ports.contains_key(*p))
    {
        let (private_port, kind) = split(port);
        ports.push(Port {
            ip: String::new(),
            private_port,
            public_port: None,
            kind,
        });
    }
    sort_ports(&mut ports);
    ports
}

fn port_map(r: &Record) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    // Nothing is published where there is no network of one's own.
    let network = network_name(r);
    if !r.state.status.has_process() || matches!(network.as_str(), "" | "host" | "none") {
        return BTreeMap::new();
    }
    let mut map: BTreeMap<String, Option<Vec<PortBinding>>> = r
        .config
        .exposed_ports
        .keys()
        .map(|p| (p.clone(), None))
        .collect();
    map.extend(
        r.state
            .ports
            .iter()
            .map(|(port, bindings)| (port.clone(), Some(bindings.clone()))),
    );
    map
}

fn network_settings(r: &Record) -> NetworkSettings {
    let networks = networks(r);
    let endpoint = networks.get("bridge").cloned().unwrap_or_default();
    let runs = r.state.status.has_process();
    NetworkSettings {
        sandbox_id: if runs { r.id.clone() } else { String::new() },
        sandbox_key: if runs {
            r.state.netns.clone()
        } else {
            String::new()
        },
        ports: port_map(r),
        endpoint_id: endpoint.endpoint_id,
        gateway: endpoint.gateway,
        ip_address: endpoint.ip_address,
        ip_prefix_len: endpoint.ip_prefix_len,
        ipv6_gateway: endpoint.ipv6_gateway,
        global_ipv6_address: endpoint.global_ipv6_address,
        global_ipv6_prefix_len: endpoint.global_ipv6_prefix_len,
        mac_address: endpoint.mac_address,
        networks,
        ..NetworkSettings::default()
    }
}

/// Everything about a container.
pub fn inspect(
    r: &Record,
    folder: &Path,
    log_path: &Path,
    exec_ids: Vec<String>,
    folders: StringMap,
) -> ContainerInspect {
    let mut command = r.command().into_iter();
    let file = |name: &str| folder.join(name).display().to_string();
    ContainerInspect {
        id: r.id.clone(),
        created: r.created.clone(),
        path: command.next().unwrap_or_default(),
        args: command.collect(),
        state: r.state.to_wire(),
        image: r.image_id.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: log_path.display().to_string(),
        name: format!("/{}", r.name),
        restart_count: r.state.restart_count,
        driver: "overlay2".to_owned(),
        platform: "linux".to_owned(),
        app_armor_profile: super::security::parse(&r.host_config.security_opt)
            .ok()
            .and_then(|o| o.apparmor)
            .filter(|_| super::security::has_apparmor())
            .unwrap_or_default(),
        exec_ids: (!exec_ids.is_empty()).then_some(exec_ids),
        host_config: HostConfig {
            links: super::links::shown(&r.name, &r.host_config.links),
            ..r.host_config.clone()
        },
        graph_driver: GraphDriver {
            name: "overlay2".to_owned(),
            data: folders,
        },
        mounts: r.mounts.iter().filter_map(|m| m.to_wire()).collect(),
        config: r.config.clone(),
        network_settings: network_settings(r),
        ..ContainerInspect::default()
    }
}
