//! A command or a shell on a session channel.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use russh::Sig;
use russh::server::Handle;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::forward::{pump, send};
use super::handler::{Closed, Writer};
use super::inbox::Outlet;
use crate::children::{Children, Exit};
use crate::terminal::{self, Master, Size};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a terminal may be silent after the end of its process until it counts as empty.
const QUIET: Duration = Duration::from_millis(100);

/// What the client asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// For `sh -c`; none: a login shell.
    pub command: Option<Vec<u8>>,
    /// What it may set of the environment.
    pub env: Vec<(String, String)>,
    /// `TERM` and the size, when it wants a terminal.
    pub terminal: Option<(String, Size)>,
}

/// A started process.
pub struct Process {
    /// Its number, which is also that of its process group.
    pub pid: i32,
    streams: Streams,
    end: oneshot::Receiver<Exit>,
}

enum Streams {
    Terminal(Master),
    Pipes(pipe::Sender, pipe::Receiver, pipe::Receiver),
}

impl Process {
    /// The terminal, if it has one.
    pub fn terminal(&self) -> Option<Master> {
        match &self.streams {
            Streams::Terminal(master) => Some(master.clone()),
            Streams::Pipes(..) => None,
        }
    }
}

/// Starts it as the leader of a session of its own.
pub fn start(
    request: &Request,
    children: &Children,
    (peer, local): (SocketAddr, SocketAddr),
) -> io::Result<Process> {
    let mut command = program(request);
    command
        .env(
            "SSH_CLIENT",
            format!("{} {} {}", peer.ip(), peer.port(), local.port()),
        )
        .env(
            "SSH_CONNECTION",
            format!(
                "{} {} {} {}",
                peer.ip(),
                peer.port(),
                local.ip(),
                local.port()
            ),
        );
    match &request.terminal {
        Some((term, size)) => with_terminal(command, children, term, *size),
        None => with_pipes(command, children),
    }
}

fn program(request: &Request) -> Command {
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/sh");
    let mut command = match &request.command {
        Some(text) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(OsStr::from_bytes(text));
            command
        }
        None => {
            let mut command = Command::new(shell);
            let name = shell.rsplit('/').next().unwrap_or(shell);
            command.arg0(format!("-{name}"));
            command
        }
    };
    let home = if Path::new("/root").is_dir() {
        "/root"
    } else {
        "/"
    };
    command
        .env_clear()
        .envs([("USER", "root"), ("LOGNAME", "root"), ("HOME", home)])
        .envs([("PATH", PATH), ("SHELL", shell)])
        .envs(request.env.iter().map(|(name, value)| (name, value)))
        .current_dir(home);
    command
}

fn with_terminal(
    mut command: Command,
    children: &Children,
    term: &str,
    size: Size,
) -> io::Result<Process> {
    let (master, slave) = terminal::open(size)?;
    if let Ok(name) = nix::unistd::ttyname(&slave) {
        command.env("SSH_TTY", name);
    }
    command
        .env("TERM", if term.is_empty() { "dumb" } else { term })
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    // SAFETY: the closure makes system calls and allocates nothing, as is allowed between fork and exec.
    unsafe {
        command.pre_exec(terminal::take_control);
    }
    // The command, with its ends of the terminal, is gone at the end of this function: only the processes hold it open.
    let (child, end) = children.spawn(&mut command)?;
    Ok(Process {
        pid: child.id() as i32,
        streams: Streams::Terminal(master),
        end,
    })
}

fn with_pipes(mut command: Command, children: &Children) -> io::Result<Process> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: bare system calls, as are allowed between fork and exec.
    unsafe {
        command.pre_exec(terminal::begin_session);
    }
    let (mut child, end) = children.spawn(&mut command)?;
    let missing = || io::Error::other("the pipe is missing");
    let stdin: OwnedFd = child.stdin.take().ok_or_else(missing)?.into();
    let stdout: OwnedFd = child.stdout.take().ok_or_else(missing)?.into();
    let stderr: OwnedFd = child.stderr.take().ok_or_else(missing)?.into();
    Ok(Process {
        pid: child.id() as i32,
        streams: Streams::Pipes(
            pipe::Sender::from_owned_fd(stdin)?,
            pipe::Receiver::from_owned_fd(stdout)?,
            pipe::Receiver::from_owned_fd(stderr)?,
        ),
        end,
    })
}

