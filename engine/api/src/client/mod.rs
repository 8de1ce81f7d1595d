//! The client: one method an endpoint, one connection a request.
//!
//! Paths carry no version, so that every engine answers in its own; deliberately absent: retries and time limits, which are the caller's.

mod containers;
mod exec;
mod images;
mod objects;
mod stream;
mod transport;

use std::sync::Arc;

pub use containers::{ListContainers, LogOptions, RemoveContainer, WaitCondition};
pub use exec::{AttachedStream, ExecOptions};
pub use images::BuildOptions;
pub use stream::{EventStream, LogStream, ProgressStream};
pub use transport::RequestBody;

use crate::dial::Dial;
use crate::error::Result;
use crate::types::{Info, Ping, Version};

/// An engine's API, reached through a [`Dial`].
#[derive(Clone)]
pub struct Client {
    dial: Arc<dyn Dial>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Nothing is connected before the first call.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }

    /// Whether an engine answers, and which.
    pub async fn ping(&self) -> Result<Ping> {
        let response = self.request("GET", "/_ping", RequestBody::Empty).await?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let ping = Ping {
            api_version: header("api-version"),
            server: header("server"),
        };
        transport::collect(response).await?;
        Ok(ping)
    }

    /// The engine's version.
    pub async fn version(&self) -> Result<Version> {
        self.get_json("/version").await
    }

    /// The engine and its host.
    pub async fn info(&self) -> Result<Info> {
        self.get_json("/info").await
    }
}
