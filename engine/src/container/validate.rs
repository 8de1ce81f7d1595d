//! Whether a wanted container makes sense, in Docker's words: pure.

use std::collections::BTreeMap;

use windlass_engine_api::types::{ContainerConfig, HealthConfig, HostConfig, PortBinding};

use super::error::{Error, Result};

const SMALLEST_MEMORY: i64 = 6 * 1024 * 1024;

/// Checks everything that can be checked without looking at the host; the answer is hints for the user.
pub fn check(config: &ContainerConfig, host: &HostConfig, cpus: usize) -> Result<Vec<String>> {
    process(config)?;
    health(config.healthcheck.as_ref())?;
    restart(host)?;
    let warnings = resources(host, cpus)?;
    ports(host)?;
    isolation(config, host)?;
    Ok(warnings)
}

fn process(config: &ContainerConfig) -> Result<()> {
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if !config.hostname.is_empty() && !is_hostname(&config.hostname) {
        return Err(Error::invalid(format!(
            "invalid hostname format: {}",
            config.hostname
        )));
    }
    if !config.stop_signal.is_empty() && super::signal::parse(&config.stop_signal).is_none() {
        return Err(Error::invalid(format!(
            "Invalid signal: {}",
            config.stop_signal
        )));
    }
    Ok(())
}

fn is_hostname(name: &str) -> bool {
    name.len() <= 63
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
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
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "Unknown healthcheck type '{other}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
        ))),
    }
}

fn restart(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ))
        }
        "on-failure" if policy.maximum_retry_count < 0 => Err(Error::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" => Ok(()),
        "always" | "unless-stopped" | "on-failure" if host.auto_remove => Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        )),
        "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

fn resources(host: &HostConfig, cpus: usize) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if host.memory != 0 && host.memory < SMALLEST_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(Error::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_reservation > 0 && host.memory > 0 && host.memory < host.memory_reservation {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if let Some(value) = host.memory_swappiness.filter(|v| !(-1..=100).contains(v)) {
        return Err(Error::invalid(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )));
    }
    if host.nano_cpus < 0 || host.nano_cpus > cpus as i64 * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return Err(Error::invalid(
            "kernel does not support CPU real-time scheduler",
        ));
    }
    if host.blkio_weight != 0 {
        warnings.push("windlassd does not set the block I/O weight. Weight discarded.".to_owned());
    }
    Ok(warnings)
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
    if number == 0 || !matches!(protocol.as_str(), "tcp" | "udp") {
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
    if !host.device_requests.is_empty() {
        return Err(Error::invalid(
            "could not select device driver: windlassd has no device drivers (GPUs)",
        ));
    }
    if !host.links.is_empty() {
        return Err(Error::invalid(
            "links are not supported by windlassd: use a network, where containers find each other by name",
        ));
    }
    if !matches!(host.volume_driver.as_str(), "" | "local") {
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
    if host.network_mode.starts_with("container:") && !config.hostname.is_empty() {
        return Err(Error::invalid(
            "conflicting options: hostname and the network mode",
        ));
    }
    if host.network_mode.starts_with("container:") && !host.port_bindings.is_empty() {
        return Err(Error::invalid(
            "conflicting options: port publishing and the container type network mode",
        ));
    }
    host.sysctls.keys().try_for_each(|name| sysctl(name, host))
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
    let of_ipc = OF_IPC.contains(&name) || name.starts_with("fs.mqueue.");
    let of_network = name.starts_with("net.");
    if of_ipc && host.ipc_mode != "host" || of_network && host.network_mode != "host" {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "sysctl \"{name}\" is not in a namespace of the container's own: it would be set for the whole host"
    )))
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
    use windlass_engine_api::types::RestartPolicy;

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
        assert!(check(&config, &ok, 2).is_ok());
        for (host, words) in [
            (restart("sometimes", 0), "unknown policy 'sometimes'"),
            (restart("always", 3), "maximum retry count"),
            (
                HostConfig {
                    sysctls: [("vm.overcommit_memory".to_owned(), "1".to_owned())].into(),
                    ..HostConfig::default()
                },
                "for the whole host",
            ),
            (
                HostConfig {
                    sysctls: [("net.core.somaxconn".to_owned(), "1".to_owned())].into(),
                    network_mode: "host".to_owned(),
                    ..HostConfig::default()
                },
                "for the whole host",
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
                    memory: 1024,
                    ..ok.clone()
                },
                "6MB",
            ),
            (
                HostConfig {
                    nano_cpus: 3_000_000_000,
                    ..ok.clone()
                },
                "range of CPUs is from 0.01 to 2.00",
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
                    ..ok.clone()
                },
                "links",
            ),
        ] {
            let error = check(&config, &host, 2).unwrap_err();
            assert!(error.message.contains(words), "{} / {words}", error.message);
        }
        let config = ContainerConfig {
            working_dir: "x".to_owned(),
            ..ContainerConfig::default()
        };
        assert!(check(&config, &ok, 2).is_err());
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
