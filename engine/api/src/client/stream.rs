//! Answers that go on: logs, progress, events.

use bytes::{Buf as _, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Error, Result};
use crate::frame::{Frame, FrameDecoder};
use crate::types::{Event, Progress};

/// A container's output.
#[derive(Debug)]
pub struct LogStream {
    body: Incoming,
    decoder: FrameDecoder,
    done: bool,
}

impl LogStream {
    pub(crate) fn new(response: Response<Incoming>, tty: bool) -> Self {
        let decoder = if tty {
            FrameDecoder::raw()
        } else {
            FrameDecoder::new()
        };
        Self {
            body: response.into_body(),
            decoder,
            done: false,
        }
    }

    /// The next piece; `None` at the end. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) if self.done => return Ok(None),
                Ok(None) => {}
                Err(byte) => {
                    return Err(Error::transport(
                        "logs",
                        format!("byte {byte} is no stream number"),
                    ));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.decoder.push(data);
                    }
                }
                Some(Err(e)) => return Err(Error::transport("logs", e)),
                None => self.done = true,
            }
        }
    }
}

/// JSON values one after the other.
#[derive(Debug)]
struct JsonStream {
    body: Incoming,
    buffer: BytesMut,
    done: bool,
}

impl JsonStream {
    fn new(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
            done: false,
        }
    }

    async fn next<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<Option<T>> {
        loop {
            if let Some(value) = self.take(what)? {
                return Ok(Some(value));
            }
            if self.done {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => return Err(Error::transport(what, e)),
                None => self.done = true,
            }
        }
    }

    /// Takes a line, or the rest when nothing more comes.
    fn take<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<Option<T>> {
        loop {
            let end = match self.buffer.iter().position(|b| *b == b'\n') {
                Some(end) => end,
                None if self.done && !self.buffer.is_empty() => self.buffer.len(),
                None => return Ok(None),
            };
            let line = self.buffer.split_to(end);
            if self.buffer.has_remaining() {
                self.buffer.advance(1);
            }
            if !line.trim_ascii().is_empty() {
                return crate::from_slice(&line)
                    .map(Some)
                    .map_err(|source| Error::Decode {
                        request: what.to_owned(),
                        source,
                    });
            }
        }
    }
}

/// The progress of a pull, load or build.
#[derive(Debug)]
pub struct ProgressStream {
    lines: JsonStream,
}

impl ProgressStream {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        Self {
            lines: JsonStream::new(response),
        }
    }

    /// The next line; `None` at the end; the engine's failure is [`Error::Api`].
    pub async fn next(&mut self) -> Result<Option<Progress>> {
        let Some(progress) = self.lines.next::<Progress>("progress").await? else {
            return Ok(None);
        };
        if progress.error.is_empty() && progress.error_detail.is_none() {
            return Ok(Some(progress));
        }
        let detail = progress.error_detail.unwrap_or_default();
        let message = if detail.message.is_empty() {
            progress.error
        } else {
            detail.message
        };
        Err(Error::Api(ApiError {
            status: 500,
            message,
        }))
    }

    /// Reads to the end; the last `aux` object is returned (a build's image id).
    pub async fn finish(mut self) -> Result<Option<serde_json::Value>> {
        let mut aux = None;
        while let Some(progress) = self.next().await? {
            aux = progress.aux.or(aux);
        }
        Ok(aux)
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    lines: JsonStream,
}

impl EventStream {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        Self {
            lines: JsonStream::new(response),
        }
    }

    /// The next event; `None` when the engine ends.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        self.lines.next("events").await
    }
}
