//! Whether a wanted container makes sense, in Docker's words: pure.

use std::collections::BTreeMap;

use windlass_engine_api::types::{
    ContainerConfig, HealthConfig, HostConfig, NetworkingConfig, PortBinding, RestartPolicy,
};

use super::error::{Error, Result};
use crate::runtime::capability;

/// Checks everything but limits (see `resources`) that can be checked without looking at the host.
pub fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    process(config)?;
    health(config.healthcheck.as_ref())?;
    restart(&host.restart_policy)?;
    let restarts = !matches!(host.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    ports(host)?;
    isolation(config, host)?;
    security(host)
}

/// What a container that is in another's network cannot have of its own; before the image has its say.
pub fn joined_network(
    config: &ContainerConfig,
    host: &HostConfig,
    networking: &NetworkingConfig,
) -> Result<()> {
    let mut endpoints = networking.endpoints_config.values();
    let has_mac = !config.mac_address.is_empty() || endpoints.any(|e| !e.mac_address.is_empty());
    if has_mac && host.network_mode == "host" {
        return Err(Error::invalid(
            "conflicting options: mac-address and the network mode",
        ));
    }
    if !host.network_mode.starts_with("container:") {
        return Ok(());
    }
    let publishes = !host.port_bindings.is_empty() || host.publish_all_ports;
    for (given, what) in [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            !host.links.is_empty(),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (!host.dns.is_empty(), "dns and the network mode"),
        (
            !host.extra_hosts.is_empty(),
            "custom host-to-IP mapping and the network mode",
        ),
        (has_mac, "mac-address and the network mode"),
        (
            publishes,
            "port publishing and the container type network mode",
        ),
        (
            !config.exposed_ports.is_empty(),
            "port exposing and the container type network mode",
        ),
    ] {
        if given {
            return Err(Error::invalid(format!("conflicting options: {what}")));
        }
    }
    Ok(())
}

/// Each variable has a name.
pub fn environment(variables: &[String]) -> Result<()> {
    let nameless = |v: &&String| v.is_empty() || v.starts_with('=');
    match variables.iter().find(nameless) {
        Some(variable) => Err(Error::invalid(format!(
            "invalid environment variable: {variable}"
        ))),
        None => Ok(()),
    }
}

fn process(config: &ContainerConfig) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    // The kernel says what else a name may be; these would reach into the files that hold it.
    for name in [&config.hostname, &config.domainname] {
        if name.contains(char::is_control) {
            return Err(Error::invalid(format!("invalid hostname format: {name:?}")));
        }
    }
    if !config.stop_signal.is_empty() && super::signal::parse(&config.stop_signal).is_none() {
        return Err(Error::invalid(format!(
            "Invalid signal: {}",
            config.stop_signal
        )));
    }
    Ok(())
}

fn health(health: Option<&HealthConfig>) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    let Some(health) = health else { return Ok(()) };
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if health.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// The policy is one, and has a count only where that means something.
pub fn restart(policy: &RestartPolicy) -> Result<()> {
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            let more = if policy.maximum_retry_count < 0 {
                " and cannot be negative"
            } else {
                ""
            };
            Err(Error::invalid(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{more}"
            )))
        }
        "on-failure" if policy.maximum_retry_count < 0 => Err(Error::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" => Ok(()),
        "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn ports(host: &HostConfig) -> Result<()> {
    for (port, bindings) in &host.port_bindings {
        parse_port(port)?;
        for PortBinding { host_ip, host_port } in bindings {
            if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
                return Err(Error::invalid(format!("invalid IP address: {host_ip}")));
            }
            if host_port.contains('-') {
                parse_range(host_port)?;
            } else if !host_port.is_empty() && host_port.parse::<u16>().is_err() {
                return Err(Error::invalid(format!(
                    "invalid port specification: \"{host_port}\""
                )));
            }
        }
    }
    Ok(())
}

/// `80`, `80/tcp`, `53/udp` → number and protocol.
pub fn parse_port(text: &str) -> Result<(u16, String)> {
    let bad = || Error::invalid(format!("invalid port specification: \"{text}\""));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number: u16 = number.parse().map_err(|_| bad())?;
    let protocol = protocol.to_lowercase();
    if number == 0 || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    Ok((number, protocol))
}

/// `8000-8010` → both ends.
pub fn parse_range(text: &str) -> Result<(u16, u16)> {
    let ends = text
        .split_once('-')
        .and_then(|(a, b)| Some((a.parse::<u16>().ok()?, b.parse::<u16>().ok()?)));
    ends.filter(|(a, b)| a <= b)
        .ok_or_else(|| Error::invalid(format!("invalid port range: \"{text}\"")))
}

