//! `/containers`: everything but streams.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use windlass_engine_api::types::{
    ContainerInspect, CreateContainer, PruneReport, WaitError, WaitResult,
};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::record::Status;
use crate::container::{Change, Engine, Query, Removal, Sizes, WaitFor, clock};

/// `GET /containers/json`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let limit = req.number("limit")?.unwrap_or(0).max(0) as usize;
    respond::json(&engine.list(&Query {
        all: req.flag("all"),
        limit,
        filters: req.filters()?,
        sizes: sizes(req),
    })?)
}

fn sizes(req: &Req) -> Sizes {
    if req.flag("size") {
        Sizes::Counted
    } else {
        Sizes::Unknown
    }
}

/// `POST /containers/create`.
pub async fn create(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let mut spec: CreateContainer = req.required_json().await?;
    if req.version < (1, 40) && spec.host_config.ipc_mode.is_empty() {
        "shareable".clone_into(&mut spec.host_config.ipc_mode);
    }
    let endpoints = &spec.networking_config.endpoints_config;
    if req.version < (1, 44) && endpoints.len() > 1 {
        let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
        return Err(Error::invalid(format!(
            "Container cannot be connected to network endpoints: {}",
            names.join(", ")
        )));
    }
    let name = req.query("name").unwrap_or_default().to_owned();
    let platform = req.query("platform");
    let made = engine.create(&name, spec, platform).await?;
    respond::json_status(StatusCode::CREATED, &made)
}

/// `GET /containers/{id}/json`.
pub fn inspect(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let mut shown = engine.inspect(id, sizes(req))?;
    if req.version < (1, 45) {
        short_ids_as_aliases(&mut shown);
    }
    respond::json(&shown)
}

/// Older clients look there for the names that newer ones have as `DNSNames`.
fn short_ids_as_aliases(shown: &mut ContainerInspect) {
    let names = [
        shown.id.get(..12).unwrap_or_default(),
        &shown.config.hostname,
    ];
    let networks = shown.network_settings.networks.iter_mut();
    for (_, endpoint) in networks.filter(|(n, _)| !matches!(n.as_str(), "bridge" | "host" | "none"))
    {
        let aliases = endpoint.aliases.get_or_insert_default();
        for name in names.iter().filter(|name| !name.is_empty()) {
            if !aliases.iter().any(|a| a == name) {
                aliases.push((*name).to_owned());
            }
        }
    }
}

/// `POST /containers/{id}/start`.
pub async fn start(engine: &Arc<Engine>, _req: &Req, id: &str) -> Result<Reply> {
    engine.start(id).await?;
    respond::no_content()
}

/// `t` in seconds; negative waits for ever.
fn timeout(req: &Req) -> Result<Option<Duration>> {
    Ok(req
        .number("t")?
        .map(|t| u64::try_from(t).map_or(Duration::MAX, Duration::from_secs)))
}

/// `POST /containers/{id}/stop`.
pub async fn stop(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    // Older clients name none, and what they send by mistake was never read.
    let signal = req.query("signal").filter(|_| req.version >= (1, 42));
    engine.stop(id, signal, timeout(req)?).await?;
    respond::no_content()
}

/// `POST /containers/{id}/restart`.
pub async fn restart(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    engine
        .restart(id, req.query("signal"), timeout(req)?)
        .await?;
    respond::no_content()
}

/// `POST /containers/{id}/kill`.
pub async fn kill(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    engine
        .kill(id, req.query("signal").unwrap_or("KILL"))
        .await?;
    respond::no_content()
}

/// `POST /containers/{id}/pause`.
pub async fn pause(engine: &Arc<Engine>, id: &str) -> Result<Reply> {
    engine.pause(id).await?;
    respond::no_content()
}

/// `POST /containers/{id}/unpause`.
pub async fn unpause(engine: &Arc<Engine>, id: &str) -> Result<Reply> {
    engine.unpause(id).await?;
    respond::no_content()
}

/// `POST /containers/{id}/rename`.
pub fn rename(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let name = req.query("name").unwrap_or_default();
    if name.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    engine.rename(id, name)?;
    respond::no_content()
}

