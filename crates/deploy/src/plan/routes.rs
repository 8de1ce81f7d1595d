//! Route tables: what each proxy shall route, and the wire form of it.

use windlass_ingress::{Balance, HealthCheck, Route, Upstream};

use super::action::{ReplicaRef, RouteIntent};

/// Names a replica in tables and in the proxy's log.
pub(crate) fn upstream_id(replica: &ReplicaRef) -> String {
    format!("{}.{}@{}", replica.service, replica.number, replica.machine)
}

/// The route as the proxy takes it.
pub(crate) fn wire_route(intent: &RouteIntent, upstreams: Vec<Upstream>) -> Route {
    let host = intent.host.clone().filter(|h| !h.starts_with("*."));
    Route {
        host: intent.host.clone(),
        path: intent.path.clone(),
        upstreams,
        health: intent.health_path.as_ref().map(|path| HealthCheck {
            path: path.clone(),
            host,
            ..HealthCheck::default()
        }),
        balance: Balance::default(),
    }
}
