//! The process that becomes the container's program: enters its namespaces, takes its identity, waits for the start, executes.
//!
//! It talks with the shim over a socket: `T` with the terminal's descriptor, `R` when everything but the execution is done, `E` and a
//! text when it failed; it waits for a byte before it executes.

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::cgroup::Group;
use super::identity::{self, Missing, Prepared};
use super::task::{Confinement, Isolation, Namespace, Place, Process, Task};
use super::user_namespace::{self, Assumed};
use super::{init, rootfs, sys};

/// Set up, waits for the start.
pub const READY: u8 = b'R';
/// A text follows.
pub const FAILED: u8 = b'E';
/// A terminal comes with it.
pub const TERMINAL: u8 = b'T';

/// What the child gets from the shim.
pub struct Inside {
    /// Everything that is to be done.
    pub task: Task,
    /// The container's control group.
    pub group: Group,
    /// To the shim.
    pub control: UnixStream,
    /// Input, output and errors; none with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Namespaces to join: an exec's of its container, the mounts last, or a new container's that were made for it.
    pub join: Vec<(OwnedFd, CloneFlags)>,
    /// The container's user namespace, if that is not the host's.
    pub user: Option<Namespaced>,
}

/// A user namespace to enter.
#[derive(Debug)]
pub struct Namespaced {
    /// It.
    pub namespace: user_namespace::Namespace,
    /// What its root is here.
    pub root: (u32, u32),
}

/// Never comes back: executes, or reports why not.
pub fn run(inside: Inside) -> ! {
    let mut control = match inside.control.try_clone() {
        Ok(control) => control,
        Err(_) => sys::exit_now(1),
    };
    if let Err(error) = set_up(inside, control.as_raw_fd()) {
        let text = format!("{}{error:#}", char::from(FAILED));
        control.write_all(text.as_bytes()).ok();
    }
    sys::exit_now(1)
}

/// `report` is open for what goes wrong.
fn set_up(mut inside: Inside, report: RawFd) -> Result<()> {
    sys::default_signals();
    inside.group.join_v1().context("join the control group")?;
    let adjustment = inside.task.confinement.oom_score_adj.to_string();
    // Lowering it takes a capability that the engine itself may not have.
    std::fs::write("/proc/self/oom_score_adj", adjustment).ok();
    // Until it executes it is still the engine's program: nobody in the container may look into it.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    nix::unistd::setsid().context("make a session")?;
    for (namespace, kind) in &inside.join {
        setns(namespace, *kind).with_context(|| format!("enter the container: {kind:?}"))?;
    }
    if let Place::New(isolation) = &inside.task.place {
        let _root = inside.user.as_ref().map(|user| Assumed::new(user.root));
        let _root = _root.transpose().context("act as the container's root")?;
        new_container(isolation, &inside.group)?;
    }
    enter_user_namespace(&mut inside)?;
    sys::new_keyring();
    stdio(&mut inside)?;
    if let Place::New(isolation) = &inside.task.place {
        rootfs::protect(isolation)?;
    }
    own_null()?;
    // From here on paths are looked up that the container has a say in, and `/proc/self/fd` is one of them: no folder of the host
    // may be open.
    inside.join.clear();
    let is_namespaced = inside.user.take().is_some();
    sys::close_all_but([inside.control.as_raw_fd(), report]);
    let Task {
        process,
        confinement,
        filter,
        place,
        ..
    } = &inside.task;
    let missing = match place {
        Place::New(_) => Missing::Make,
        Place::Of(_) => Missing::Refuse,
    };
    if !is_namespaced {
        limits(confinement)?;
    }
    let prepared = identity::prepare(process, missing)?;
    identity::confine(confinement, filter.as_ref(), &prepared.identity)?;
    let program = find_program(&process.args, &prepared)?;
    execute(inside.control, process, &program, prepared)
}

/// The last of the host's powers go: what takes them is done before.
fn enter_user_namespace(inside: &mut Inside) -> Result<()> {
    let Some(user) = &inside.user else {
        return Ok(());
    };
    for fd in inside.stdio.iter().flatten() {
        let (uid, gid) = user.root;
        if !is_null(fd.as_raw_fd()) {
            // So that `/dev/stdout` can be opened.
            nix::unistd::fchown(fd.as_raw_fd(), Some(uid.into()), Some(gid.into())).ok();
        }
    }
    limits(&inside.task.confinement)?;
    user.namespace.enter()?;
    if matches!(inside.task.place, Place::New(_)) {
        // The mounts become the namespace's own.
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    }
    Ok(())
}

fn new_container(isolation: &Isolation, group: &Group) -> Result<()> {
    for (namespace, kind) in [
        (&isolation.net, CloneFlags::CLONE_NEWNET),
        (&isolation.ipc, CloneFlags::CLONE_NEWIPC),
        (&isolation.uts, CloneFlags::CLONE_NEWUTS),
    ] {
        if let Namespace::Join(path) = namespace {
            let file = fs_err::File::open(path)?;
            setns(file.file(), kind).with_context(|| format!("join {}", path.display()))?;
        }
    }
    if isolation.cgroup == Namespace::New {
        unshare(CloneFlags::CLONE_NEWCGROUP).context("make a control group namespace")?;
    }
    if isolation.net == Namespace::New {
        sys::loopback_up().context("bring the loopback up")?;
    }
    rootfs::enter(isolation, group)?;
    if isolation.uts == Namespace::New {
        nix::unistd::sethostname(&isolation.hostname).context("set the host name")?;
        if !isolation.domainname.is_empty() {
            fs_err::write("/proc/sys/kernel/domainname", &isolation.domainname)?;
        }
    }
    if isolation.open_network {
        for (file, value) in [
            ("ip_unprivileged_port_start", "0"),
            ("ping_group_range", "0 2147483647"),
        ] {
            // Older kernels lack them.
            std::fs::write(format!("/proc/sys/net/ipv4/{file}"), value).ok();
        }
    }
    for (name, value) in &isolation.sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs_err::write(path, value).with_context(|| format!("set sysctl {name}"))?;
    }
    Ok(())
}