/// `POST /containers/{id}/resize`.
pub async fn resize(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let (rows, columns) = size(req)?;
    engine.resize(id, rows, columns).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// `h` and `w`.
pub fn size(req: &Req) -> Result<(u16, u16)> {
    let side = |key: &str, name: &str| -> Result<u16> {
        let text = req.query(key).unwrap_or_default();
        text.parse::<u32>()
            .map(|n| u16::try_from(n).unwrap_or(u16::MAX))
            .map_err(|e| {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let why = match e.kind() {
                    PosOverflow | NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Error::invalid(format!("invalid resize {name} \"{text}\": {why}"))
            })
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

/// `POST /containers/{id}/update`.
pub async fn update(engine: &Engine, req: &mut Req, id: &str) -> Result<Reply> {
    let mut change: Change = req.required_json().await?;
    if req.version < (1, 40) {
        change = change.without_pids_limit();
    }
    respond::json(&json!({ "Warnings": engine.update(id, change).await? }))
}

/// `DELETE /containers/{id}`.
pub async fn remove(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    if req.flag("link") {
        engine.remove_link(id)?;
        return respond::no_content();
    }
    engine
        .remove(
            id,
            Removal {
                force: req.flag("force"),
                volumes: req.flag("v"),
            },
        )
        .await?;
    respond::no_content()
}

/// `POST /containers/prune`.
pub async fn prune(engine: &Arc<Engine>, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let mut keys = filters.keys();
    if let Some(key) = keys.find(|k| !["label", "label!", "until"].contains(k)) {
        return Err(Error::invalid(format!("invalid filter '{key}'")));
    }
    let until = match filters.get("until") {
        [] => None,
        [text] => Some(clock::format(
            clock::parse_until(text, time::OffsetDateTime::now_utc()).ok_or_else(|| {
                Error::invalid(format!(
                    "failed to parse value as time or duration: {text:?}"
                ))
            })?,
        )),
        _ => return Err(Error::invalid("more than one until filter specified")),
    };
    let mut report = PruneReport::default();
    for container in engine.containers.all() {
        let record = container.snapshot();
        let idle = matches!(
            record.state.status,
            Status::Created | Status::Exited | Status::Dead
        );
        let wanted = idle
            && filters.match_labels(&record.config.labels)
            && until.as_ref().is_none_or(|t| record.created < *t);
        if !wanted {
            continue;
        }
        let size = engine.images.written(&record.id).unwrap_or_default();
        if engine.remove(&record.id, Removal::default()).await.is_ok() {
            let deleted = report.containers_deleted.get_or_insert_default();
            deleted.push(record.id);
            report.space_reclaimed += size;
        }
    }
    let total = report.space_reclaimed.to_string();
    let attributes = [("reclaimed".to_owned(), total)].into();
    engine.events.publish("container", "prune", "", attributes);
    // Docker's own answer has `null` there, which its clients take for none.
    report.containers_deleted.get_or_insert_default();
    respond::json(&report)
}

/// `POST /containers/{id}/wait`: the headers go out at once, the body at the end.
pub fn wait(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    engine.containers.find(id)?;
    let condition = match req.query("condition") {
        None | Some("not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(Error::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiting = engine.wait(id, condition)?;
    let (sender, body) = respond::channel();
    tokio::spawn(async move {
        tokio::select! {
            result = waiting => {
                let result = match result {
                    Ok(code) => WaitResult { status_code: code, error: None },
                    Err(e) => WaitResult { status_code: -1, error: Some(WaitError { message: e.message }) },
                };
                sender.send_json_line(&result).await;
            }
            () = sender.closed() => {}
        }
    });
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}

/// `GET /containers/{id}/top`.
pub async fn top(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let options = req.query("ps_args").unwrap_or("-ef");
    respond::json(&engine.top(id, options).await?)
}

/// `GET /containers/{id}/changes`.
pub async fn changes(engine: &Engine, id: &str) -> Result<Reply> {
    respond::json(&engine.changes(id).await?)
}

/// `GET /containers/{id}/stats`: one sample with `stream=0`, else one each second.
pub fn stats(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    let container = engine.containers.find(id)?;
    let stream = !req.has_query("stream") || req.flag("stream");
    let one_shot = req.flag("one-shot");
    let engine = engine.clone();
    let (sender, body) = respond::channel();
    tokio::spawn(async move {
        let mut former = None;
        if !stream && !one_shot && container.status().has_process() {
            former = engine.stats(&container, None).ok();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        loop {
            let Ok(sample) = engine.stats(&container, former.as_ref()) else {
                return;
            };
            if !sender.send_json_line(&sample).await || !stream {
                return;
            }
            former = Some(sample);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = sender.closed() => return,
            }
            if container.progress.borrow().removed {
                return;
            }
        }
    });
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}
