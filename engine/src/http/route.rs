//! Which endpoint answers: one match over method and path.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::request::Req;
use super::respond::{self, Reply};
use super::{
    archive, attach, build, containers, disk_usage, exec, images, info, logs, networks, system,
    volumes,
};
use crate::container::Engine;
use crate::container::error::{Error, Result};

/// Answers a request.
pub async fn dispatch(engine: Arc<Engine>, req: Req) -> Result<Reply> {
    let segments = req.segments.clone();
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    match req.method {
        // Only these have heads of their own.
        Method::HEAD if !matches!(path[..], ["_ping"] | ["containers", _, "archive"]) => {
            Ok(unknown())
        }
        Method::OPTIONS => Ok(respond::empty(StatusCode::OK)),
        Method::GET | Method::HEAD => get(engine, req, &path).await,
        Method::POST => post(engine, req, &path).await,
        Method::PUT => put(engine, req, &path).await,
        Method::DELETE => delete(engine, req, &path).await,
        _ => Ok(unknown()),
    }
}

async fn get(engine: Arc<Engine>, req: Req, path: &[&str]) -> Result<Reply> {
    let e = &engine;
    match *path {
        ["_ping"] => Ok(system::ping()),
        ["version"] => system::version(e),
        ["info"] => info::info(e).await,
        ["events"] => system::events(e, &req),
        ["system", "df"] => disk_usage::disk_usage(e, &req).await,
        ["containers", "json"] => containers::list(e, &req),
        ["containers", id, "json"] => containers::inspect(e, &req, id),
        ["containers", id, "logs"] => logs::logs(e, &req, id).await,
        ["containers", id, "top"] => containers::top(e, &req, id).await,
        ["containers", id, "stats"] => containers::stats(e, &req, id),
        ["containers", id, "changes"] => containers::changes(e, id).await,
        ["containers", id, "archive"] if req.method == Method::HEAD => {
            archive::stat(e, &req, id).await
        }
        ["containers", id, "archive"] => archive::get(e, &req, id).await,
        ["containers", id, "export"] => archive::export(e, id).await,
        ["containers", id, "attach", "ws"] => {
            let mut req = req;
            attach::attach_by_websocket(e, &mut req, id).await
        }
        ["exec", id, "json"] => exec::inspect(e, id),
        ["images", "json"] => images::list(e, &req).await,
        ["images", "get"] => {
            images::save(e, &req, req.query_all("names").map(str::to_owned).collect()).await
        }
        ["images", "search"] => images::search(e, &req).await,
        ["images", ref name @ .., "json"] => images::inspect(e, &req, &name.join("/")).await,
        ["images", ref name @ .., "history"] => images::history(e, &req, &name.join("/")).await,
        ["images", ref name @ .., "get"] => images::save(e, &req, vec![name.join("/")]).await,
        ["distribution", ref name @ .., "json"] => {
            images::distribution(e, &req, &name.join("/")).await
        }
        ["volumes"] => volumes::list(e, &req),
        ["volumes", name] => volumes::inspect(e, name),
        ["networks"] => networks::list(e, &req),
        ["networks", name] => networks::inspect(e, &req, name),
        ["plugins"] => respond::json(&[(); 0]),
        ["containers", _, "checkpoints"] => Err(checkpoints()),
        ["plugins", name, "json"] => Err(Error::not_found(format!("plugin \"{name}\" not found"))),
        [first, ..] => elsewhere(first),
        [] => Ok(unknown()),
    }
}

