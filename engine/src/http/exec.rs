//! `/exec`.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use windlass_engine_api::types::{CreatedId, ExecCreate, ExecStart};
use windlass_engine_api::{Frame, Source};

use super::attach::{Pump, hijack};
use super::containers::size;
use super::detach::DetachKeys;
use super::request::Req;
use super::respond::{self, Reply};
use crate::container::Engine;
use crate::container::error::{Error, Result};
use crate::container::parts::Attachment;

/// `POST /containers/{id}/exec`.
pub async fn create(engine: &Engine, req: &mut Req, id: &str) -> Result<Reply> {
    let wanted: ExecCreate = req.json().await?;
    respond::json_status(
        StatusCode::CREATED,
        &CreatedId {
            id: engine.exec_create(id, wanted)?,
        },
    )
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
    let how: ExecStart = req.json().await?;
    let exec = engine.exec(id)?;
    if exec.state.borrow().started {
        return Err(Error::conflict(format!(
            "Error: Exec command {id} has already run"
        )));
    }
    let size = match how.console_size[..] {
        [rows, columns] if rows > 0 && columns > 0 => Some((rows as u16, columns as u16)),
        _ => None,
    };
    if how.detach {
        drain(engine.exec_start(&exec, size).await?);
        return Ok(respond::empty(StatusCode::OK));
    }
    let wanted = &exec.wanted;
    let pump = Pump {
        tty: wanted.tty,
        stdout: wanted.attach_stdout,
        stderr: wanted.attach_stderr,
        close_stdin: true,
        detach: DetachKeys::parse(Some(wanted.detach_keys.as_str()).filter(|k| !k.is_empty()))?,
    };
    let (tty, version, engine) = (wanted.tty, req.version, engine.clone());
    let run = move |client| async move {
        // A program that cannot be started is told in the stream, since the connection is taken over already.
        let attachment = engine
            .exec_start(&exec, size)
            .await
            .unwrap_or_else(|error| failure(&error.message));
        let client = pump.flow(attachment, client).await;
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
    Ok(hijack(req, tty, version, run))
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
