//! `/containers`: everything but streams.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use windlass_engine_api::types::{
    CreateContainer, PruneReport, RestartPolicy, WaitError, WaitResult,
};

use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::record::Status;
use crate::container::{Engine, Query, Removal, WaitFor};

/// `GET /containers/json`.
pub fn list(engine: &Engine, req: &Req) -> Result<Reply> {
    let limit = req.number("limit")?.unwrap_or(0).max(0) as usize;
    respond::json(&engine.list(&Query {
        all: req.flag("all"),
        limit,
        filters: req.filters()?,
    })?)
}

/// `POST /containers/create`.
pub async fn create(engine: &Arc<Engine>, req: &mut Req) -> Result<Reply> {
    let spec: CreateContainer = req.json().await?;
    let name = req.query("name").unwrap_or_default().to_owned();
    respond::json_status(StatusCode::CREATED, &engine.create(&name, spec).await?)
}

/// `GET /containers/{id}/json`.
pub fn inspect(engine: &Engine, id: &str) -> Result<Reply> {
    respond::json(&engine.inspect(id)?)
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
    engine.stop(id, req.query("signal"), timeout(req)?).await?;
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
    engine.rename(id, req.query("name").unwrap_or_default())?;
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

/// `POST /containers/{id}/update`: only the restart policy can be changed.
pub async fn update(engine: &Engine, req: &mut Req, id: &str) -> Result<Reply> {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Update {
        #[serde(rename = "RestartPolicy")]
        restart_policy: RestartPolicy,
        #[serde(flatten)]
        rest: serde_json::Map<String, serde_json::Value>,
    }
    let update: Update = req.json().await?;
    let wanted = |v: &serde_json::Value| match v {
        serde_json::Value::Number(n) => n.as_f64() != Some(0.0),
        serde_json::Value::String(s) => !s.is_empty(),
        serde_json::Value::Array(a) => !a.is_empty(),
        serde_json::Value::Bool(b) => *b,
        _ => false,
    };
    if let Some((key, _)) = update.rest.iter().find(|(_, v)| wanted(v)) {
        return Err(Error::not_implemented(format!(
            "windlassd cannot change {key} of a container: create it again with the new value"
        )));
    }
    if !update.restart_policy.name.is_empty() {
        engine.set_restart_policy(id, update.restart_policy)?;
    }
    respond::json(&json!({ "Warnings": [] }))
}

/// `DELETE /containers/{id}`.
pub async fn remove(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    if req.flag("link") {
        return Err(Error::not_implemented("windlassd has no links"));
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
    let mut deleted = Vec::new();
    for container in engine.containers.all() {
        let wanted = container.read(|r| {
            matches!(
                r.state.status,
                Status::Created | Status::Exited | Status::Dead
            ) && filters.match_labels(&r.config.labels)
        });
        if wanted
            && engine
                .remove(&container.id, Removal::default())
                .await
                .is_ok()
        {
            deleted.push(container.id.clone());
        }
    }
    respond::json(&PruneReport {
        containers_deleted: Some(deleted),
        ..PruneReport::default()
    })
}

/// `POST /containers/{id}/wait`: the headers go out at once, the body at the end.
pub fn wait(engine: &Arc<Engine>, req: &Req, id: &str) -> Result<Reply> {
    let condition = match req.query("condition") {
        None | Some("not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(Error::invalid(format!("invalid condition: \"{other}\""))),
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
