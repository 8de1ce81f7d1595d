//! The client of a proxy's admin socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windlass_engine_api::Dial;

use crate::table::{RouteTable, Status, TableError};

/// The largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;

/// Speaks with one proxy. Cheap to clone; each call opens a stream of its own.
#[derive(Clone)]
pub struct AdminClient {
    dial: Arc<dyn Dial>,
    timeout: Duration,
}

/// Why an admin call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The table is not valid; nothing was sent.
    #[error("the route table is not valid")]
    Table(#[source] TableError),
    /// Nobody answers on the socket.
    #[error("cannot reach the ingress")]
    Dial(#[source] std::io::Error),
    /// The stream broke.
    #[error("the ingress broke off while answering `{request}`")]
    Broken {
        /// Method and path.
        request: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("the ingress did not answer `{request}` within {} s", timeout.as_secs())]
    Timeout {
        /// Method and path.
        request: String,
        /// How long it had.
        timeout: Duration,
    },
    /// A newer table, or another one of the same generation, is in force. Observe and plan again.
    #[error("route table {offered} is stale: the ingress already has {in_force}")]
    Stale {
        /// What was put.
        offered: u64,
        /// What the proxy has.
        in_force: u64,
    },
    /// Any other refusal.
    #[error("the ingress refused `{request}`: {status}: {message}")]
    Refused {
        /// Method and path.
        request: String,
        /// Its status code.
        status: u16,
        /// Its words.
        message: String,
    },
    /// An answer that is not of this protocol.
    #[error("the ingress answered `{request}` with something else than its status")]
    Answer {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The answer to `PUT /routes`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InForce {
    pub generation: u64,
}

/// The answer to whatever is refused.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl AdminClient {
    /// A client whose calls take at most 30 seconds each.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self {
            dial,
            timeout: Duration::from_secs(30),
        }
    }

    /// With another bound for each call.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Brings a table in force and returns its generation. When this returns, no new request can use a former table.
    /// Putting the table that is already in force again is success.
    pub async fn put_routes(&self, table: &RouteTable) -> Result<u64, AdminError> {
        table.validate().map_err(AdminError::Table)?;
        let body = serde_json::to_vec(table).map_err(|source| AdminError::Answer {
            request: "PUT /routes".to_owned(),
            source,
        })?;
        match self.call::<InForce>(Method::PUT, "/routes", body).await {
            Err(AdminError::Stale { in_force, .. }) => Err(AdminError::Stale {
                offered: table.generation,
                in_force,
            }),
            answer => answer.map(|a| a.generation),
        }
    }

    /// The table in force, as it was put.
    pub async fn routes(&self) -> Result<RouteTable, AdminError> {
        self.call(Method::GET, "/routes", Vec::new()).await
    }

    /// Generation, health and requests in progress.
    pub async fn status(&self) -> Result<Status, AdminError> {
        self.call(Method::GET, "/status", Vec::new()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, AdminError> {
        let request = format!("{method} {path}");
        let exchange = self.exchange(&request, method, path, body);
        let Ok(answer) = tokio::time::timeout(self.timeout, exchange).await else {
            return Err(AdminError::Timeout {
                request,
                timeout: self.timeout,
            });
        };
        let (status, body) = answer?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|source| AdminError::Answer { request, source });
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).unwrap_or_else(|_| Refusal {
            message: String::from_utf8_lossy(&body).into_owned(),
            generation: None,
        });
        Err(match (status, refusal.generation) {
            (StatusCode::CONFLICT, Some(in_force)) => AdminError::Stale {
                offered: 0,
                in_force,
            },
            _ => AdminError::Refused {
                request,
                status: status.as_u16(),
                message: refusal.message,
            },
        })
    }

    async fn exchange(
        &self,
        name: &str,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| AdminError::Broken {
            request: name.to_owned(),
            source,
        };
        let stream = self.dial.dial().await.map_err(AdminError::Dial)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(e.into()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "ingress")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| broken(e.into()))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| broken(e.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES)
                .collect()
                .await
                .map_err(broken)?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here and dropped with the call: nothing outlives it.
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut exchange => answer,
            end = &mut connection => match end {
                // What has arrived before the end is still in the channel.
                Ok(()) => exchange.await,
                Err(e) => Err(broken(e.into())),
            },
        }
    }
}
