//! Shells and commands joined to the caller's own streams, with or without a terminal.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::command::Command;
use crate::connection::Wanted;
use crate::error::{Error, Result, Sent};
use crate::process::taken;
use crate::pump::{self, Ended, Streams};
use crate::session::Session;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Its width.
    pub columns: u32,
    /// Its height.
    pub rows: u32,
}

/// A terminal to be made on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtyRequest {
    /// `TERM`.
    pub term: String,
    /// Its first size.
    pub size: WindowSize,
}

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellRequest {
    /// An argument list; the login shell where there is none.
    pub command: Option<Vec<String>>,
    /// The terminal it runs on, if on any.
    pub pty: Option<PtyRequest>,
}

/// The caller's side.
#[derive(Debug)]
pub struct ShellStreams<I, O, E> {
    /// What the command reads.
    pub stdin: I,
    /// What it writes; everything, where there is a terminal.
    pub stdout: O,
    /// What it complains about.
    pub stderr: E,
    /// New sizes of the terminal.
    pub resizes: mpsc::Receiver<WindowSize>,
}

impl Session {
    /// Runs a shell, or a command, joined to the caller's streams, to its end. Returns its exit status, 128 + n for a signal.
    pub async fn shell<I, O, E>(
        &self,
        request: &ShellRequest,
        streams: ShellStreams<I, O, E>,
    ) -> Result<i32>
    where
        I: AsyncRead + Send,
        O: AsyncWrite + Send,
        E: AsyncWrite + Send,
    {
        let command = request.command.as_ref().map(|c| Command::new(c.clone()));
        let what = command
            .as_ref()
            .map_or("the shell".to_owned(), Command::describe);
        let line = command.map(|c| c.line(self.user())).transpose()?;
        let (connection, mut channel) = self.open(Wanted::Session).await?;
        let lost = |_| connection.lost(&what, Sent::Perhaps);
        if let Some(pty) = &request.pty {
            let (columns, rows) = (pty.size.columns, pty.size.rows);
            let asked = channel.request_pty(true, &pty.term, columns, rows, 0, 0, &[]);
            asked.await.map_err(lost)?;
            taken(&mut channel, &connection, "a terminal").await?;
        }
        let asked = match line {
            Some(line) => channel.exec(true, line).await,
            None => channel.request_shell(true).await,
        };
        asked.map_err(lost)?;
        taken(&mut channel, &connection, &what).await?;
        let remote = pump::start_resizable(channel, streams.resizes);
        let ended = join(remote, streams.stdin, streams.stdout, streams.stderr).await;
        match ended.map_err(|source| Error::Local {
            what: format!("cannot pass on the streams of {what}"),
            source,
        })? {
            Ended::Status(status) => Ok(status),
            Ended::Closed | Ended::Lost => Err(connection.lost(&what, Sent::Perhaps)),
        }
    }
}

/// Copies until the command has ended and all of its output is passed on.
async fn join(
    remote: Streams,
    stdin: impl AsyncRead + Send,
    stdout: impl AsyncWrite + Send,
    stderr: impl AsyncWrite + Send,
) -> std::io::Result<Ended> {
    let Streams {
        mut input,
        mut output,
        mut errors,
        ended,
        alive: _alive,
    } = remote;
    tokio::pin!(stdin, stdout, stderr);
    let outward = async {
        let both = async {
            tokio::try_join!(
                tokio::io::copy(&mut output, &mut stdout),
                tokio::io::copy(&mut errors, &mut stderr)
            )
        };
        match both.await {
            // What was lost with the connection is reported as such.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Ended::Lost),
            other => other?,
        };
        stdout.flush().await?;
        stderr.flush().await?;
        Ok(ended.await.unwrap_or(Ended::Lost))
    };
    let inward = async {
        // A command that does not read its input any more is none of our errors.
        let _ = tokio::io::copy(&mut stdin, &mut input).await;
        let _ = input.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = outward => ended,
        () = inward => Ok(Ended::Lost),
    }
}
