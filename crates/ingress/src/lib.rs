//! The ingress: which request goes to which replica.
//!
//! Always here: the route table ([`RouteTable`]) and the client of a proxy's admin socket ([`AdminClient`]).
//! With the feature `proxy`: the proxy itself ([`proxy`]), which the binary `windlass-ingress` runs.
//!
//! Deliberately absent: who decides the table (`windlass-deploy`), and TLS.

mod admin;
mod table;

#[cfg(feature = "proxy")]
pub mod proxy;

pub use admin::{AdminClient, AdminError};
pub use table::{
    Balance, HealthCheck, Route, RouteTable, Status, TableError, Upstream, UpstreamStatus,
};
