//! The shim's beginning: leaves the engine, makes the process it is to hold, reports, and goes on to hold it.
//!
//! One thread, no tokio. It is told its task over its standard input, a socket.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::cgroup::Group;
use super::child::{self, Inside, Namespaced};
use super::hold::{Held, Holder, Outputs};
use super::log::Log;
use super::task::{Isolation, Namespace, Place, Reply, Task};
use super::user_namespace::{self, Namespace as UserNamespace, Owner};
use super::{device_filter, limits, sys};
use crate::userns::Maps;

/// The socket in a shim's folder.
pub const SOCKET: &str = "sock";
/// The shims' own control group: neither the engine's service nor a container.
const SHIMS: &str = "windlass/shims";

/// The argument is the shim's folder; the answer is the exit code.
pub fn main(args: &[OsString]) -> i32 {
    let [folder] = args else {
        return 2;
    };
    match leave() {
        Ok(Role::Starter) => 0,
        Ok(Role::Shim) => match run(PathBuf::from(folder)) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(_) => 1,
    }
}

enum Role {
    /// Its work is done.
    Starter,
    /// Goes on.
    Shim,
}

/// Forks, so that the shim is nobody's child, and goes where no service's end reaches.
fn leave() -> Result<Role> {
    let group = Group::at(SHIMS)?;
    let place = group.is_v2().then(|| shelter(&group)).flatten();
    let forked = match &place {
        Some(folder) => sys::clone_into(0, Some(folder.as_fd())).or_else(|_| sys::fork())?,
        None => sys::fork()?,
    };
    if forked.is_some() {
        return Ok(Role::Starter);
    }
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    if !group.is_v2() {
        group.shelter_from_systemd();
    }
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    // Last to be killed when memory is short, if the engine may ask for that.
    std::fs::write("/proc/self/oom_score_adj", "-998").ok();
    Ok(Role::Shim)
}

fn shelter(group: &Group) -> Option<std::fs::File> {
    group.create().ok()?;
    std::fs::File::open(group.unified()?).ok()
}

