//! `/networks`.

use std::collections::BTreeMap;

use http::StatusCode;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    ConnectNetwork, CreateNetwork, CreatedNetwork, NetworkContainer, NetworkInspect, PruneReport,
};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Kind, Result};
use crate::container::{Engine, clock};

const BUILT_IN: [&str; 3] = ["bridge", "host", "none"];
const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

fn is_built_in(network: &NetworkInspect) -> bool {
    BUILT_IN.contains(&network.name.as_str())
}

fn check(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|k| !known.contains(k)) {
        Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// `GET /networks`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    check(&filters, &FILTERS)?;
    if let Some(kind) = filters
        .get("type")
        .iter()
        .find(|k| !matches!(k.as_str(), "builtin" | "custom"))
    {
        return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
    }
    let truth = |text: &String| match text.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
    };
    let dangling: Vec<bool> = filters
        .get("dangling")
        .iter()
        .map(truth)
        .collect::<Result<_>>()?;
    if dangling.len() > 1 {
        return Err(Error::invalid(
            "got more than one value for filter key \"dangling\"",
        ));
    }
    let mut networks = engine.networks.list();
    networks.retain(|n| passes(n, &filters));
    if let Some(wanted) = dangling.first() {
        networks.retain(|n| *wanted == (!is_built_in(n) && users(engine, n).is_empty()));
    }
    respond::json(&networks)
}

fn passes(network: &NetworkInspect, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    any("name", &|w| matches(&network.name, w))
        && any("id", &|w| matches(&network.id, w))
        && any("driver", &|w| network.driver == w)
        && any("scope", &|w| network.scope == w)
        && any("type", &|w| (w == "builtin") == is_built_in(network))
        && filters.match_labels(&network.labels)
}

/// Docker takes a regular expression; here `^` and `$` anchor, the rest is literal.
fn matches(text: &str, pattern: &str) -> bool {
    let (start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (end, part) = match rest.strip_suffix('$') {
        Some(part) => (true, part),
        None => (false, rest),
    };
    match (start, end) {
        (true, true) => text == part,
        (true, false) => text.starts_with(part),
        (false, true) => text.ends_with(part),
        (false, false) => text.contains(part),
    }
}

/// Running containers in it.
fn users(engine: &Engine, network: &NetworkInspect) -> BTreeMap<String, NetworkContainer> {
    let containers = engine.containers.all();
    let running = containers
        .iter()
        .map(|c| c.snapshot())
        .filter(|r| r.state.status.has_process());
    let inside = running.filter_map(|r| {
        let endpoint = match r.state.endpoints.get(&network.name) {
            Some(endpoint) if endpoint.network_id == network.id => endpoint.clone(),
            _ if matches!(network.name.as_str(), "host" | "none")
                && r.host_config.network_mode == network.name =>
            {
                Default::default()
            }
            _ => return None,
        };
        let with_length = |address: &str, length: u8| match address {
            "" => String::new(),
            address => format!("{address}/{length}"),
        };
        let shown = NetworkContainer {
            name: r.name.clone(),
            ipv4_address: with_length(&endpoint.ip_address, endpoint.ip_prefix_len),
            ipv6_address: with_length(
                &endpoint.global_ipv6_address,
                endpoint.global_ipv6_prefix_len,
            ),
            endpoint_id: endpoint.endpoint_id,
            mac_address: endpoint.mac_address,
        };
        Some((r.id.clone(), shown))
    });
    inside.collect()
}

/// `GET /networks/{name}`.
pub fn inspect(engine: &Engine, req: &Req, name: &str) -> Result<Reply> {
    let mut network = engine.networks.find(name)?;
    if req.query("scope").is_some_and(|s| s != network.scope) {
        return Err(Error::not_found(format!("network {name} not found")));
    }
    network.containers = users(engine, &network);
    respond::json(&network)
}

/// `POST /networks/create`.
pub async fn create(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let wanted: CreateNetwork = req.required_json().await?;
    if !matches!(wanted.scope.as_str(), "" | "local") {
        return Err(Error::new(
            Kind::Unavailable,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        ));
    }
    let id = engine.networks.create(wanted).await?;
    tell(engine, "create", &engine.networks.find(&id)?);
    respond::json_status(
        StatusCode::CREATED,
        &CreatedNetwork {
            id,
            warning: String::new(),
        },
    )
}

fn tell(engine: &Engine, action: &str, network: &NetworkInspect) {
    let attributes = [
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.clone()),
    ];
    engine
        .events
        .publish("network", action, &network.id, attributes.into());
}

/// `DELETE /networks/{name}`.
pub async fn remove(engine: &Engine, name: &str) -> Result<Reply> {
    let network = engine.networks.find(name)?;
    if is_built_in(&network) {
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            ),
        ));
    }
    let inside = users(engine, &network);
    if !inside.is_empty() {
        let inside = inside.iter();
        let shown: Vec<String> = inside
            .map(|(id, c)| format!("name:\"{}\" id:\"{}\"", c.name, &id[..12]))
            .collect();
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                shown.join(", ")
            ),
        ));
    }
    engine.networks.remove(&network.id).await?;
    tell(engine, "destroy", &network);
    respond::no_content()
}

/// `POST /networks/prune`: as in Docker, who does not run is in nobody's way.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    check(&filters, &PRUNE_FILTERS)?;
    let until = match filters.get("until") {
        [] => None,
        [text] => Some(
            clock::parse_until(text, time::OffsetDateTime::now_utc()).ok_or_else(|| {
                Error::invalid(format!(
                    "failed to parse value as time or duration: \"{text}\""
                ))
            })?,
        ),
        _ => return Err(Error::invalid("more than one until filter specified")),
    };
    let mut deleted = Vec::new();
    for network in engine.networks.list() {
        let young = until.is_some_and(|until| {
            clock::parse(&network.created).is_none_or(|created| created > until)
        });
        let wanted = !young
            && !is_built_in(&network)
            && filters.match_labels(&network.labels)
            && users(engine, &network).is_empty();
        if wanted && engine.networks.remove(&network.id).await.is_ok() {
            tell(engine, "destroy", &network);
            deleted.push(network.name);
        }
    }
    let reclaimed = [("reclaimed".to_owned(), "0".to_owned())];
    engine
        .events
        .publish("network", "prune", "", reclaimed.into());
    respond::json(&PruneReport {
        networks_deleted: Some(deleted),
        ..PruneReport::default()
    })
}

/// `POST /networks/{name}/connect`.
pub async fn connect(engine: &Engine, req: &mut Req, name: &str) -> Result<Reply> {
    let wanted: ConnectNetwork = req.required_json().await?;
    let settings = wanted.endpoint_config.unwrap_or_default();
    engine
        .connect_network(name, &wanted.container, settings)
        .await?;
    Ok(respond::empty(StatusCode::OK))
}

/// `POST /networks/{name}/disconnect`.
pub async fn disconnect(engine: &Engine, req: &mut Req, name: &str) -> Result<Reply> {
    let wanted: ConnectNetwork = req.required_json().await?;
    engine.disconnect_network(name, &wanted.container).await?;
    Ok(respond::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_docker() {
        for (text, pattern, wanted) in [
            ("back", "ac", true),
            ("back", "^ac", false),
            ("back", "^back$", true),
            ("back", "ck$", true),
            ("back", "^b$", false),
        ] {
            assert_eq!(matches(text, pattern), wanted, "{text} {pattern}");
        }
    }
}
