//! `GET /containers/{id}/logs`.

use http::StatusCode;
use windlass_engine_api::frame_header;

use super::request::Req;
use super::respond::{self, BodySender, Reply};
use crate::container::error::{Error, Result};
use crate::container::{Container, Engine, LogQuery, LogReader, Tail, clock, log_path};

const PIECE: usize = 64 * 1024;

/// Output so far, and as it comes with `follow`.
pub async fn logs(engine: &Engine, req: &Req, id: &str) -> Result<Reply> {
    let container = engine.containers.find(id)?;
    let query = query(req)?;
    if !query.stdout && !query.stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    if container.read(|r| r.host_config.log_config.kind == "none") {
        return Err(Error::not_implemented(
            "configured logging driver does not support reading",
        ));
    }
    let tty = container.read(|r| r.config.tty);
    let reader = LogReader::open(&log_path(&container.folder, &container.id), query)?;
    let (sender, body) = respond::channel();
    tokio::spawn(send(container, reader, sender, tty, req.flag("follow")));
    let kind = if tty {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    Ok(respond::typed(StatusCode::OK, kind, body))
}

fn query(req: &Req) -> Result<LogQuery> {
    let time = |key: &str| match req.query(key) {
        None | Some("0") => Ok(None),
        Some(text) => clock::parse_flexible(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("parameter {key}: '{text}' is no time"))),
    };
    let tail = match req.query("tail") {
        None | Some("all") => Tail::All,
        // Docker takes what is no number, and what is negative, as everything.
        Some(text) => text.parse().map_or(Tail::All, Tail::Lines),
    };
    Ok(LogQuery {
        stdout: req.flag("stdout"),
        stderr: req.flag("stderr"),
        timestamps: req.flag("timestamps"),
        tail,
        since: time("since")?,
        until: time("until")?,
    })
}

async fn send(
    container: std::sync::Arc<Container>,
    mut reader: LogReader,
    sender: BodySender,
    tty: bool,
    follow: bool,
) {
    let mut progress = container.progress.subscribe();
    loop {
        // Asked before reading, so that the last lines of an ended container are read.
        let running = progress.borrow_and_update().running;
        let mut some = false;
        loop {
            let lines = match reader.read(PIECE) {
                Ok(lines) => lines,
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "logs");
                    return;
                }
            };
            if lines.is_empty() {
                break;
            }
            some = true;
            let mut piece = Vec::new();
            for line in lines {
                if !tty {
                    piece.extend_from_slice(&frame_header(line.source, line.text.len() as u32));
                }
                piece.extend_from_slice(&line.text);
            }
            if !sender.send(piece).await {
                return;
            }
        }
        if reader.is_past_until() || !follow || (!running && !some) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LogReader::POLL) => {}
            _ = progress.changed() => {}
            () = sender.closed() => return,
        }
    }
}