fn run(folder: PathBuf) -> Result<()> {
    let mut engine = UnixStream::from(sys::inherited(0)?);
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for number in 0..2 {
        sys::duplicate_to(null.file().as_fd(), number)?;
    }
    drop(null);
    let mut blocked = SigSet::all();
    for fatal in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
    ] {
        blocked.remove(fatal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    let task = read_task(&engine).context("read the task")?;
    match begin(task, folder) {
        Ok(begun) => report(engine, begun),
        Err(error) => {
            let reply = Reply {
                error: Some(format!("{error:#}")),
                ..Reply::default()
            };
            answer(&mut engine, &reply).ok();
            Err(error)
        }
    }
}

/// One line; the engine sends nothing after it.
fn read_task(engine: &UnixStream) -> Result<Task> {
    let mut line = Vec::new();
    BufReader::new(engine).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// One line.
pub fn answer(to: &mut UnixStream, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    to.write_all(&line)
}

struct Begun {
    held: Held,
    is_container: bool,
}

/// Tells the engine, whose end of the socket then gets an exec's output.
fn report(mut engine: UnixStream, begun: Begun) -> Result<()> {
    let Begun {
        mut held,
        is_container,
    } = begun;
    let first = (|| -> Result<Option<UnixStream>> {
        if is_container {
            let pid = held.child.as_raw();
            answer(
                &mut engine,
                &Reply {
                    pid,
                    ..Reply::default()
                },
            )?;
            return Ok(None);
        }
        held.start()?;
        let pid = held.child.as_raw();
        answer(
            &mut engine,
            &Reply {
                pid,
                ..Reply::default()
            },
        )?;
        engine.set_nonblocking(true)?;
        Ok(Some(engine.try_clone()?))
    })();
    match first {
        Ok(first) => {
            drop(engine);
            let mut holder = Holder::new(held)?;
            holder.add_output(first);
            holder.run()
        }
        Err(error) => {
            let reply = Reply {
                error: Some(format!("{error:#}")),
                ..Reply::default()
            };
            answer(&mut engine, &reply).ok();
            nix::sys::signal::kill(held.child, Signal::SIGKILL).ok();
            waitpid(held.child, None).ok();
            if is_container {
                // Nobody waits for it any more.
                held.group.destroy()?;
            }
            Err(error)
        }
    }
}

/// Everything up to the point before the program is executed.
fn begin(task: Task, folder: PathBuf) -> Result<Begun> {
    let log = task
        .log
        .clone()
        .map(Log::open)
        .transpose()
        .context("open the log")?;
    let group = Group::at(&task.cgroup)?;
    let is_container = matches!(task.place, Place::New(_));
    let folder = fs::File::open(folder)?.into_parts().0;
    let listener = listen(&folder)?;
    if let Place::New(isolation) = &task.place {
        let made = group
            .create()
            .and_then(|()| limits::apply(&group, &isolation.limits))
            .context("set limits")
            .and_then(|()| match &isolation.device_rules {
                Some(rules) => device_filter::restrict(&group, rules).context("restrict devices"),
                None => Ok(()),
            });
        if let Err(error) = made {
            group.destroy().ok();
            return Err(error);
        }
    }
    let own_processes = match &task.place {
        Place::New(isolation) => isolation.pid == Namespace::New,
        Place::Of(_) => true,
    };
    let oom_kills = group.oom_kills();
    match spawn(task, &group) {
        Ok(spawned) => Ok(Begun {
            held: Held {
                folder,
                listener,
                child: spawned.pid,
                control: Some(spawned.control),
                outputs: spawned.outputs,
                log,
                group,
                is_container,
                own_processes,
                oom_kills,
            },
            is_container,
        }),
        Err(error) => {
            if is_container {
                group.destroy().ok();
            }
            Err(error)
        }
    }
}

fn listen(folder: &std::fs::File) -> Result<UnixListener> {
    // Socket addresses are short; folders need not be.
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let listener = UnixListener::bind(&path).context("listen in the shim's folder")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Spawned {
    pid: Pid,
    control: UnixStream,
    outputs: Outputs,
}

/// The shim's and the child's ends of the standard descriptors.
struct Stdio {
    input: Option<OwnedFd>,
    outputs: [OwnedFd; 2],
    childs: [OwnedFd; 3],
}

fn pipes(stdin: bool) -> Result<Stdio> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let (input, childs_input) = if stdin {
        let (read, write) = pipe()?;
        (Some(write), read)
    } else {
        let null = std::fs::File::open("/dev/null")?;
        (None, OwnedFd::from(null))
    };
    let (out, childs_out) = pipe()?;
    let (err, childs_err) = pipe()?;
    Ok(Stdio {
        input,
        outputs: [out, err],
        childs: [childs_input, childs_out, childs_err],
    })
}

fn spawn(task: Task, group: &Group) -> Result<Spawned> {
    let (control, childs_control) = UnixStream::pair()?;
    let (stdio, childs_stdio) = if task.process.tty {
        (None, None)
    } else {
        let Stdio {
            input,
            outputs,
            childs,
        } = pipes(task.process.stdin)?;
        (Some((input, outputs)), Some(childs))
    };
    let mut join = Vec::new();
    let user = user_of(&task, &mut join)?;
    join.extend(namespaces_of(&task)?);
    let unified = match unified_folder(&task, group)? {
        Some(folder) => Some(fs::File::open(folder)?),
        None => None,
    };
    let flags = new_namespaces(&task);
    let forked = sys::clone_into(flags, unified.as_ref().map(|f| f.file().as_fd()))
        .context("make the container's first process")?;
    let Some(pid) = forked else {
        drop(control);
        drop(stdio);
        child::run(Inside {
            task,
            group: group.clone(),
            control: childs_control,
            stdio: childs_stdio,
            join,
            user,
        });
    };
    drop(childs_control);
    drop(childs_stdio);
    match ready(&control) {
        Ok(terminal) => Ok(Spawned {
            pid,
            control,
            outputs: match (terminal, stdio) {
                (Some(terminal), _) => Outputs::terminal(terminal)?,
                (None, Some((input, outputs))) => Outputs::pipes(input, outputs)?,
                (None, None) => bail!("the container's process sent no terminal"),
            },
        }),
        Err(error) => {
            nix::sys::signal::kill(pid, Signal::SIGKILL).ok();
            waitpid(pid, None).ok();
            Err(error)
        }
    }
}

/// Where a process of the container can be put: on v2 its group takes none once a nested engine has given controllers below it, but
/// where its first process is there is room.
fn unified_folder(task: &Task, group: &Group) -> Result<Option<PathBuf>> {
    let Place::Of(pid) = task.place else {
        return Ok(group.unified());
    };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = groups.lines().find_map(|l| l.strip_prefix("0::/"));
    let found = path.and_then(|path| Some(group.unified_root()?.join(path)));
    Ok(found
        .filter(|folder| folder.exists())
        .or_else(|| group.unified()))
}

/// Waits until the child can do no more before its start; the answer is its terminal.
fn ready(control: &UnixStream) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    let mut text: Vec<u8> = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let (count, fd) = sys::receive(control.as_fd(), &mut buffer)?;
        terminal = fd.or(terminal);
        for byte in &buffer[..count] {
            match *byte {
                child::READY if text.is_empty() => return Ok(terminal),
                child::TERMINAL if text.is_empty() => {}
                byte => text.push(byte),
            }
        }
        if count == 0 {
            bail!("{}", failure(&text));
        }
    }
}

/// The child's own words for what went wrong.
pub fn failure(text: &[u8]) -> String {
    match text.split_first() {
        Some((&child::FAILED, words)) => String::from_utf8_lossy(words).into_owned(),
        _ => "the process was killed while it was set up (out of memory?)".to_owned(),
    }
}