async fn post(engine: Arc<Engine>, mut req: Req, path: &[&str]) -> Result<Reply> {
    let e = &engine;
    let r = &mut req;
    match *path {
        ["auth"] => images::auth(e, r).await,
        ["containers", "create"] => containers::create(e, r).await,
        ["containers", "prune"] => containers::prune(e, r).await,
        ["containers", id, "start"] => containers::start(e, r, id).await,
        ["containers", id, "stop"] => containers::stop(e, r, id).await,
        ["containers", id, "restart"] => containers::restart(e, r, id).await,
        ["containers", id, "kill"] => containers::kill(e, r, id).await,
        ["containers", id, "pause"] => containers::pause(e, id).await,
        ["containers", id, "unpause"] => containers::unpause(e, id).await,
        ["containers", id, "rename"] => containers::rename(e, r, id),
        ["containers", id, "wait"] => containers::wait(e, r, id),
        ["containers", id, "resize"] => containers::resize(e, r, id).await,
        ["containers", id, "update"] => containers::update(e, r, id).await,
        ["containers", id, "attach"] => attach::attach(e, r, id).await,
        ["containers", id, "exec"] => exec::create(e, r, id).await,
        ["exec", id, "start"] => exec::start(e, r, id).await,
        ["exec", id, "resize"] => exec::resize(e, r, id).await,
        ["build"] => build::build(e, r).await,
        ["build", "prune"] => build::prune(e, r).await,
        ["build", "cancel"] => build::cancel(r),
        ["images", "create"] => images::create(e, r).await,
        ["images", "load"] => images::load(e, r).await,
        ["images", "prune"] => images::prune(e, r).await,
        ["images", ref name @ .., "tag"] => images::tag(e, r, &name.join("/")).await,
        ["images", ref name @ .., "push"] => images::push(e, r, &name.join("/")).await,
        ["commit"] => images::commit(e, r).await,
        ["session"] => Err(Error::not_implemented(
            "windlassd builds by the classic protocol, not by BuildKit's: set DOCKER_BUILDKIT=0",
        )),
        ["containers", _, "checkpoints"] => Err(checkpoints()),
        ["volumes", "create"] => volumes::create(e, r).await,
        ["volumes", "prune"] => volumes::prune(e, r).await,
        ["networks", "create"] => networks::create(e, r).await,
        ["networks", "prune"] => networks::prune(e, r).await,
        ["networks", name, "connect"] => networks::connect(e, r, name).await,
        ["networks", name, "disconnect"] => networks::disconnect(e, r, name).await,
        [first, ..] => elsewhere(first),
        [] => Ok(unknown()),
    }
}

async fn put(engine: Arc<Engine>, mut req: Req, path: &[&str]) -> Result<Reply> {
    match *path {
        ["containers", id, "archive"] => archive::put(&engine, &mut req, id).await,
        [first, ..] => elsewhere(first),
        [] => Ok(unknown()),
    }
}

async fn delete(engine: Arc<Engine>, req: Req, path: &[&str]) -> Result<Reply> {
    let e = &engine;
    match *path {
        ["containers", id] => containers::remove(e, &req, id).await,
        ["containers", id, alias] if req.flag("link") => {
            containers::remove(e, &req, &format!("{id}/{alias}")).await
        }
        ["images", ref name @ ..] if !name.is_empty() => {
            images::remove(e, &req, &name.join("/")).await
        }
        ["volumes", name] => volumes::remove(e, &req, name),
        ["networks", name] => networks::remove(e, name).await,
        [first, ..] => elsewhere(first),
        [] => Ok(unknown()),
    }
}

/// Docker's other areas have their own words; the rest is no endpoint.
fn elsewhere(area: &str) -> Result<Reply> {
    match area {
        "swarm" | "services" | "nodes" | "tasks" | "secrets" | "configs" => Ok(respond::message(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        "plugins" => Err(Error::not_implemented("windlassd has no plugins")),
        "grpc" => Err(Error::not_implemented(
            "windlassd builds by the classic protocol, not by BuildKit's: set DOCKER_BUILDKIT=0",
        )),
        _ => Ok(unknown()),
    }
}

fn checkpoints() -> Error {
    Error::not_implemented("windlassd makes no checkpoints of containers")
}

fn unknown() -> Reply {
    respond::message(StatusCode::NOT_FOUND, "page not found")
}
