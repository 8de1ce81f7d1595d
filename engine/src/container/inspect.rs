//! A record as the API shows it.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_engine_api::types::{
    ContainerInspect, EndpointSettings, GraphDriver, NetworkSettings, Port, PortBinding, StringMap,
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

/// The networks it is in.
pub fn networks(r: &Record) -> BTreeMap<String, EndpointSettings> {
    let name = network_name(r);
    if name.is_empty() {
        return BTreeMap::new();
    }
    let mut endpoint = r.state.endpoint.clone();
    if let Some(wanted) = r.networking.endpoints_config.get(&name) {
        endpoint.aliases = wanted.aliases.clone().or(endpoint.aliases);
        endpoint.ipam_config = wanted.ipam_config.clone().or(endpoint.ipam_config);
    }
    [(name, endpoint)].into()
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
    let endpoint = if network_name(r) == "bridge" {
        r.state.endpoint.clone()
    } else {
        EndpointSettings::default()
    };
    NetworkSettings {
        sandbox_id: if r.state.status.has_process() {
            r.id.clone()
        } else {
            String::new()
        },
        ports: port_map(r),
        endpoint_id: endpoint.endpoint_id,
        gateway: endpoint.gateway,
        ip_address: endpoint.ip_address,
        ip_prefix_len: endpoint.ip_prefix_len,
        global_ipv6_address: endpoint.global_ipv6_address,
        global_ipv6_prefix_len: endpoint.global_ipv6_prefix_len,
        ipv6_gateway: endpoint.ipv6_gateway,
        sandbox_key: r.state.netns.clone(),
        mac_address: endpoint.mac_address,
        networks: networks(r),
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
        host_config: r.host_config.clone(),
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