fn new_namespaces(task: &Task) -> u64 {
    let Place::New(isolation) = &task.place else {
        return 0;
    };
    let mut flags = CloneFlags::CLONE_NEWNS;
    for (namespace, flag) in [
        (&isolation.pid, CloneFlags::CLONE_NEWPID),
        (&isolation.ipc, CloneFlags::CLONE_NEWIPC),
        (&isolation.net, CloneFlags::CLONE_NEWNET),
        (&isolation.uts, CloneFlags::CLONE_NEWUTS),
    ] {
        // Others are made in the user namespace, see `user_of`.
        let here = isolation.user.is_none() || flag == CloneFlags::CLONE_NEWPID;
        if here && *namespace == Namespace::New {
            flags |= flag;
        }
    }
    flags.bits() as u64
}

/// The user namespace, and what is to be made in it.
fn user_of(task: &Task, join: &mut Vec<(OwnedFd, CloneFlags)>) -> Result<Option<Namespaced>> {
    let isolation = match &task.place {
        Place::Of(pid) => return user_of_process(*pid),
        Place::New(isolation) => isolation,
    };
    let Some(maps) = &isolation.user else {
        return Ok(None);
    };
    let kinds: Vec<(&str, CloneFlags)> = [
        ("ipc", &isolation.ipc, CloneFlags::CLONE_NEWIPC),
        ("net", &isolation.net, CloneFlags::CLONE_NEWNET),
        ("uts", &isolation.uts, CloneFlags::CLONE_NEWUTS),
    ]
    .into_iter()
    .filter(|(_, namespace, _)| **namespace == Namespace::New)
    .map(|(kind, _, flag)| (kind, flag))
    .collect();
    let owner = match owner(isolation)? {
        Some(owner) => Owner::There(owner),
        None => Owner::New(maps),
    };
    let made = user_namespace::make(owner, &kinds)?;
    join.extend(made.others);
    Ok(Some(Namespaced {
        namespace: UserNamespace::opened(made.user),
        root: maps.root(),
    }))
}

/// The user namespace of another container whose namespaces are joined, or else the one that its network was made in.
fn owner(isolation: &Isolation) -> Result<Option<OwnedFd>> {
    let is_own = |fd: &std::fs::File| -> Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fd.metadata()?.ino() == fs::metadata("/proc/self/ns/user")?.ino())
    };
    let mut all = Vec::new();
    for namespace in [&isolation.pid, &isolation.ipc] {
        if let Namespace::Join(path) = namespace {
            all.push(fs::File::open(path.with_file_name("user"))?.into_parts().0);
        }
    }
    if let Namespace::Join(path) = &isolation.net {
        let network = fs::File::open(path)?;
        all.push(sys::owner_of(network.file().as_fd())?.into());
    }
    for found in all {
        if !is_own(&found)? {
            return Ok(Some(found.into()));
        }
    }
    Ok(None)
}

fn user_of_process(pid: i32) -> Result<Option<Namespaced>> {
    let Some(maps) = Maps::of_process(pid)? else {
        return Ok(None);
    };
    let file = fs::File::open(format!("/proc/{pid}/ns/user"))?;
    Ok(Some(Namespaced {
        namespace: UserNamespace::opened(file.into_parts().0.into()),
        root: maps.root(),
    }))
}

/// Opens what an exec joins. The shim's own children are made in the wanted process namespace from here on.
fn namespaces_of(task: &Task) -> Result<Vec<(OwnedFd, CloneFlags)>> {
    let pid = match &task.place {
        Place::New(isolation) => {
            if let Namespace::Join(path) = &isolation.pid {
                let namespace = fs::File::open(path)?;
                setns(namespace.file(), CloneFlags::CLONE_NEWPID)
                    .context("join the process namespace")?;
            }
            return Ok(Vec::new());
        }
        Place::Of(pid) => *pid,
    };
    let open = |kind: &str, flag| -> Result<(OwnedFd, CloneFlags)> {
        let file = fs::File::open(format!("/proc/{pid}/ns/{kind}"))?;
        Ok((file.into_parts().0.into(), flag))
    };
    let (processes, flag) = open("pid", CloneFlags::CLONE_NEWPID)?;
    let join = vec![
        open("ipc", CloneFlags::CLONE_NEWIPC)?,
        open("uts", CloneFlags::CLONE_NEWUTS)?,
        open("net", CloneFlags::CLONE_NEWNET)?,
        open("cgroup", CloneFlags::CLONE_NEWCGROUP)?,
        open("mnt", CloneFlags::CLONE_NEWNS)?,
    ];
    // Only now is it sure that the number still meant the container when it was opened.
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    if !groups.contains(&task.id) {
        bail!("container {} is not running", task.id);
    }
    setns(processes, flag).context("enter the process namespace")?;
    Ok(join)
}
