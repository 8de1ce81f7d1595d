//! `/networks`.

use http::StatusCode;
use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    CreateNetwork, CreatedNetwork, NetworkContainer, NetworkInspect, PruneReport,
};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};

const BUILT_IN: [&str; 3] = ["bridge", "host", "none"];

/// `GET /networks`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let mut networks = engine.networks.list();
    networks.retain(|n| passes(engine, n, &filters));
    respond::json(&networks)
}

fn passes(engine: &Engine, network: &NetworkInspect, filters: &Filters) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(key);
        wanted.is_empty() || wanted.iter().any(|w| test(w))
    };
    let built_in = BUILT_IN.contains(&network.name.as_str());
    any("name", &|w| network.name.contains(w))
        && any("id", &|w| network.id.starts_with(w))
        && any("driver", &|w| network.driver == w)
        && any("scope", &|w| network.scope == w)
        && any("type", &|w| (w == "builtin") == built_in)
        && any("dangling", &|w| {
            (!built_in && users(engine, network).is_empty()) == matches!(w, "1" | "true")
        })
        && filters.match_labels(&network.labels)
}

/// Running containers in it.
fn users(engine: &Engine, network: &NetworkInspect) -> Vec<(String, NetworkContainer)> {
    let containers = engine.containers.all();
    let running = containers
        .iter()
        .map(|c| c.snapshot())
        .filter(|r| r.state.status.has_process());
    let inside = running.filter(|r| {
        r.host_config.network_mode == network.name || r.state.endpoint.network_id == network.id
    });
    inside
        .map(|r| {
            let endpoint = &r.state.endpoint;
            let ipv4 = if endpoint.ip_address.is_empty() {
                String::new()
            } else {
                format!("{}/{}", endpoint.ip_address, endpoint.ip_prefix_len)
            };
            let shown = NetworkContainer {
                name: r.name.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac_address: endpoint.mac_address.clone(),
                ipv4_address: ipv4,
                ipv6_address: String::new(),
            };
            (r.id.clone(), shown)
        })
        .collect()
}

/// `GET /networks/{name}`.
pub fn inspect(engine: &Engine, name: &str) -> Result<Reply> {
    let mut network = engine.networks.find(name)?;
    network.containers = users(engine, &network).into_iter().collect();
    respond::json(&network)
}

/// `POST /networks/create`.
pub async fn create(engine: &Engine, req: &mut Req) -> Result<Reply> {
    let wanted: CreateNetwork = req.json().await?;
    if !matches!(wanted.driver.as_str(), "" | "default" | "bridge") {
        return Err(Error::not_found(format!(
            "could not find plugin {} in v1 plugin registry: plugin not found",
            wanted.driver
        )));
    }
    let name = wanted.name.clone();
    let id = engine.networks.create(wanted).await?;
    tell(engine, "create", &id, &name);
    respond::json_status(
        StatusCode::CREATED,
        &CreatedNetwork {
            id,
            warning: String::new(),
        },
    )
}

fn tell(engine: &Engine, action: &str, id: &str, name: &str) {
    let attributes = [
        ("name".to_owned(), name.to_owned()),
        ("type".to_owned(), "bridge".to_owned()),
    ]
    .into();
    engine.events.publish("network", action, id, attributes);
}

/// `DELETE /networks/{name}`.
pub async fn remove(engine: &Engine, name: &str) -> Result<Reply> {
    let network = engine.networks.find(name)?;
    if BUILT_IN.contains(&network.name.as_str()) {
        return Err(Error::new(
            crate::container::error::Kind::Forbidden,
            format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            ),
        ));
    }
    let inside = users(engine, &network);
    if !inside.is_empty() {
        return Err(Error::new(
            crate::container::error::Kind::Forbidden,
            format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name, inside[0].1.name
            ),
        ));
    }
    engine.networks.remove(&network.id).await?;
    tell(engine, "destroy", &network.id, &network.name);
    respond::no_content()
}

/// `POST /networks/prune`.
pub async fn prune(engine: &Engine, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let mut deleted = Vec::new();
    let used: Vec<String> = engine
        .containers
        .all()
        .iter()
        .map(|c| c.read(|r| r.host_config.network_mode.clone()))
        .collect();
    for network in engine.networks.list() {
        // A container may name its network by the beginning of the id.
        let uses = |mode: &String| {
            *mode == network.name || !mode.is_empty() && network.id.starts_with(mode)
        };
        let unused = !used.iter().any(uses);
        let wanted = unused
            && !BUILT_IN.contains(&network.name.as_str())
            && filters.match_labels(&network.labels);
        if wanted && engine.networks.remove(&network.id).await.is_ok() {
            deleted.push(network.name);
        }
    }
    respond::json(&PruneReport {
        networks_deleted: Some(deleted),
        ..PruneReport::default()
    })
}

/// `POST /networks/{name}/connect`.
pub async fn connect(_: &Engine, _: &mut Req, _: &str) -> Result<Reply> {
    Err(Error::not_implemented(
        "windlassd connects a container to its network when it is created: give --network to create",
    ))
}

/// `POST /networks/{name}/disconnect`.
pub async fn disconnect(_: &Engine, _: &mut Req, _: &str) -> Result<Reply> {
    Err(Error::not_implemented(
        "windlassd does not take a container out of its network: remove the container",
    ))
}
