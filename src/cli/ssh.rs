//! `windlass ssh`.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use futures_util::future::select_all;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use windlass_machine::MachineName;
use windlass_ssh::{PtyRequest, ShellRequest, ShellStreams, WindowSize};

use crate::access::ssh_error;
use crate::environment;
use crate::error::{CommandError, Result};
use crate::world::World;

/// What the exit code is when the host was not reached, as with OpenSSH.
const NOT_REACHED: u8 = 255;

/// Logs in to a machine, or runs a command there
///
/// One argument is a line for the remote shell; several are a program and its arguments, passed on as they are. The remote exit
/// code is passed through, and is 255 when the host was not reached.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Give the command a terminal too
    #[arg(short, long)]
    tty: bool,
    /// Machine
    name: MachineName,
    /// What to run instead of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub async fn run(args: Args, world: &World) -> Result<ExitCode> {
    let machine = world.machine(&args.name).await?;
    if machine.address.is_none() {
        return Err(
            CommandError::failed(format!("machine `{}` has no address yet", args.name))
                .hint("give the same `windlass create` again to finish it"),
        );
    }
    let session = match world.sessions.session(&machine).await {
        Ok(session) => session,
        Err(error) => {
            let error = CommandError::failed(format!("machine `{}`: cannot log in", args.name))
                .because(&ssh_error(error));
            world.progress.line(&error.to_string());
            return Ok(ExitCode::from(NOT_REACHED));
        }
    };
    let wants_terminal = args.tty || args.command.is_empty();
    let mut terminal = if wants_terminal && std::io::stdin().is_terminal() {
        Some(Terminal::raw()?)
    } else {
        None
    };
    let (sender, resizes) = mpsc::channel(4);
    let request = ShellRequest {
        command: command(args.command),
        pty: terminal.as_ref().map(|_| PtyRequest {
            term: environment::variable("TERM").unwrap_or_else(|| "xterm".to_owned()),
            size: size(),
        }),
    };
    let watcher = terminal.is_some().then(|| tokio::spawn(watch_size(sender)));
    let streams = ShellStreams {
        stdin: tokio::io::stdin(),
        stdout: tokio::io::stdout(),
        stderr: tokio::io::stderr(),
        resizes,
    };
    let ended = tokio::select! {
        ended = session.shell(&request, streams) => Ok(ended),
        code = asked_to_end(terminal.as_mut()) => Err(code),
    };
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    drop(terminal);
    let ended = match ended {
        Ok(ended) => ended,
        Err(code) => return Ok(ExitCode::from(code)),
    };
    match ended {
        Ok(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
        Err(error) => {
            let error = CommandError::failed(format!("machine `{}`", args.name)).because(&error);
            world.progress.line(&error.to_string());
            Ok(ExitCode::from(NOT_REACHED))
        }
    }
}

/// One argument may use the remote shell's own syntax, as people do with ssh.
fn command(mut arguments: Vec<String>) -> Option<Vec<String>> {
    match arguments.len() {
        0 => None,
        1 => Some(vec!["sh".to_owned(), "-c".to_owned(), arguments.remove(0)]),
        _ => Some(arguments),
    }
}

/// The terminal in raw mode, and as it was when this is dropped.
struct Terminal {
    before: Termios,
    /// What would end the process and leave the terminal raw, with the exit codes.
    ends: Vec<(Signal, u8)>,
}

impl Terminal {
    fn raw() -> Result<Self> {
        let mut ends = Vec::new();
        for (kind, code) in [
            (SignalKind::hangup(), 129),
            (SignalKind::interrupt(), 130),
            (SignalKind::quit(), 131),
            (SignalKind::terminate(), 143),
        ] {
            ends.push((signal(kind)?, code));
        }
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(std::io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(std::io::Error::from)?;
        Ok(Self { before, ends })
    }
}

/// Waits for a signal. Without a terminal there is nothing to restore, and they end the process by themselves.
async fn asked_to_end(terminal: Option<&mut Terminal>) -> u8 {
    let Some(terminal) = terminal else {
        return std::future::pending().await;
    };
    let signals = terminal.ends.iter_mut().map(|(signal, code)| {
        Box::pin(async {
            signal.recv().await;
            *code
        })
    });
    select_all(signals).await.0
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.before);
    }
}

fn size() -> WindowSize {
    match tcgetwinsize(std::io::stdin().as_fd()) {
        Ok(size) if size.ws_col > 0 => WindowSize {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
        _ => WindowSize {
            columns: 80,
            rows: 24,
        },
    }
}

async fn watch_size(sender: mpsc::Sender<WindowSize>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() && sender.send(size()).await.is_ok() {}
}
