//! Commands that run: their streams, their end.

use std::sync::Arc;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::sync::oneshot;

use crate::connection::Connection;
use crate::error::{Error, Result, Sent};
use crate::pump::{self, Alive, Ended, Streams};

pub use crate::pump::{ProcessInput, ProcessOutput};

/// A running command. Dropping all of it closes its channel.
pub struct RemoteProcess {
    /// Its stdin; shut it down, or drop it, for end of file.
    pub stdin: ProcessInput,
    /// Its stdout.
    pub stdout: ProcessOutput,
    /// Its stderr.
    pub stderr: ProcessOutput,
    /// Waits for its end.
    pub end: ProcessEnd,
}

/// Waits for the end of a command.
pub struct ProcessEnd {
    ended: oneshot::Receiver<Ended>,
    connection: Arc<Connection>,
    what: String,
    _alive: Alive,
}

impl std::fmt::Debug for RemoteProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteProcess")
            .field("what", &self.end.what)
            .finish_non_exhaustive()
    }
}

impl RemoteProcess {
    pub(crate) fn new(streams: Streams, connection: Arc<Connection>, what: String) -> Self {
        Self {
            stdin: streams.input,
            stdout: streams.output,
            stderr: streams.errors,
            end: ProcessEnd {
                ended: streams.ended,
                connection,
                what,
                _alive: streams.alive,
            },
        }
    }
}

impl ProcessEnd {
    /// Its exit status, 128 + n for a signal. Its output has to be read, or dropped, for it to get there.
    pub async fn wait(self) -> Result<i32> {
        match self.ended.await {
            Ok(Ended::Status(status)) => Ok(status),
            Ok(Ended::Closed | Ended::Lost) | Err(_) => {
                Err(self.connection.lost(&self.what, Sent::Perhaps))
            }
        }
    }
}

/// Asks for a command on a fresh channel and waits until the host has taken it.
pub(crate) async fn start(
    mut channel: Channel<Msg>,
    connection: &Connection,
    line: String,
    what: &str,
) -> Result<Streams> {
    let asked = channel.exec(true, line).await;
    asked.map_err(|_| connection.lost(what, Sent::Perhaps))?;
    taken(&mut channel, connection, what).await?;
    Ok(pump::start(channel))
}

/// Waits for the answer to a request on a channel.
pub(crate) async fn taken(
    channel: &mut Channel<Msg>,
    connection: &Connection,
    what: &str,
) -> Result<()> {
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure) => {
                return Err(Error::ChannelRefused {
                    address: connection.address.clone(),
                    what: what.to_owned(),
                    reason: "the server does not allow it".to_owned(),
                });
            }
            Some(ChannelMsg::Close) | None => return Err(connection.lost(what, Sent::Perhaps)),
            Some(_) => {}
        }
    }
}