/// Carries input and output until the process has ended and all output is read, then tells how it ended. A channel
/// that the client closes takes the terminal and the pipes away, which is what ends most programs.
pub async fn run(process: Process, channel: Writer, handle: Handle, input: Outlet, closed: Closed) {
    let Process { streams, end, .. } = process;
    let work = async {
        match streams {
            Streams::Terminal(master) => on_terminal(master, &channel, input, end).await,
            Streams::Pipes(stdin, stdout, stderr) => {
                let output = async {
                    tokio::join!(
                        pump(stdout, &channel, None),
                        pump(stderr, &channel, Some(1))
                    );
                    end.await.ok()
                };
                tokio::select! {
                    exit = output => exit,
                    () = feed(stdin, input) => None,
                }
            }
        }
    };
    tokio::select! {
        exit = work => tell(exit, &channel, &handle).await,
        () = closed.wait() => {}
    }
    let _ = channel.close().await;
}

/// Never ends: what comes after the process has closed its input is dropped.
async fn feed(mut stdin: pipe::Sender, mut input: Outlet) {
    while let Some(data) = input.next().await {
        if stdin.write_all(&data).await.is_err() {
            break;
        }
    }
    drop(stdin);
    while input.next().await.is_some() {}
    std::future::pending::<()>().await;
}

async fn on_terminal(
    master: Master,
    channel: &Writer,
    mut input: Outlet,
    end: oneshot::Receiver<Exit>,
) -> Option<Exit> {
    let typing = async {
        while let Some(data) = input.next().await {
            if master.write_all(&data).await.is_err() {
                break;
            }
        }
        while input.next().await.is_some() {}
        std::future::pending::<()>().await;
    };
    let showing = async {
        let mut buffer = vec![0; 16 * 1024];
        let mut end = std::pin::pin!(end);
        let exit = loop {
            tokio::select! {
                exit = &mut end => break exit.ok(),
                length = master.read(&mut buffer) => match length {
                    Ok(length) if length > 0 => send(channel, None, &buffer[..length]).await.ok()?,
                    // No process has it open any more; the end of ours is near.
                    _ => return end.await.ok(),
                },
            }
        };
        // A process in the background may still hold the terminal: the rest is read until it is silent.
        while let Ok(Ok(length @ 1..)) = timeout(QUIET, master.read(&mut buffer)).await {
            if send(channel, None, &buffer[..length]).await.is_err() {
                break;
            }
        }
        exit
    };
    tokio::select! {
        exit = showing => exit,
        () = typing => None,
    }
}

async fn tell(exit: Option<Exit>, channel: &Writer, handle: &Handle) {
    let _ = channel.eof().await;
    match exit {
        Some(Exit::Code(code)) => drop(channel.exit_status(code).await),
        Some(Exit::Signal { number, dumped }) => {
            let name = signal_name(number);
            let _ = handle
                .exit_signal_request(channel.id(), name, dumped, String::new(), String::new())
                .await;
        }
        None => {}
    }
}

/// The protocol's name of a signal; those without one get OpenSSH's form.
fn signal_name(number: i32) -> Sig {
    match number {
        libc::SIGABRT => Sig::ABRT,
        libc::SIGALRM => Sig::ALRM,
        libc::SIGFPE => Sig::FPE,
        libc::SIGHUP => Sig::HUP,
        libc::SIGILL => Sig::ILL,
        libc::SIGINT => Sig::INT,
        libc::SIGKILL => Sig::KILL,
        libc::SIGPIPE => Sig::PIPE,
        libc::SIGQUIT => Sig::QUIT,
        libc::SIGSEGV => Sig::SEGV,
        libc::SIGTERM => Sig::TERM,
        libc::SIGUSR1 => Sig::USR1,
        other => Sig::Custom(nix::sys::signal::Signal::try_from(other).map_or_else(
            |_| format!("SIG{other}@windlass"),
            |signal| format!("{}@openssh.com", signal.as_str().trim_start_matches("SIG")),
        )),
    }
}

/// The number of a signal that a client may send.
pub fn signal_number(signal: &Sig) -> Option<i32> {
    Some(match signal {
        Sig::ABRT => libc::SIGABRT,
        Sig::ALRM => libc::SIGALRM,
        Sig::HUP => libc::SIGHUP,
        Sig::INT => libc::SIGINT,
        Sig::KILL => libc::SIGKILL,
        Sig::QUIT => libc::SIGQUIT,
        Sig::TERM => libc::SIGTERM,
        Sig::USR1 => libc::SIGUSR1,
        Sig::Custom(name) if name == "USR2" => libc::SIGUSR2,
        _ => return None,
    })
}
