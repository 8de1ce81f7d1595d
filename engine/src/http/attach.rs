//! Hijacked connections: attach, and the pump that exec uses too.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use windlass_engine_api::{Frame, Source, frame_header};

use super::detach::DetachKeys;
use super::logs;
use super::request::Req;
use super::respond::{self, BodySender, Reply};
use super::websocket::{self, Socket};
use crate::container::error::{Error, Result};
use crate::container::parts::{Attachment, Writer};
use crate::container::{AttachTo, Container, Engine, LogQuery, LogReader};

/// What flows.
pub struct Pump {
    /// Bytes as they are, without frames.
    pub raw: bool,
    /// Which outputs are wanted.
    pub stdout: bool,
    /// See `stdout`.
    pub stderr: bool,
    /// The client's end of input ends the process' input.
    pub close_stdin: bool,
    /// In a terminal's input.
    pub detach: Option<DetachKeys>,
}

/// Why nothing flows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The output has ended, or the client has gone.
    Done,
    /// By the detach keys.
    Detached,
}

/// What a client wants of a container's streams.
struct Wanted {
    container: Arc<Container>,
    pump: Pump,
    /// What was said before, first.
    history: Option<LogReader>,
    /// Now or at the start; `None`: the history is all.
    target: Option<AttachTo>,
    stdin: bool,
}

impl Wanted {
    async fn of(engine: &Engine, req: &Req, id: &str) -> Result<Self> {
        let container = engine.containers.find(id)?;
        let (tty, stdin_once) = container.read(|r| (r.config.tty, r.config.stdin_once));
        let (stdout, stderr) = (req.flag("stdout"), req.flag("stderr"));
        let keys = DetachKeys::parse(req.query("detachKeys"))?;
        let query = LogQuery {
            stdout,
            stderr,
            ..LogQuery::default()
        };
        let history = req
            .flag("logs")
            .then(|| logs::open(&container, query))
            .transpose()?;
        let target = if req.flag("stream") {
            Some(engine.attach(id).await?)
        } else {
            None
        };
        Ok(Self {
            container,
            pump: Pump {
                raw: tty,
                stdout,
                stderr,
                close_stdin: stdin_once,
                detach: tty.then_some(keys),
            },
            history,
            target,
            stdin: req.flag("stdin"),
        })
    }

    async fn serve(self, engine: Arc<Engine>, mut client: Client) {
        if let Some(mut history) = self.history {
            while let Ok(piece) = logs::piece(&mut history, self.pump.raw) {
                if piece.is_empty() || !client.send(piece.into()).await {
                    break;
                }
            }
        }
        let attachment = match self.target {
            Some(AttachTo::Now(attachment)) => Some(attachment),
            Some(AttachTo::Start(receiver)) => receiver.await.ok(),
            None => None,
        };
        if let Some(mut attachment) = attachment {
            if !self.stdin {
                attachment.stdin = None;
            }
            if self.pump.flow(attachment, &mut client).await == Ended::Detached {
                engine.detached(&self.container);
            }
        }
        client.close().await;
    }
}

/// `POST /containers/{id}/attach`.
pub async fn attach(engine: &Arc<Engine>, req: &mut Req, id: &str) -> Result<Reply> {
    let wanted = match Wanted::of(engine, req, id).await {
        Ok(wanted) => wanted,
        Err(error) => return Ok(refused(&error)),
    };
    let (raw, version, engine) = (wanted.pump.raw, req.version, engine.clone());
    let run = move |client| wanted.serve(engine, client);
    Ok(hijack(req, raw, version, run))
}

/// Here alone Docker's errors are plain text.
fn refused(error: &Error) -> Reply {
    let status = respond::error(error).status();
    let text = format!("{}\r\n", error.message);
    respond::typed(
        status,
        "application/vnd.docker.raw-stream",
        respond::full(text),
    )
}

