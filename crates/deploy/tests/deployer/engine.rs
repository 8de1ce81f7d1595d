//! A Docker engine in memory, on the other end of a pipe: as much of the API as deploying uses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use windlass_engine_api::{Dial, Stream};

#[derive(Default)]
pub struct Contents {
    /// Name → `inspect`.
    pub containers: BTreeMap<String, Value>,
    pub networks: BTreeMap<String, Value>,
    pub volumes: BTreeMap<String, Value>,
    /// Reference → id.
    pub images: BTreeMap<String, String>,
    /// Requests that change something.
    pub changes: Vec<String>,
    /// Images whose containers end at once.
    pub broken: Vec<String>,
    next: u16,
}

/// One engine.
#[derive(Clone, Default)]
pub struct Engine(Arc<Mutex<Contents>>);

impl Engine {
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().expect("contents")
    }
}

#[async_trait]
impl Dial for Engine {
    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let engine = self.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(engine.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        Ok(Box::new(ours))
    }
}

async fn answer(
    engine: Engine,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes());
    let path = parts.uri.path().replace("%3A", ":").replace("%2F", "/");
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
    let mut contents = engine.contents();
    if parts.method != Method::GET {
        contents.changes.push(format!("{} {path}", parts.method));
    }
    let names: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (status, json) = contents.handle(&parts.method, &names, &query, body);
    let mut response = Response::new(Full::new(Bytes::from(match json {
        Value::Null => String::new(),
        json => json.to_string(),
    })));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("status");
    Ok(response)
}

fn missing() -> (u16, Value) {
    (404, json!({ "message": "no such thing" }))
}

fn parameter(query: &str, name: &str) -> String {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
        .unwrap_or_default()
}

impl Contents {
    fn handle(&mut self, method: &Method, path: &[&str], query: &str, body: Value) -> (u16, Value) {
        let get = method == Method::GET;
        match path {
            ["info"] => (200, json!({ "Architecture": "x86_64", "NCPU": 2 })),
            ["networks"] => (200, self.networks.values().cloned().collect()),
            ["networks", "create"] => {
                let name = body["Name"].as_str().expect("name").to_owned();
                self.networks.insert(name, body);
                (201, json!({ "Id": "n" }))
            }
            ["networks", name] if get => self
                .networks
                .get(*name)
                .map_or_else(missing, |n| (200, n.clone())),
            ["networks", name] => self
                .networks
                .remove(*name)
                .map_or_else(missing, |_| (204, Value::Null)),
            ["volumes"] => (
                200,
                json!({ "Volumes": self.volumes.values().collect::<Vec<_>>() }),
            ),
            ["volumes", "create"] => {
                let name = body["Name"].as_str().expect("name").to_owned();
                self.volumes.insert(name, body.clone());
                (201, body)
            }
            ["volumes", name] => self
                .volumes
                .remove(*name)
                .map_or_else(missing, |_| (204, Value::Null)),
            ["images", "create"] => {
                let reference = format!(
                    "{}:{}",
                    parameter(query, "fromImage"),
                    parameter(query, "tag")
                );
                if reference.contains("unknown") {
                    return (404, json!({ "message": "pull access denied" }));
                }
                self.images
                    .insert(reference.clone(), format!("sha256:{reference}"));
                (200, json!({ "status": "done" }))
            }
            ["images", reference @ .., "json"] => {
                let id = self.images.get(&reference.join("/"));
                id.map_or_else(missing, |id| (200, json!({ "Id": id })))
            }
            ["containers", rest @ ..] => self.containers(get, rest, query, body),
            _ => missing(),
        }
    }

    fn containers(&mut self, get: bool, path: &[&str], query: &str, body: Value) -> (u16, Value) {
        match path {
            ["json"] => (
                200,
                self.containers
                    .keys()
                    .map(|name| json!({ "Id": name }))
                    .collect(),
            ),
            ["create"] => {
                let name = parameter(query, "name");
                if self.containers.contains_key(&name) {
                    return (409, json!({ "message": "the name is taken" }));
                }
                let container = json!({
                    "Id": format!("id-{name}"), "Name": format!("/{name}"), "Config": body,
                    "HostConfig": body["HostConfig"], "State": { "Status": "created" },
                });
                self.containers.insert(name.clone(), container);
                (201, json!({ "Id": format!("id-{name}") }))
            }
            [name] if !get => self
                .containers
                .remove(*name)
                .map_or_else(missing, |_| (204, Value::Null)),
            [name, "json"] => self
                .containers
                .get(*name)
                .map_or_else(missing, |c| (200, c.clone())),
            [name, "start"] => self.start(name),
            [name, "stop"] => self.set_state(name, json!({ "Status": "exited" })),
            [_, "logs"] => (200, Value::Null),
            _ => missing(),
        }
    }

    fn start(&mut self, name: &str) -> (u16, Value) {
        self.next += 1;
        let Some(container) = self.containers.get(name) else {
            return missing();
        };
        let image = container["Config"]["Image"].as_str().unwrap_or_default();
        let ends = self.broken.iter().any(|b| b == image);
        let state = if ends {
            json!({ "Status": "exited", "ExitCode": 7 })
        } else {
            json!({ "Status": "running", "Running": true, "StartedAt": format!("2026-01-01T00:00:{:02}Z", self.next % 60) })
        };
        self.set_state(name, state)
    }

    fn set_state(&mut self, name: &str, state: Value) -> (u16, Value) {
        match self.containers.get_mut(name) {
            Some(container) => {
                container["State"] = state;
                (204, Value::Null)
            }
            None => missing(),
        }
    }
}
