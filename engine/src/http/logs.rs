//! `GET /containers/{id}/logs`.

use http::StatusCode;
use time::OffsetDateTime;
use windlass_engine_api::frame_header;

use super::request::Req;
use super::respond::{self, BodySender, Reply};
use crate::container::error::{Error, Result};
use crate::container::record::Status;
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
    let reader = open(&container, query.clone())?;
    let tty = container.read(|r| r.config.tty);
    // Between two runs nothing is followed, as with Docker.
    let follow = req.flag("follow") && container.status().has_process();
    let (sender, body) = respond::channel();
    let until = query.until;
    tokio::spawn(async move {
        if follow {
            let ends = async {
                match until.map(|t| (t - OffsetDateTime::now_utc()).try_into()) {
                    Some(Ok(left)) => tokio::time::sleep(left).await,
                    // A time that is past ends it with the first later line.
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = send_growing(&container, reader, &sender, tty) => {}
                () = ends => {}
            }
        } else {
            let mut reader = reader;
            send(&container.id, &mut reader, &sender, tty).await;
        }
    });
    let kind = if tty || req.version < (1, 42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    Ok(respond::typed(StatusCode::OK, kind, body))
}

/// A container's kept output; an error where none is kept.
pub fn open(container: &Container, query: LogQuery) -> Result<LogReader> {
    if container.read(|r| r.host_config.log_config.kind == "none") {
        return Err(Error::not_implemented(
            "configured logging driver does not support reading",
        ));
    }
    if matches!(container.status(), Status::Removing | Status::Dead) {
        return Err(Error::conflict(
            "can not get logs from container which is dead or marked for removal",
        ));
    }
    Ok(LogReader::open(
        &log_path(&container.folder, &container.id),
        query,
    )?)
}

fn query(req: &Req) -> Result<LogQuery> {
    let time = |key: &str| match req.query(key) {
        None | Some("0") => Ok(None),
        Some(text) => clock::parse_flexible(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("invalid value for \"{key}\": {text}"))),
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
        details: req.flag("details"),
        tail,
        since: time("since")?,
        until: time("until")?,
    })
}

/// As it comes, to the end of this run of the container.
async fn send_growing(
    container: &Container,
    mut reader: LogReader,
    sender: &BodySender,
    tty: bool,
) {
    let mut progress = container.progress.subscribe();
    let run = progress.borrow().exits;
    loop {
        // Asked before reading, so that the last lines of an ended container are read.
        let ended = {
            let now = progress.borrow_and_update();
            !now.running || now.exits != run
        };
        if !send(&container.id, &mut reader, sender, tty).await || ended || reader.is_past_until() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LogReader::POLL) => {}
            _ = progress.changed() => {}
            () = sender.closed() => return,
        }
    }
}

/// What is there now; `false` when the client has gone or it cannot be read.
async fn send(id: &str, reader: &mut LogReader, sender: &BodySender, tty: bool) -> bool {
    loop {
        match piece(reader, tty) {
            Ok(piece) if piece.is_empty() => return true,
            Ok(piece) => {
                if !sender.send(piece).await {
                    return false;
                }
            }
            Err(error) => {
                tracing::warn!(id, %error, "logs");
                return false;
            }
        }
    }
}

/// The next lines as they go over the wire; empty: none now.
pub fn piece(reader: &mut LogReader, tty: bool) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    for line in reader.read(PIECE)? {
        if !tty {
            piece.extend_from_slice(&frame_header(line.source, line.text.len() as u32));
        }
        piece.extend_from_slice(&line.text);
    }
    Ok(piece)
}
