//! One request: choose, send, answer; and what is tried again when that fails.
//!
//! A request is tried elsewhere when it cannot have had an effect: its connection was refused, or it was given back unsent, or it is
//! idempotent and has no body. Anything else gets a 502.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::backend::Active;
use super::body::{InBody, OutBody};
use super::headers;
use super::pool::Sender;
use super::state::{Pick, State};
use super::tunnel;
use super::{AccessLog, Config};
use crate::table::Upstream;

/// Upstreams that one request is offered to.
const MOST_UPSTREAMS: usize = 5;

/// Answers a request.
pub async fn handle(
    state: Arc<State>,
    config: Arc<Config>,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<InBody>, Infallible> {
    if config.access_log == AccessLog::Off {
        return Ok(forward(&state, &config, client, request).await);
    }
    let begun = std::time::Instant::now();
    let line = format!("{} {}", request.method(), request.uri());
    let response = forward(&state, &config, client, request).await;
    let milliseconds = begun.elapsed().as_millis() as u64;
    tracing::info!(client = %client, request = %line, status = response.status().as_u16(), milliseconds, "request");
    Ok(response)
}

async fn forward(
    state: &State,
    config: &Config,
    client: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<InBody> {
    if request.method() == Method::CONNECT {
        return say(
            StatusCode::METHOD_NOT_ALLOWED,
            "this is not a forward proxy\n",
        );
    }
    let upgrading = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let authority =
        match headers::refuse_ambiguous(&parts).and_then(|()| headers::authority(&parts)) {
            Ok(authority) => authority,
            Err(complaint) => {
                return say(
                    StatusCode::BAD_REQUEST,
                    format!("bad request: {complaint}\n"),
                );
            }
        };
    headers::to_upstream(&mut parts, client, &authority, config.forwarded);
    let path = parts.uri.path().to_owned();
    let mut exchange = Exchange::new(parts, OutBody::new(body));
    let mut tried: Vec<Upstream> = Vec::new();
    loop {
        let active = match state.pick(&authority, &path, &tried) {
            Pick::Upstream(active) => active,
            Pick::NoRoute => {
                return say(StatusCode::NOT_FOUND, "no route for this host and path\n");
            }
            Pick::NoUpstream if tried.is_empty() => return unavailable("no healthy upstream\n"),
            Pick::NoUpstream => return unavailable("no upstream accepts the request\n"),
        };
        tried.push(active.backend().upstream.clone());
        match exchange.send(state, &active).await {
            Ok(response) => return answer(response, active, upgrading),
            Err(Failure::Final) => {
                return say(
                    StatusCode::BAD_GATEWAY,
                    "the upstream broke off without an answer\n",
                );
            }
            Err(Failure::Elsewhere) if tried.len() >= MOST_UPSTREAMS => {
                return unavailable("no upstream accepts the request\n");
            }
            Err(Failure::Elsewhere) => {}
        }
    }
}

/// What the failure of one upstream means.
enum Failure {
    /// The request had no effect there.
    Elsewhere,
    /// It may have had.
    Final,
}

/// A request that has not been answered yet.
struct Exchange {
    /// Unsent, or given back unsent.
    request: Option<Request<OutBody>>,
    /// To send again what may be sent twice.
    copy: Option<Parts>,
}

impl Exchange {
    fn new(parts: Parts, body: OutBody) -> Self {
        let repeatable = matches!(body, OutBody::Empty) && headers::is_idempotent(&parts.method);
        let copy = repeatable.then(|| parts.clone());
        Self {
            request: Some(Request::from_parts(parts, body)),
            copy,
        }
    }

    async fn send(
        &mut self,
        state: &State,
        active: &Active,
    ) -> Result<Response<Incoming>, Failure> {
        let backend = active.backend();
        let address = backend.address();
        // A kept connection may have been closed by the other side just now; that says nothing against the upstream.
        while let Some(sender) = state.pool.take(address) {
            match self.send_on(sender, state, address).await {
                Ok(response) => {
                    backend.answered();
                    return Ok(response);
                }
                Err(e) => tracing::debug!(%address, error = %e, "a kept connection was gone"),
            }
            if !self.renew() {
                return Err(Failure::Final);
            }
        }
        let sender = match state.pool.connect(address).await {
            Ok(sender) => sender,
            Err(e) => {
                tracing::warn!(%address, id = %backend.upstream.id, error = %e, "upstream refused a connection");
                backend.refused();
                return Err(Failure::Elsewhere);
            }
        };
        match self.send_on(sender, state, address).await {
            Ok(response) => {
                backend.answered();
                Ok(response)
            }
            Err(e) => {
                tracing::warn!(%address, id = %backend.upstream.id, error = %e, "upstream broke off");
                backend.broke();
                Err(if self.renew() {
                    Failure::Elsewhere
                } else {
                    Failure::Final
                })
            }
        }
    }

    async fn send_on(
        &mut self,
        mut sender: Sender,
        state: &State,
        address: SocketAddr,
    ) -> Result<Response<Incoming>, String> {
        // Not so: `renew` is asked after each failure. An error rather than a panic all the same.
        let Some(request) = self.request.take() else {
            return Err("the request is spent".to_owned());
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                state.pool.give_back(address, sender);
                Ok(response)
            }
            Err(mut failed) => {
                self.request = failed.take_message();
                Err(failed.into_error().to_string())
            }
        }
    }

    /// Whether there is a request to send again.
    fn renew(&mut self) -> bool {
        if self.request.is_none() {
            self.request = self
                .copy
                .clone()
                .map(|parts| Request::from_parts(parts, OutBody::Empty));
        }
        self.request.is_some()
    }
}

fn answer(
    mut response: Response<Incoming>,
    active: Active,
    upgrading: Option<hyper::upgrade::OnUpgrade>,
) -> Response<InBody> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrading else {
            return say(
                StatusCode::BAD_GATEWAY,
                "the upstream changed the protocol unasked\n",
            );
        };
        let upstream = hyper::upgrade::on(&mut response);
        let upgrade = headers::upgrade(response.headers());
        headers::to_client(response.headers_mut());
        if let Some(protocol) = upgrade {
            response.headers_mut().insert(
                http::header::CONNECTION,
                HeaderValue::from_static("upgrade"),
            );
            response
                .headers_mut()
                .insert(http::header::UPGRADE, protocol);
        }
        tunnel::open(client, upstream, active);
        return response.map(|_| InBody::text(""));
    }
    headers::to_client(response.headers_mut());
    response.map(|body| InBody::Stream {
        body,
        _active: active,
    })
}

fn unavailable(text: &'static str) -> Response<InBody> {
    let mut response = say(StatusCode::SERVICE_UNAVAILABLE, text);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn say(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<InBody> {
    let mut response = Response::new(InBody::text(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
