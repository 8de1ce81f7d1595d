//! The local socket of a machine's engine: `<state>/machines/<name>/docker.sock`, held by a background process.
//!
//! The process is `windlass forward NAME`. A locked file says that it lives, so a stale socket is never trusted. It ends when the machine
//! is gone, and after an hour without a client. Deliberately absent: a TCP port.

use std::fs::TryLockError;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};
use windlass_engine_api::{Client, Dial, UnixDial};
use windlass_machine::MachineName;

use crate::error::{CommandError, Result};
use crate::interrupt;
use crate::world::World;

/// How long the engine has to answer through a new socket.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the process stays without a client.
const IDLE: Duration = Duration::from_secs(3600);
/// Between two looks at whether the machine is still there.
const LOOK: Duration = Duration::from_secs(1);
/// `sun_path` holds 108 bytes with its end.
const LONGEST_SOCKET: usize = 107;

struct Files {
    socket: PathBuf,
    lock: PathBuf,
    log: PathBuf,
}

fn files(world: &World, name: &MachineName) -> Files {
    let folder = world.sessions.folder(name);
    Files {
        socket: folder.join("docker.sock"),
        lock: folder.join("forward.lock"),
        log: folder.join("forward.log"),
    }
}

/// The socket, with an engine that answers behind it; starts the process where none runs.
pub async fn ensure(world: &World, name: &MachineName) -> Result<PathBuf> {
    let files = files(world, name);
    let length = files.socket.as_os_str().len();
    if length > LONGEST_SOCKET {
        return Err(CommandError::failed(format!(
            "the path of the socket is {length} bytes long, and a socket's path can have {LONGEST_SOCKET}: {}",
            files.socket.display()
        ))
        .hint("set WINDLASS_HOME to a shorter path"));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut child = None;
    loop {
        if files.socket.exists() && answers(&files.socket).await {
            return Ok(files.socket);
        }
        if !is_held(&files.lock)? {
            match &mut child {
                None => child = Some(start(world, name, &files)?),
                // It may have lost a race with another one; otherwise its log says why it ended.
                Some(child) => {
                    if let Some(status) = std::process::Child::try_wait(child)?
                        && !status.success()
                    {
                        return Err(ended(name, &files.log));
                    }
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(ended(name, &files.log));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn answers(socket: &Path) -> bool {
    let client = Client::new(Arc::new(UnixDial::new(socket)));
    matches!(
        timeout(Duration::from_secs(10), client.ping()).await,
        Ok(Ok(_))
    )
}

fn ended(name: &MachineName, log: &Path) -> CommandError {
    let said = fs_err::read_to_string(log).unwrap_or_default();
    let error = CommandError::failed(format!(
        "machine `{name}`: its engine does not answer through a local socket"
    ));
    match said.trim() {
        "" => error.hint(format!("try `windlass ssh {name}`")),
        said => error.hint(format!("the forwarder said: {}", said.replace('\n', " "))),
    }
}

fn is_held(lock: &Path) -> Result<bool> {
    let file = match fs_err::File::open(lock) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(matches!(
        file.file().try_lock_shared(),
        Err(TryLockError::WouldBlock)
    ))
}

/// Starts the process on its own: it outlives the shell that asked.
fn start(world: &World, name: &MachineName, files: &Files) -> Result<std::process::Child> {
    let log = fs_err::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&files.log)?;
    fs_err::set_permissions(&files.log, std::fs::Permissions::from_mode(0o600))?;
    let program = std::env::current_exe()?;
    keep_to_ourselves();
    let child = Command::new(&program)
        .args(["forward", name.as_str()])
        .env("WINDLASS_HOME", &world.home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn();
    child.map_err(|error| {
        CommandError::failed(format!("cannot start {}", program.display())).because(&error)
    })
}

/// What we were started with beside the standard descriptors (a lock, a pipe at whose end somebody waits) is not handed on to a process
/// that stays for hours.
fn keep_to_ourselves() {
    let Ok(entries) = fs_err::read_dir("/dev/fd") else {
        return;
    };
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2).collect::<Vec<_>>() {
        // One that is closed by now needs nothing.
        let _ = fcntl(number, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
}

/// Serves the socket until the machine is gone, nobody has used it for long, or a signal comes.
pub async fn serve(world: &World, name: &MachineName) -> Result<()> {
    // Ctrl-C in the terminal of the shell that asked is not meant for us. Failing means that we lead a group already.
    let _ = rustix::process::setsid();
    world.machine(name).await?;
    let files = files(world, name);
    let lock = fs_err::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&files.lock)?;
    match lock.file().try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // A host that cannot be reached is an error now, not at the first client.
    dial(world, name).await?;
    let listener = listen(&files.socket)?;
    let clients = Arc::new(AtomicUsize::new(0));
    tokio::select! {
        () = accept(listener, world, name, &clients) => {}
        () = useless(world, name, &files.socket, &clients) => {}
        _ = interrupt::asked() => {}
    }
    let _ = fs_err::remove_file(&files.socket);
    drop(lock);
    Ok(())
}

/// The folder is the user's alone, so nobody connects before the mode is set.
fn listen(socket: &Path) -> Result<UnixListener> {
    match fs_err::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs_err::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The engine as it is reached now: a machine may have another address after a restart.
async fn dial(world: &World, name: &MachineName) -> Result<Arc<dyn Dial>> {
    let machine = world.machine(name).await?;
    Ok(world.sessions.engine(&machine).await?)
}

async fn accept(
    listener: UnixListener,
    world: &World,
    name: &MachineName,
    clients: &Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (world, name, clients) = (world.clone(), name.clone(), clients.clone());
        tokio::spawn(async move {
            clients.fetch_add(1, Ordering::Relaxed);
            match dial(&world, &name).await {
                Ok(engine) => {
                    if let Err(error) = pass(stream, engine).await {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                }
                Err(error) => tracing::warn!("{}", error.summary()),
            }
            clients.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn pass(mut here: UnixStream, dial: Arc<dyn Dial>) -> std::io::Result<()> {
    let mut there = dial.dial().await?;
    tokio::io::copy_bidirectional(&mut here, &mut there).await?;
    Ok(())
}

/// Returns when there is no reason to go on.
async fn useless(world: &World, name: &MachineName, socket: &Path, clients: &AtomicUsize) {
    let mut used = Instant::now();
    loop {
        sleep(LOOK).await;
        if clients.load(Ordering::Relaxed) > 0 {
            used = Instant::now();
        }
        let gone = matches!(world.store.machine(name).await, Ok(None));
        if gone || !socket.exists() || used.elapsed() >= IDLE {
            return;
        }
    }
}
