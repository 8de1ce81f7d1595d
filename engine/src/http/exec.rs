//! `/exec`.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use windlass_engine_api::types::{CreatedId, ExecCreate, ExecStart};
use windlass_engine_api::{Frame, Source};

use super::attach::{Client, Ended, Pump, hijack};
use super::containers::size;
use super::detach::DetachKeys;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::parts::Attachment;
use crate::container::{Engine, already};

/// `POST /containers/{id}/exec`.
pub async fn create(engine: &Engine, req: &mut Req, id: &str) -> Result<Reply> {
    check_type(req)?;
    let wanted: ExecCreate = req.required_json().await?;
    if wanted.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    detach_keys(&wanted)?;
    respond::json_status(
        StatusCode::CREATED,
        &CreatedId {
            id: engine.exec_create(id, wanted)?,
        },
    )
}

fn check_type(req: &Req) -> Result<()> {
    match req.header("content-type") {
        Some(kind) if kind.split(';').next().map(str::trim) != Some("application/json") => {
            Err(Error::invalid(format!(
                "Content-Type specified ({kind}) must be 'application/json'"
            )))
        }
        _ => Ok(()),
    }
}

fn detach_keys(wanted: &ExecCreate) -> Result<DetachKeys> {
    let keys = Some(wanted.detach_keys.as_str()).filter(|k| !k.is_empty());
    DetachKeys::parse(keys).map_err(|_| {
        Error::invalid(format!(
            "Invalid escape keys ({}) provided",
            wanted.detach_keys
        ))
    })
}

/// `GET /exec/{id}/json`.
pub fn inspect(engine: &Engine, id: &str) -> Result<Reply> {
    respond::json(&engine.exec_inspect(id)?)
}

/// `POST /exec/{id}/resize`.
pub async fn resize(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let (rows, columns) = size(req)?;
    engine.exec_resize(id, rows, columns).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// `POST /exec/{id}/start`.
pub async fn start(engine: &Arc<Engine>, req: &mut Req, id: &str) -> Result<Reply> {
    check_type(req)?;
    // Nothing is asked for of what is not there: that the request lacks its body is said first.
    let exec = engine.exec(id);
    let how: ExecStart = match &exec {
        Ok(_) => req.json().await?,
        Err(_) => req.required_json().await?,
    };
    let exec = exec?;
    let state = *exec.state.borrow();
    if state.started {
        return Err(already(id, state));
    }
    let size = match how.console_size[..] {
        [rows, columns] if rows > 0 && columns > 0 && req.version >= (1, 42) => {
            Some((rows as u16, columns as u16))
        }
        _ => None,
    };
    if how.detach {
        drain(engine.exec_start(&exec, size).await?);
        return Ok(respond::empty(StatusCode::OK));
    }
    let wanted = &exec.wanted;
    let pump = Pump {
        raw: how.tty,
        stdout: wanted.attach_stdout,
        stderr: wanted.attach_stderr,
        close_stdin: true,
        detach: wanted.tty.then(|| detach_keys(wanted)).transpose()?,
    };
    let (version, engine) = (req.version, engine.clone());
    let run = move |mut client: Client| async move {
        // A program that cannot be started is told in the stream, since the connection is taken over already.
        let mut pump = pump;
        let attachment = match engine.exec_start(&exec, size).await {
            Ok(attachment) => attachment,
            Err(error) => {
                pump.stdout = true;
                failure(&error.message)
            }
        };
        if pump.flow(attachment, &mut client).await == Ended::Detached {
            engine.exec_detached(&exec);
            return client.close().await;
        }
        // The client asks for the exit code as soon as the stream ends.
        let mut state = exec.state.subscribe();
        tokio::time::timeout(
            std::time::Duration::from_secs(2),
            state.wait_for(|s| s.exit_code.is_some()),
        )
        .await
        .ok();
        client.close().await;
    };
    Ok(hijack(req, how.tty, version, run))
}

fn failure(message: &str) -> Attachment {
    let (sender, output) = mpsc::channel(1);
    sender
        .try_send(Frame {
            source: Source::Stdout,
            data: Bytes::from(format!("{message}\r\n")),
        })
        .ok();
    Attachment {
        stdin: None,
        output,
    }
}

/// Nobody reads the output of a detached exec, but it must not block.
fn drain(mut attachment: Attachment) {
    tokio::spawn(async move { while attachment.output.recv().await.is_some() {} });
}