fn isolation(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    super::log_options::check(&host.log_config)?;
    if !matches!(
        host.runtime.as_str(),
        "" | "windlass" | "runc" | "io.containerd.runc.v2"
    ) {
        return Err(Error::invalid(format!(
            "unknown or invalid runtime name: {}",
            host.runtime
        )));
    }
    if host.network_mode == "host" && !host.links.is_empty() {
        return Err(Error::invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ));
    }
    if !matches!(host.volume_driver.as_str(), "" | "local") && !config.volumes.is_empty() {
        return Err(Error::invalid(format!(
            "error looking up volume plugin {0}: plugin \"{0}\" not found",
            host.volume_driver
        )));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!(
            "invalid user namespace mode: {}",
            host.userns_mode
        )));
    }
    for (mode, text) in [
        ("network", &host.network_mode),
        ("IPC", &host.ipc_mode),
        ("PID", &host.pid_mode),
    ] {
        if text == "container:" || text == "container" && mode == "network" {
            return Err(Error::invalid(format!(
                "invalid {mode} mode: invalid container format container:<name|id>"
            )));
        }
    }
    let known = |mode: &str| mode.is_empty() || mode == "host" || mode.starts_with("container:");
    let ipc = host.ipc_mode.as_str();
    if !known(ipc) && !matches!(ipc, "private" | "shareable" | "none") {
        return Err(Error::invalid(format!("invalid IPC mode: {ipc}")));
    }
    if !known(&host.pid_mode) {
        return Err(Error::invalid(format!(
            "invalid PID mode: {}",
            host.pid_mode
        )));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!(
            "invalid UTS mode: {}",
            host.uts_mode
        )));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid(
            "conflicting options: hostname and the UTS mode",
        ));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(Error::invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        )));
    }
    if !matches!(host.isolation.to_lowercase().as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    if let Some((option, _)) = host.storage_opt.first_key_value() {
        return Err(Error::invalid(match option.as_str() {
            "size" => {
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                    .to_owned()
            }
            other => format!("unknown option {other}"),
        }));
    }
    for extra in &host.extra_hosts {
        let (_, address) = extra
            .split_once([':', '='])
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: {extra:?}")))?;
        let bare = address.trim_matches(['[', ']']);
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!(
                "invalid IP address in add-host: {address:?}"
            )));
        }
    }
    if host.annotations.contains_key("") {
        return Err(Error::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    host.sysctls.keys().try_for_each(|name| sysctl(name, host))
}

/// Capabilities and security options that there are.
fn security(host: &HostConfig) -> Result<()> {
    for (field, names) in [("CapAdd", &host.cap_add), ("CapDrop", &host.cap_drop)] {
        let known = |name: &&String| {
            let upper = name.to_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            short == "ALL" || capability::NAMES.contains(&short)
        };
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let upper = name.to_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            return Err(Error::invalid(format!(
                "invalid {field}: unknown capability: \"CAP_{short}\""
            )));
        }
    }
    super::security::parse(&host.security_opt).map(drop)
}

/// Only what a container has for itself: everything else would be set for the whole host, and stay.
fn sysctl(name: &str, host: &HostConfig) -> Result<()> {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let refuse = |words: &str| Err(Error::invalid(format!("sysctl \"{name}\" {words}")));
    if OF_IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return match host.ipc_mode.as_str() {
            "host" => refuse("is not allowed in the hosts ipc namespace"),
            _ => Ok(()),
        };
    }
    if name.starts_with("net.") {
        return match host.network_mode.as_str() {
            "host" => refuse("not allowed in host network namespace"),
            _ => Ok(()),
        };
    }
    match name {
        "kernel.domainname" if host.uts_mode == "host" => {
            refuse("is not allowed in the host UTS namespace")
        }
        "kernel.domainname" => Ok(()),
        "kernel.hostname" => {
            refuse("is not allowed as it conflicts with the OCI spec \"hostname\" field")
        }
        _ => refuse("is not in a separate kernel namespace"),
    }
}

