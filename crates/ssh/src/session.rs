//! A session with a host: one connection for everything, made again when it has died.

use std::sync::Arc;
use std::time::Duration;

use russh::Channel;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use crate::command::{Command, Output};
use crate::connect;
use crate::connection::{Connection, OpenError, Wanted};
use crate::destination::Destination;
use crate::error::{Error, Result, Sent};
use crate::host_key::FirstUse;
use crate::process::{self, RemoteProcess};
use crate::pump::{Ended, ProcessInput, ProcessOutput, Streams};

/// What `exec` keeps of each stream of a command.
const OUTPUT_LIMIT: usize = 16 << 20;

/// A session with a host. Clones share its connection.
///
/// When the connection has died, the next request makes a new one (checking the host key against the pin). A request that may have
/// reached the host is never sent twice: see [`Error::nothing_sent`].
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    destination: Destination,
    user: String,
    live: Mutex<Arc<Connection>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("host", &self.inner.destination.host)
            .field("user", &self.inner.user)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects and logs in. `on_first_use` is told about each host key that was not known and is pinned now.
    pub async fn connect(
        destination: &Destination,
        on_first_use: &(dyn Fn(&FirstUse) + Send + Sync),
    ) -> Result<Self> {
        Self::connect_within(destination, destination.connect_timeout, on_first_use).await
    }

    /// With another time limit for this first time.
    pub(crate) async fn connect_within(
        destination: &Destination,
        limit: Duration,
        on_first_use: &(dyn Fn(&FirstUse) + Send + Sync),
    ) -> Result<Self> {
        let connection = connect::connect(destination, limit, on_first_use).await?;
        let inner = Inner {
            destination: destination.clone(),
            user: connection.user.clone(),
            live: Mutex::new(connection),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The login user.
    pub fn user(&self) -> &str {
        &self.inner.user
    }

    /// Whether the login user is root.
    pub fn is_root(&self) -> bool {
        self.inner.user == "root"
    }

    /// Runs a command to its end. Any exit status is a success here; see [`Session::run`].
    pub async fn exec(&self, command: &Command) -> Result<Output> {
        self.exec_with_input(command, tokio::io::empty()).await
    }

    /// Runs a command, and fails when its exit status is not 0. Returns its stdout as text.
    pub async fn run(&self, command: &Command) -> Result<String> {
        let output = self.exec(command).await?;
        self.require_success(command, &output).await?;
        Ok(output.stdout_text())
    }

    /// An error unless the status is 0.
    pub(crate) async fn require_success(&self, command: &Command, output: &Output) -> Result<()> {
        if output.success() {
            return Ok(());
        }
        let text = output.stderr_text();
        let last = text.lines().rev().take(5).collect::<Vec<_>>();
        let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        Err(Error::Failed {
            address: self.inner.live.lock().await.address.clone(),
            what: command.describe(),
            status: output.status,
            said: if said.is_empty() {
                "it said nothing".to_owned()
            } else {
                said
            },
        })
    }

    /// Runs a command with `input` as its stdin, sent as fast as the host takes it. A command that ends early ends the sending.
    pub async fn exec_with_input(
        &self,
        command: &Command,
        input: impl AsyncRead + Send,
    ) -> Result<Output> {
        let (streams, connection) = self.start(command).await?;
        let what = command.describe();
        let work = collect(streams, input, &connection, &what);
        match command.time_limit {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or_else(|_| Err(too_long(&connection, &what, limit))),
        }
    }

    /// Starts a command whose streams are used while it runs.
    pub async fn spawn(&self, command: &Command) -> Result<RemoteProcess> {
        let (streams, connection) = self.start(command).await?;
        Ok(RemoteProcess::new(streams, connection, command.describe()))
    }

    pub(crate) async fn start(&self, command: &Command) -> Result<(Streams, Arc<Connection>)> {
        let line = command.line(&self.inner.user)?;
        let what = command.describe();
        let begin = async {
            let (connection, channel) = self.open(Wanted::Session).await?;
            let streams = process::start(channel, &connection, line, &what).await?;
            Ok((streams, connection))
        };
        match command.time_limit {
            None => begin.await,
            Some(limit) => match tokio::time::timeout(limit, begin).await {
                Ok(started) => started,
                Err(_) => Err(Error::TimedOut {
                    address: self.inner.destination.host.clone(),
                    after: limit,
                }),
            },
        }
    }

    /// Opens a channel, on a new connection if the live one turns out to be dead.
    pub(crate) async fn open(
        &self,
        wanted: Wanted<'_>,
    ) -> Result<(Arc<Connection>, Channel<Msg>), OpenError> {
        let connection = self.connection().await.map_err(OpenError::Other)?;
        match connection.open(wanted).await {
            Err(OpenError::Other(Error::Closed { .. })) => {
                let connection = self.connection().await.map_err(OpenError::Other)?;
                let channel = connection.open(wanted).await?;
                Ok((connection, channel))
            }
            other => other.map(|channel| (connection, channel)),
        }
    }

    /// The live connection, made again if it has ended.
    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut live = self.inner.live.lock().await;
        if live.is_closed() {
            tracing::debug!(host = %live.address, "the SSH connection has ended; connecting again");
            let destination = &self.inner.destination;
            *live = connect::connect(destination, destination.connect_timeout, &|_| {}).await?;
        }
        Ok(live.clone())
    }
}

fn too_long(connection: &Connection, what: &str, limit: Duration) -> Error {
    Error::TooLong {
        address: connection.address.clone(),
        what: what.to_owned(),
        limit,
    }
}

/// Feeds and drains a command until it has ended.
async fn collect(
    streams: Streams,
    input: impl AsyncRead + Send,
    connection: &Connection,
    what: &str,
) -> Result<Output> {
    let Streams {
        input: stdin,
        output,
        errors,
        ended,
        alive,
    } = streams;
    let finish = async {
        match tokio::try_join!(keep(output), keep(errors)) {
            Ok(kept) => (Ok(kept), ended.await.unwrap_or(Ended::Lost)),
            Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => (Err(e), Ended::Status(0)),
            Err(e) => (Err(e), Ended::Lost),
        }
    };
    let feeding = feed(stdin, input);
    tokio::pin!(finish, feeding);
    let mut fed = false;
    let (kept, ended) = loop {
        tokio::select! {
            done = &mut finish => break done,
            sent = &mut feeding, if !fed => {
                sent.map_err(|source| Error::Local {
                    what: format!("cannot read what {what} should be given"),
                    source,
                })?;
                fed = true;
            }
        }
    };
    drop(alive);
    let Ended::Status(status) = ended else {
        return Err(connection.lost(what, Sent::Perhaps));
    };
    let (stdout, stderr) = kept.map_err(|_| Error::TooMuchOutput {
        address: connection.address.clone(),
        what: what.to_owned(),
        limit: OUTPUT_LIMIT,
    })?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Only errors of `input` are errors; a command need not read what it is given.
async fn feed(mut stdin: ProcessInput, input: impl AsyncRead + Send) -> std::io::Result<()> {
    tokio::pin!(input);
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = input.read(&mut buffer).await?;
        if count == 0 || stdin.write_all(&buffer[..count]).await.is_err() {
            return Ok(());
        }
    }
}

async fn keep(output: ProcessOutput) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let limit = u64::try_from(OUTPUT_LIMIT).unwrap_or(u64::MAX) + 1;
    output.take(limit).read_to_end(&mut kept).await?;
    if kept.len() > OUTPUT_LIMIT {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(kept)
}
