//! Answers that grow: the lines of a pull, push, load or build.

use http::StatusCode;
use tokio::sync::mpsc;
use windlass_engine_api::types::{ErrorDetail, Progress};

use super::super::respond::{self, Reply};
use crate::container::error::{Error, Result};

/// As in Docker an archive's error is told in the stream always, even if it is all there is.
pub(super) fn with_errors_inside(reply: Result<Reply>) -> Result<Reply> {
    let error = match reply {
        Err(error) => error,
        reply => return reply,
    };
    let line = serde_json::to_string(&failure(error)).map_err(Error::internal)?;
    let body = respond::full(line + "\r\n");
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}

fn failure(error: Error) -> Progress {
    Progress {
        error_detail: Some(ErrorDetail {
            code: None,
            message: error.message.clone(),
        }),
        error: error.message,
        ..Progress::default()
    }
}

/// Runs `work`, whose progress is the answer. An error before the first line is the request's own.
pub async fn with_progress<F, Fut>(work: F) -> Result<Reply>
where
    F: FnOnce(mpsc::Sender<Progress>) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel::<Progress>(64);
    let mut task = tokio::spawn(work(sender));
    let first = tokio::select! {
        biased;
        first = receiver.recv() => first,
        done = &mut task => {
            done.map_err(Error::internal)??;
            // It may have spoken just before it was done.
            let mut lines = String::new();
            while let Ok(line) = receiver.try_recv() {
                lines.push_str(&(serde_json::to_string(&line).map_err(Error::internal)? + "\r\n"));
            }
            return Ok(respond::typed(StatusCode::OK, "application/json", respond::full(lines)));
        }
    };
    if first.is_none() {
        // The sender is gone before anything was said: the result says why.
        task.await.map_err(Error::internal)??;
        return Ok(respond::typed(
            StatusCode::OK,
            "application/json",
            respond::full(""),
        ));
    }
    let (body_sender, body) = respond::channel();
    tokio::spawn(async move {
        let mut next = first;
        while let Some(line) = next {
            if !body_sender.send_json(&line).await {
                // The client has gone: like Docker, the work is given up.
                task.abort();
                return;
            }
            next = tokio::select! {
                line = receiver.recv() => line,
                () = body_sender.closed() => {
                    task.abort();
                    return;
                }
            };
        }
        let error = match task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(join) => Error::internal(join),
        };
        body_sender.send_json(&failure(error)).await;
    });
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}