/// The standard descriptors: the shim's pipes, or a terminal of the container's own.
fn stdio(inside: &mut Inside) -> Result<()> {
    if let Some(fds) = inside.stdio.take() {
        for (fd, number) in fds.iter().zip(0..) {
            sys::duplicate_to(fd.as_fd(), number)?;
        }
        return Ok(());
    }
    let controller = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/pts/ptmx")
        .context("open a terminal (/dev/pts/ptmx)")?;
    let (terminal, number) = sys::terminal_peer(controller.as_fd())?;
    if let Some((rows, columns)) = inside.task.process.size {
        sys::set_window_size(controller.as_fd(), rows, columns)?;
    }
    for number in 0..3 {
        sys::duplicate_to(terminal.as_fd(), number)?;
    }
    sys::control_terminal(terminal.as_fd()).context("take the terminal")?;
    if matches!(inside.task.place, Place::New(_)) {
        rootfs::console(number)?;
    }
    sys::send_descriptor(inside.control.as_fd(), TERMINAL, controller.as_fd())?;
    Ok(())
}

/// What needs a capability that the engine lacks is set as far as it goes.
fn limits(confinement: &Confinement) -> Result<()> {
    for limit in &confinement.limits {
        let done = match sys::set_limit(limit.resource, limit.soft, limit.hard) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                let (_, most) = sys::limit(limit.resource)?;
                sys::set_limit(limit.resource, limit.soft.min(most), limit.hard.min(most))
            }
            done => done,
        };
        done.with_context(|| format!("set resource limit {}", limit.resource))?;
    }
    Ok(())
}

/// As a shell would find it; the words are those by which Docker's clients choose their exit codes.
fn find_program(args: &[String], prepared: &Prepared) -> Result<String> {
    let Some(name) = args.first() else {
        bail!("no command specified");
    };
    if name.is_empty() {
        bail!("exec: \"\": executable file not found in $PATH");
    }
    if name.contains('/') {
        return match check_program(name) {
            Ok(()) => Ok(name.clone()),
            Err(nix::Error::ENOENT) => {
                bail!("exec: \"{name}\": stat {name}: no such file or directory")
            }
            Err(nix::Error::EISDIR) => bail!("exec: \"{name}\": is a directory"),
            Err(nix::Error::ENOTDIR) => bail!("exec: \"{name}\": stat {name}: not a directory"),
            Err(nix::Error::EACCES) => bail!("exec: \"{name}\": permission denied"),
            Err(e) => bail!("exec: \"{name}\": {}", e.desc()),
        };
    }
    for folder in prepared.path.split(':') {
        let folder = if folder.is_empty() { "." } else { folder };
        let path = format!("{folder}/{name}");
        if check_program(&path).is_ok() {
            return Ok(path);
        }
    }
    bail!("exec: \"{name}\": executable file not found in $PATH")
}

fn check_program(path: &str) -> nix::Result<()> {
    let status = nix::sys::stat::stat(path)?;
    if status.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(nix::Error::EISDIR);
    }
    let (now, mode) = (
        nix::fcntl::AtFlags::AT_EACCESS,
        nix::unistd::AccessFlags::X_OK,
    );
    nix::unistd::faccessat(None, path, mode, now)
}

fn execute(
    mut control: UnixStream,
    process: &Process,
    program: &str,
    prepared: Prepared,
) -> Result<()> {
    let texts = |all: &[String]| -> Result<Vec<CString>> {
        let texts = all.iter().map(|text| CString::new(text.as_bytes()));
        texts
            .collect::<Result<_, _>>()
            .context("a zero byte in an argument or variable")
    };
    let (args, env) = (texts(&process.args)?, texts(&prepared.env)?);
    let path = CString::new(program)?;
    control.write_all(&[READY])?;
    if control.read(&mut [0])? == 0 {
        // The shim has given up.
        sys::exit_now(1);
    }
    if process.init {
        init::supervise(process)?;
    }
    let Err(error) = nix::unistd::execve(&path, &args, &env);
    bail!("exec {program}: {}", error.desc().to_lowercase())
}

fn is_null(fd: RawFd) -> bool {
    let stat = nix::sys::stat::fstat(fd);
    stat.is_ok_and(|s| {
        s.st_mode & libc::S_IFMT == libc::S_IFCHR && s.st_rdev == libc::makedev(1, 3)
    })
}

/// The host's `/dev/null` gives way to the container's own: who has a file open may change its mode.
fn own_null() -> Result<()> {
    for number in (0..3).filter(|number| is_null(*number)) {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null");
        match null {
            Ok(null) if is_null(null.as_raw_fd()) => sys::duplicate_to(null.as_fd(), number)?,
            // The container has put something else there.
            _ => {
                let (empty, _) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                sys::duplicate_to(empty.as_fd(), number)?;
            }
        }
    }
    Ok(())
}

/// Gives the standard descriptors to the user, so that `/dev/stdout` can be opened.
pub fn give_stdio(uid: u32) {
    for fd in (0..3).filter(|fd| !is_null(*fd)) {
        nix::unistd::fchown(fd, Some(uid.into()), None).ok();
    }
}
