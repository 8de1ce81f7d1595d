//! Commands in a running container, and attaching to one: connections that become raw streams.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Client;
use super::transport::{RequestBody, Url};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameDecoder, Source};
use crate::types::{CreatedId, ExecCreate, ExecInspect, ExecStart};

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// Empty: the container's.
    pub working_dir: String,
    /// Input will be sent.
    pub stdin: bool,
    /// With a terminal.
    pub tty: bool,
}

/// A connection to running processes.
#[derive(Debug)]
pub struct AttachedStream {
    id: String,
    wire: Wire,
    decoder: FrameDecoder,
    done: bool,
}

#[derive(Debug)]
enum Wire {
    Upgraded(TokioIo<Upgraded>),
    Body(Incoming),
}

impl AttachedStream {
    /// The exec's id, for [`Client::inspect_exec`] and [`Client::resize_exec`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next output; `None` at the end. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) if self.done => return Ok(None),
                Ok(None) => {}
                Err(byte) => {
                    return Err(Error::transport(
                        "attach",
                        format!("byte {byte} is no stream number"),
                    ));
                }
            }
            match self.read().await? {
                Some(bytes) => self.decoder.push(&bytes),
                None => self.done = true,
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        match &mut self.wire {
            Wire::Upgraded(io) => {
                let mut buffer = bytes::BytesMut::with_capacity(16 * 1024);
                let n = io
                    .read_buf(&mut buffer)
                    .await
                    .map_err(|e| Error::transport("attach", e))?;
                Ok((n > 0).then(|| buffer.freeze()))
            }
            Wire::Body(body) => match body.frame().await {
                Some(frame) => Ok(Some(
                    frame
                        .map_err(|e| Error::transport("attach", e))?
                        .into_data()
                        .unwrap_or_default(),
                )),
                None => Ok(None),
            },
        }
    }

    /// Sends input.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.wire {
            Wire::Upgraded(io) => {
                io.write_all(bytes)
                    .await
                    .map_err(|e| Error::transport("attach", e))?;
                io.flush().await.map_err(|e| Error::transport("attach", e))
            }
            Wire::Body(_) => Err(Error::transport("attach", "the engine takes no input here")),
        }
    }

    /// Ends the input; output goes on.
    pub async fn close_input(&mut self) -> Result<()> {
        match &mut self.wire {
            Wire::Upgraded(io) => io
                .shutdown()
                .await
                .map_err(|e| Error::transport("attach", e)),
            Wire::Body(_) => Ok(()),
        }
    }

    /// Reads everything: standard output and standard error.
    pub async fn collect(&mut self) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(frame) = self.next().await? {
            match frame.source {
                Source::Stderr | Source::System => err.extend_from_slice(&frame.data),
                Source::Stdin | Source::Stdout => out.extend_from_slice(&frame.data),
            }
        }
        Ok((out, err))
    }
}

impl Client {
    /// Runs a command in a container; ask [`Client::inspect_exec`] for its exit code at the end of the stream.
    pub async fn exec(&self, container: &str, options: &ExecOptions) -> Result<AttachedStream> {
        let create = ExecCreate {
            user: options.user.clone(),
            tty: options.tty,
            attach_stdin: options.stdin,
            attach_stdout: true,
            attach_stderr: true,
            env: options.env.clone(),
            working_dir: options.working_dir.clone(),
            cmd: Some(options.command.clone()),
            ..ExecCreate::default()
        };
        let created: CreatedId = self
            .json(
                "POST",
                &Url::new(&["containers", container, "exec"]).finish(),
                RequestBody::json(&create)?,
            )
            .await?;
        let start = RequestBody::json(&ExecStart {
            tty: options.tty,
            ..ExecStart::default()
        })?;
        self.hijack(
            &Url::new(&["exec", &created.id, "start"]).finish(),
            start,
            created.id,
            options.tty,
        )
        .await
    }

    /// How an exec stands.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspect> {
        self.get_json(&Url::new(&["exec", id, "json"]).finish())
            .await
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let url = Url::new(&["exec", id, "resize"])
            .query("h", rows.to_string())
            .query("w", columns.to_string())
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Attaches to the container's main process.
    pub async fn attach(&self, container: &str) -> Result<AttachedStream> {
        let tty = self.inspect_container(container).await?.config.tty;
        let url = Url::new(&["containers", container, "attach"])
            .query("stream", "1")
            .query("stdin", "1")
            .query("stdout", "1")
            .query("stderr", "1");
        self.hijack(&url.finish(), RequestBody::Empty, container.to_owned(), tty)
            .await
    }

    async fn hijack(
        &self,
        path: &str,
        body: RequestBody,
        id: String,
        tty: bool,
    ) -> Result<AttachedStream> {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::CONNECTION,
            HeaderValue::from_static("Upgrade"),
        );
        headers.insert(http::header::UPGRADE, HeaderValue::from_static("tcp"));
        let response = self.request_with("POST", path, body, headers).await?;
        let decoder = if tty {
            FrameDecoder::raw()
        } else {
            FrameDecoder::new()
        };
        let wire = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            Wire::Upgraded(TokioIo::new(
                hyper::upgrade::on(response)
                    .await
                    .map_err(|e| Error::transport("attach", e))?,
            ))
        } else {
            Wire::Body(response.into_body())
        };
        Ok(AttachedStream {
            id,
            wire,
            decoder,
            done: false,
        })
    }
}
