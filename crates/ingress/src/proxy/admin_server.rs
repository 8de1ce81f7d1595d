//! The admin socket: `PUT /routes`, `GET /routes`, `GET /status`. Who may connect is decided by the socket's file mode.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};

use super::state::{PutError, State};
use crate::admin::{InForce, Refusal};
use crate::table::RouteTable;

const LARGEST_TABLE_BYTES: usize = 32 << 20;

/// Takes the socket's path, also from a process that died; never from one that lives.
pub async fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another proxy answers there",
        ));
    }
    match fs_err::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the task is aborted.
pub async fn run(listener: UnixListener, state: Arc<State>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept on the admin socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(e) = served {
                tracing::debug!(error = %e, "an admin connection broke");
            }
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    Ok(match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/routes") => put(&state, body).await,
        (&Method::GET, "/routes") => json(StatusCode::OK, &state.table()),
        (&Method::GET, "/status") => json(StatusCode::OK, &state.status()),
        (method, path) => refuse(
            StatusCode::NOT_FOUND,
            format!("no such call: {method} {path}"),
            None,
        ),
    })
}

async fn put(state: &State, body: Incoming) -> Response<Full<Bytes>> {
    let body = match Limited::new(body, LARGEST_TABLE_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => {
            return refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("cannot read the table: {e}"),
                None,
            );
        }
    };
    let table: RouteTable = match serde_json::from_slice(&body) {
        Ok(table) => table,
        Err(e) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                format!("not a route table: {e}"),
                None,
            );
        }
    };
    match state.put(table).await {
        Ok(generation) => json(StatusCode::OK, &InForce { generation }),
        Err(e @ PutError::Invalid(_)) => refuse(StatusCode::BAD_REQUEST, e.to_string(), None),
        Err(PutError::Stale { offered, in_force }) => refuse(
            StatusCode::CONFLICT,
            PutError::Stale { offered, in_force }.to_string(),
            Some(in_force),
        ),
        Err(e @ PutError::Keep(_)) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string(), None)
        }
    }
}

fn refuse(status: StatusCode, message: String, generation: Option<u64>) -> Response<Full<Bytes>> {
    json(
        status,
        &Refusal {
            message,
            generation,
        },
    )
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(e) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            e.to_string().into_bytes(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
