//! `ports` and `expose`.

use super::Reader;
use crate::field::Field;
use crate::keys;
use crate::model::Port;
use crate::node::Value;

impl Reader<'_> {
    pub(super) fn ports(&mut self, field: &Field<'_>) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for item in field.items(self.log) {
            let found = match &item.node.value {
                Value::Map(_) => self.long_port(&item).into_iter().collect(),
                _ => self.short_ports(&item),
            };
            for port in found {
                // The same again, perhaps in the other form, is no second port.
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        ports
    }

    fn short_ports(&mut self, item: &Field<'_>) -> Vec<Port> {
        let Some(text) = item.text(self.log) else {
            return Vec::new();
        };
        parse_short(&text).unwrap_or_else(|problem| {
            let hint = "write `container`, `host:container` or `address:host:container`, with `/udp` where it is not TCP";
            item.reject_with_hint(&problem, hint, self.log);
            Vec::new()
        })
    }

    fn long_port(&mut self, item: &Field<'_>) -> Option<Port> {
        let fields = item.fields(&keys::PORT, self.log)?;
        let Some(target) = fields.get("target") else {
            item.reject("needs `target`, the port in the container", self.log);
            return None;
        };
        let target = self.port_number(&target)?;
        let published = match fields.get("published") {
            Some(published) => {
                let text = published.text(self.log)?;
                if text.contains('-') {
                    let problem = "is a range to choose from, which windlass does not have yet";
                    published.reject(problem, self.log);
                    return None;
                }
                Some(self.port_number(&published)?)
            }
            None => None,
        };
        let host_ip = fields.get("host_ip").and_then(|ip| ip.string(self.log));
        let protocols = [("tcp", "tcp"), ("udp", "udp")];
        let protocol = fields
            .get("protocol")
            .map(|p| p.choice(&protocols, self.log));
        Some(Port {
            target,
            published,
            host_ip,
            protocol: protocol.unwrap_or(Some("tcp"))?.to_owned(),
        })
    }

    pub(super) fn port_number(&mut self, field: &Field<'_>) -> Option<u16> {
        let number = field.number::<u16>("a port from 1 to 65535", self.log)?;
        if number == 0 {
            field.reject("must be a port from 1 to 65535, but is 0", self.log);
            return None;
        }
        Some(number)
    }

    /// `80`, `80/udp`, `8000-8010`.
    pub(super) fn expose(&mut self, field: &Field<'_>) -> Vec<String> {
        let mut exposed = Vec::new();
        for item in field.items(self.log) {
            let Some(text) = item.text(self.log) else {
                continue;
            };
            match parse_short(&text) {
                Ok(ports) if !text.contains(':') => {
                    exposed.extend(
                        ports
                            .iter()
                            .map(|port| format!("{}/{}", port.target, port.protocol)),
                    );
                }
                Ok(_) => item.reject(
                    "names a port of the host; that is what `ports` is for",
                    self.log,
                ),
                Err(problem) => item.reject(&problem, self.log),
            }
        }
        exposed
    }
}

/// `[[address:]host:]container[/protocol]`, each port perhaps a range.
fn parse_short(text: &str) -> Result<Vec<Port>, String> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(format!(
            "has the protocol `{protocol}`; windlass has `tcp` and `udp`"
        ));
    }
    let (rest, container) = match rest.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, rest),
    };
    let (address, host) = match rest.map(|rest| rest.rsplit_once(':')) {
        Some(Some((address, host))) => (Some(address), Some(host)),
        Some(None) => (None, rest),
        None => (None, None),
    };
    let host_ip = address.map(parse_address).transpose()?;
    let targets = parse_range(container)?;
    let hosts = match host.filter(|host| !host.is_empty()) {
        Some(host) => Some(parse_range(host)?),
        None => None,
    };
    pair(&targets, hosts.as_deref(), host_ip, &protocol)
}

fn pair(
    targets: &[u16],
    hosts: Option<&[u16]>,
    host_ip: Option<String>,
    protocol: &str,
) -> Result<Vec<Port>, String> {
    match hosts {
        Some(hosts) if targets.len() == 1 && hosts.len() > 1 => {
            return Err("is a range to choose from, which windlass does not have yet".into());
        }
        Some(hosts) if hosts.len() != targets.len() => {
            return Err(format!(
                "has {} ports of the host for {} of the container",
                hosts.len(),
                targets.len()
            ));
        }
        _ => {}
    }
    let port = |(at, target): (usize, &u16)| Port {
        target: *target,
        published: hosts.and_then(|hosts| hosts.get(at).copied()),
        host_ip: host_ip.clone(),
        protocol: protocol.to_owned(),
    };
    Ok(targets.iter().enumerate().map(port).collect())
}

fn parse_address(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let bare = bare.unwrap_or(text);
    match bare.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("has `{text}` where an IP address belongs")),
    }
}

fn parse_range(text: &str) -> Result<Vec<u16>, String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(number) if number > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(format!("has `{text}` where a port from 1 to 65535 belongs")),
    };
    let Some((first, last)) = text.split_once('-') else {
        return Ok(vec![number(text)?]);
    };
    let (first, last) = (number(first)?, number(last)?);
    match first <= last {
        true => Ok((first..=last).collect()),
        false => Err(format!(
            "has the range `{text}`, which ends before it begins"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let show = |port: &Port| {
            let ip = port.host_ip.as_deref().unwrap_or("*");
            let published = port.published.map_or("?".into(), |p| p.to_string());
            format!("{ip} {published}:{}/{}", port.target, port.protocol)
        };
        match parse_short(text) {
            Ok(ports) => ports.iter().map(show).collect::<Vec<_>>().join(", "),
            Err(problem) => format!("! {problem}"),
        }
    }

    #[test]
    fn short_ports() {
        for (text, expected) in [
            ("80", "* ?:80/tcp"),
            ("8080:80", "* 8080:80/tcp"),
            ("6060:6060/udp", "* 6060:6060/udp"),
            ("3000-3001", "* ?:3000/tcp, * ?:3001/tcp"),
            ("9090-9091:8080-8081", "* 9090:8080/tcp, * 9091:8081/tcp"),
            ("127.0.0.1:8001:8001", "127.0.0.1 8001:8001/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ?:80/tcp"),
            (
                "127.0.0.1:50-51:60-61/udp",
                "127.0.0.1 50:60/udp, 127.0.0.1 51:61/udp",
            ),
            ("[::1]:80:80", "::1 80:80/tcp"),
            ("::1:80:80", "::1 80:80/tcp"),
            (
                "8000-9000:80",
                "! is a range to choose from, which windlass does not have yet",
            ),
            (
                "80-81:1-3",
                "! has 2 ports of the host for 3 of the container",
            ),
            (
                "81-80",
                "! has the range `81-80`, which ends before it begins",
            ),
            ("0", "! has `0` where a port from 1 to 65535 belongs"),
            (
                "70000:80",
                "! has `70000` where a port from 1 to 65535 belongs",
            ),
            ("+80", "! has `+80` where a port from 1 to 65535 belongs"),
            ("", "! has `` where a port from 1 to 65535 belongs"),
            (
                "80/sctp",
                "! has the protocol `sctp`; windlass has `tcp` and `udp`",
            ),
            (
                "localhost:80:80",
                "! has `localhost` where an IP address belongs",
            ),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }
}