/// Labels of `windlass.publish-from`: CIDRs that may reach published ports; `None` means everybody.
pub fn publish_from(labels: &BTreeMap<String, String>) -> Result<Option<Vec<String>>> {
    let Some(text) = labels.get("windlass.publish-from") else {
        return Ok(None);
    };
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (address, length) = part.split_once('/').unwrap_or((part, "32"));
        let valid = address.parse::<std::net::Ipv4Addr>().is_ok()
            && length.parse::<u8>().is_ok_and(|l| l <= 32);
        if !valid {
            return Err(Error::invalid(format!(
                "label windlass.publish-from: '{part}' is no IPv4 network (like 10.0.0.0/8)"
            )));
        }
        sources.push(format!("{address}/{length}"));
    }
    Ok(Some(sources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_thing() {
        let config = ContainerConfig::default();
        let ok = HostConfig::default();
        let restart = |name: &str, n| HostConfig {
            restart_policy: RestartPolicy {
                name: name.to_owned(),
                maximum_retry_count: n,
            },
            ..HostConfig::default()
        };
        assert!(check(&config, &ok).is_ok());
        for (host, words) in [
            (restart("sometimes", 0), "unknown policy 'sometimes'"),
            (restart("always", 3), "maximum retry count"),
            (
                HostConfig {
                    sysctls: [("vm.overcommit_memory".to_owned(), "1".to_owned())].into(),
                    ..HostConfig::default()
                },
                "is not in a separate kernel namespace",
            ),
            (
                HostConfig {
                    sysctls: [("net.core.somaxconn".to_owned(), "1".to_owned())].into(),
                    network_mode: "host".to_owned(),
                    ..HostConfig::default()
                },
                "not allowed in host network namespace",
            ),
            (
                HostConfig {
                    auto_remove: true,
                    ..restart("always", 0)
                },
                "AutoRemove",
            ),
            (
                HostConfig {
                    cap_add: vec!["nosuch".to_owned()],
                    ..ok.clone()
                },
                "invalid CapAdd: unknown capability: \"CAP_NOSUCH\"",
            ),
            (
                HostConfig {
                    ipc_mode: "x".to_owned(),
                    ..ok.clone()
                },
                "invalid IPC mode: x",
            ),
            (
                HostConfig {
                    port_bindings: [("80/icmp".to_owned(), vec![])].into(),
                    ..ok.clone()
                },
                "80/icmp",
            ),
            (
                HostConfig {
                    links: vec!["a:b".to_owned()],
                    network_mode: "host".to_owned(),
                    ..ok.clone()
                },
                "links",
            ),
        ] {
            let error = check(&config, &host).unwrap_err();
            assert!(error.message.contains(words), "{} / {words}", error.message);
        }
        let none = NetworkingConfig::default();
        let joined = HostConfig {
            network_mode: "container:x".to_owned(),
            ..ok.clone()
        };
        assert!(joined_network(&config, &joined, &none).is_ok());
        let exposing = ContainerConfig {
            exposed_ports: [("80/tcp".to_owned(), Default::default())].into(),
            ..ContainerConfig::default()
        };
        assert!(joined_network(&exposing, &ok, &none).is_ok());
        assert_eq!(
            joined_network(&exposing, &joined, &none)
                .unwrap_err()
                .message,
            "conflicting options: port exposing and the container type network mode"
        );
        let named = HostConfig {
            dns: vec!["1.1.1.1".to_owned()],
            ..joined.clone()
        };
        let error = joined_network(&config, &named, &none).unwrap_err();
        assert_eq!(
            error.message,
            "conflicting options: dns and the network mode"
        );
        let with_mac = ContainerConfig {
            mac_address: "02:00:00:00:00:01".to_owned(),
            ..ContainerConfig::default()
        };
        assert!(joined_network(&with_mac, &joined, &none).is_err());
        assert!(joined_network(&with_mac, &ok, &none).is_ok());
        let config = ContainerConfig {
            working_dir: "x".to_owned(),
            ..ContainerConfig::default()
        };
        assert!(check(&config, &ok).is_err());
    }

    #[test]
    fn ports_and_sources() {
        assert_eq!(parse_port("80").unwrap(), (80, "tcp".to_owned()));
        assert_eq!(parse_port("53/UDP").unwrap(), (53, "udp".to_owned()));
        assert!(parse_port("0/tcp").is_err() && parse_port("70000").is_err());
        assert_eq!(parse_range("10-12").unwrap(), (10, 12));
        let labels = [(
            "windlass.publish-from".to_owned(),
            "10.0.0.0/8, 192.168.1.1".to_owned(),
        )]
        .into();
        assert_eq!(
            publish_from(&labels).unwrap(),
            Some(vec!["10.0.0.0/8".to_owned(), "192.168.1.1/32".to_owned()])
        );
    }
}
