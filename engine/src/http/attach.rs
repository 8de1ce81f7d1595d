//! Hijacked connections: attach, and the pump that exec uses too.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use windlass_engine_api::{Frame, Source, frame_header};

use super::detach::DetachKeys;
use super::request::Req;
use super::respond::{self, BodySender, Reply};
use crate::container::error::{Error, Result};
use crate::container::parts::{Attachment, Writer};
use crate::container::{AttachTo, Engine};

/// What flows.
pub struct Pump {
    /// Raw bytes, and detach keys are looked for.
    pub tty: bool,
    /// Which outputs are wanted.
    pub stdout: bool,
    /// See `stdout`.
    pub stderr: bool,
    /// The client's end of input ends the process' input.
    pub close_stdin: bool,
    /// In a terminal's input.
    pub detach: DetachKeys,
}

/// `POST /containers/{id}/attach`.
pub async fn attach(engine: &Arc<Engine>, req: &mut Req, id: &str) -> Result<Reply> {
    let container = engine.containers.find(id)?;
    let (tty, stdin_once) = container.read(|r| (r.config.tty, r.config.stdin_once));
    if !req.flag("stream") {
        return Err(Error::not_implemented(
            "windlassd attaches to the running stream only: use logs for the past, or give stream=1",
        ));
    }
    let stdin = req.flag("stdin");
    let pump = Pump {
        tty,
        stdout: req.flag("stdout"),
        stderr: req.flag("stderr"),
        close_stdin: stdin_once,
        detach: DetachKeys::parse(req.query("detachKeys"))?,
    };
    let target = engine.attach(id).await?;
    let version = req.version;
    let run = move |client: Client| async move {
        let attachment = match target {
            AttachTo::Now(attachment) => Some(attachment),
            AttachTo::Start(receiver) => receiver.await.ok(),
        };
        let Some(mut attachment) = attachment else {
            return client.close().await;
        };
        if !stdin {
            attachment.stdin = None;
        }
        pump.run(attachment, client).await;
    };
    Ok(hijack(req, tty, version, run))
}

/// The client's side.
pub enum Client {
    /// Both directions.
    Upgraded(Box<TokioIo<hyper::upgrade::Upgraded>>),
    /// Output only.
    Body(BodySender),
}

impl Client {
    /// Ends the connection.
    pub async fn close(self) {
        if let Self::Upgraded(mut io) = self {
            io.shutdown().await.ok();
        }
    }
}

/// Answers 101 and hands the connection to `run`, or 200 with a stream when no upgrade was asked for.
pub fn hijack<F, Fut>(req: &mut Req, tty: bool, version: (u32, u32), run: F) -> Reply
where
    F: FnOnce(Client) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let multiplexed = !tty && version >= (1, 42);
    let kind = if multiplexed {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    let Some(upgrade) = req.take_upgrade() else {
        let (sender, body) = respond::channel();
        tokio::spawn(run(Client::Body(sender)));
        return respond::typed(StatusCode::OK, kind, body);
    };
    tokio::spawn(take_over(upgrade, run));
    let mut reply = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

async fn take_over<F, Fut>(upgrade: OnUpgrade, run: F)
where
    F: FnOnce(Client) -> Fut,
    Fut: Future<Output = ()>,
{
    match upgrade.await {
        Ok(io) => run(Client::Upgraded(Box::new(TokioIo::new(io)))).await,
        Err(error) => tracing::debug!(%error, "upgrade"),
    }
}

impl Pump {
    /// Until the output ends, the client goes, or detaches.
    pub async fn run(self, attachment: Attachment, client: Client) {
        let client = self.flow(attachment, client).await;
        client.close().await;
    }

    /// [`Pump::run`] without closing, for what comes after the end.
    pub async fn flow(self, attachment: Attachment, client: Client) -> Client {
        match client {
            Client::Body(sender) => {
                self.output(attachment.output, &mut BodyOut(&sender)).await;
                Client::Body(sender)
            }
            Client::Upgraded(io) => {
                let (read, mut write) = tokio::io::split(*io);
                let Self {
                    tty,
                    stdout,
                    stderr,
                    close_stdin,
                    detach,
                } = self;
                let out = Self {
                    tty,
                    stdout,
                    stderr,
                    close_stdin,
                    detach: DetachKeys::never(),
                };
                let mut read = read;
                {
                    let mut out_writer = StreamOut(&mut write);
                    let output = out.output(attachment.output, &mut out_writer);
                    let input = input(
                        &mut read,
                        attachment.stdin,
                        tty.then_some(detach),
                        close_stdin,
                    );
                    tokio::pin!(output);
                    tokio::select! {
                        () = &mut output => {}
                        detached = input => {
                            if !detached {
                                output.await;
                            }
                        }
                    }
                }
                Client::Upgraded(Box::new(read.unsplit(write)))
            }
        }
    }

    async fn output(&self, mut frames: mpsc::Receiver<Frame>, out: &mut impl Out) {
        while let Some(frame) = frames.recv().await {
            let wanted = match frame.source {
                Source::Stderr => self.stderr,
                _ => self.stdout,
            };
            if wanted && !out.send(frame, self.tty).await {
                return;
            }
        }
    }
}

/// The client's input to the process; `true` when the client detached, and it ends when there is no more input.
async fn input(
    read: &mut (impl AsyncRead + Unpin),
    stdin: Option<Writer>,
    mut keys: Option<DetachKeys>,
    close: bool,
) -> bool {
    let mut stdin = stdin;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = match read.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let (bytes, detached) = match &mut keys {
            Some(keys) => keys.feed(&buffer[..n]),
            None => (buffer[..n].to_vec(), false),
        };
        if let Some(writer) = &mut stdin
            && (writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err())
        {
            // The process reads no more; the client's input still has to be taken.
            stdin = None;
        }
        if detached {
            return true;
        }
    }
    if let Some(mut writer) = stdin.take().filter(|_| close) {
        writer.shutdown().await.ok();
    }
    false
}

trait Out {
    async fn send(&mut self, frame: Frame, raw: bool) -> bool;
}

struct BodyOut<'a>(&'a BodySender);

impl Out for BodyOut<'_> {
    async fn send(&mut self, frame: Frame, raw: bool) -> bool {
        if raw {
            return self.0.send(frame.data).await;
        }
        let mut piece = frame_header(frame.source, frame.data.len() as u32).to_vec();
        piece.extend_from_slice(&frame.data);
        self.0.send(piece).await
    }
}

struct StreamOut<'a, W>(&'a mut W);

impl<W: AsyncWrite + Unpin> Out for StreamOut<'_, W> {
    async fn send(&mut self, frame: Frame, raw: bool) -> bool {
        if !raw
            && self
                .0
                .write_all(&frame_header(frame.source, frame.data.len() as u32))
                .await
                .is_err()
        {
            return false;
        }
        self.0.write_all(&frame.data).await.is_ok() && self.0.flush().await.is_ok()
    }
}