/// `GET /containers/{id}/attach/ws`: bytes without frames, in binary messages.
pub async fn attach_by_websocket(engine: &Arc<Engine>, req: &mut Req, id: &str) -> Result<Reply> {
    engine.containers.find(id)?;
    let mut reply = websocket::accept(req)?;
    let mut wanted = Wanted::of(engine, req, id).await?;
    wanted.pump.raw = true;
    let engine = engine.clone();
    match req.take_upgrade() {
        Some(upgrade) => {
            tokio::spawn(take_over(upgrade, move |io| async move {
                let socket = websocket::open(io).await;
                wanted.serve(engine, Client::Socket(Box::new(socket))).await;
            }));
        }
        None => *reply.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(reply)
}

/// The client's side.
pub enum Client {
    /// Both directions.
    Upgraded(Box<TokioIo<Upgraded>>),
    /// Both directions, in messages.
    Socket(Box<Socket>),
    /// Output only.
    Body(BodySender),
}

impl Client {
    /// Bytes as they are; `false` when it has gone.
    async fn send(&mut self, bytes: Bytes) -> bool {
        match self {
            Self::Upgraded(io) => io.write_all(&bytes).await.is_ok() && io.flush().await.is_ok(),
            Self::Socket(socket) => socket.send(bytes).await,
            Self::Body(sender) => sender.send(bytes).await,
        }
    }

    /// Ends the connection.
    pub async fn close(self) {
        match self {
            Self::Upgraded(mut io) => drop(io.shutdown().await),
            Self::Socket(socket) => socket.close().await,
            Self::Body(_) => {}
        }
    }
}

/// Answers 101 and hands the connection to `run`, or 200 with a stream when no upgrade was asked for.
pub fn hijack<F, Fut>(req: &mut Req, raw: bool, version: (u32, u32), run: F) -> Reply
where
    F: FnOnce(Client) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let multiplexed = !raw && version >= (1, 42);
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
    tokio::spawn(take_over(upgrade, |io| {
        run(Client::Upgraded(Box::new(TokioIo::new(io))))
    }));
    let mut reply = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

async fn take_over<F, Fut>(upgrade: OnUpgrade, run: F)
where
    F: FnOnce(Upgraded) -> Fut,
    Fut: Future<Output = ()>,
{
    match upgrade.await {
        Ok(io) => run(io).await,
        Err(error) => tracing::debug!(%error, "upgrade"),
    }
}

impl Pump {
    /// Until the output ends, the client goes, or detaches.
    pub async fn flow(self, attachment: Attachment, client: &mut Client) -> Ended {
        match client {
            Client::Body(sender) => {
                self.output(attachment.output, &mut BodyOut(sender)).await;
                Ended::Done
            }
            Client::Upgraded(io) => {
                let (mut read, mut write) = tokio::io::split(&mut **io);
                self.both(attachment, &mut read, &mut StreamOut(&mut write))
                    .await
            }
            Client::Socket(socket) => {
                let (mut read, mut out) = socket.halves();
                self.both(attachment, &mut read, &mut out).await
            }
        }
    }

    async fn both(
        mut self,
        attachment: Attachment,
        read: &mut (impl AsyncRead + Unpin),
        out: &mut impl Out,
    ) -> Ended {
        let keys = self.detach.take();
        let output = self.output(attachment.output, out);
        let input = input(read, attachment.stdin, keys, self.close_stdin);
        tokio::pin!(output);
        tokio::select! {
            () = &mut output => Ended::Done,
            ended = input => {
                if ended == Ended::Done {
                    output.await;
                }
                ended
            }
        }
    }

    async fn output(&self, mut frames: mpsc::Receiver<Frame>, out: &mut impl Out) {
        while let Some(frame) = frames.recv().await {
            let wanted = match frame.source {
                Source::Stderr => self.stderr,
                _ => self.stdout,
            };
            if wanted && !out.send(frame, self.raw).await {
                return;
            }
        }
    }
}

/// The client's input to the process, until there is no more.
async fn input(
    read: &mut (impl AsyncRead + Unpin),
    stdin: Option<Writer>,
    mut keys: Option<DetachKeys>,
    close: bool,
) -> Ended {
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
            return Ended::Detached;
        }
    }
    if let Some(mut writer) = stdin.take().filter(|_| close) {
        writer.shutdown().await.ok();
    }
    Ended::Done
}

/// Where output goes; `false` when nobody is there any more.
pub trait Out {
    /// A piece of output, with its frame or raw.
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
