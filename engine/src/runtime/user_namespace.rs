//! Making and entering user namespaces, and doing the engine's work in files as a container's root.
//!
//! A namespace of any kind belongs to the user namespace that it is made in: a short-lived process makes them there, and what is
//! taken from it are descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid};

use super::sys;
use crate::userns::Maps;

/// A user namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, with nothing in it.
    pub fn new(maps: &Maps) -> Result<Self> {
        Ok(Self(make(Owner::New(maps), &[])?.user))
    }

    /// An open one.
    pub fn opened(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// This process enters it and is its root.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWUSER).context("enter the user namespace")?;
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        nix::unistd::setgroups(&[]).context("give up the host's groups")?;
        nix::unistd::setresgid(group, group, group).context("become the namespace's root")?;
        nix::unistd::setresuid(user, user, user).context("become the namespace's root")?;
        Ok(())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whose the namespaces are to be.
#[derive(Debug)]
pub enum Owner<'a> {
    /// A new user namespace's.
    New(&'a Maps),
    /// This one's.
    There(OwnedFd),
}

/// Namespaces, and the user namespace that owns them.
#[derive(Debug)]
pub struct Made {
    /// The owner.
    pub user: OwnedFd,
    /// As they were asked for.
    pub others: Vec<(OwnedFd, CloneFlags)>,
}

/// Stops the process when nothing more is wanted of it.
struct Helper(Pid);

impl Drop for Helper {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGKILL).ok();
        waitpid(self.0, None).ok();
    }
}

/// Makes namespaces (`net`, `ipc`, `uts`).
pub fn make(owner: Owner<'_>, kinds: &[(&str, CloneFlags)]) -> Result<Made> {
    let (ours, theirs) = UnixStream::pair()?;
    let flags = kinds
        .iter()
        .fold(CloneFlags::empty(), |all, (_, kind)| all | *kind);
    let there = match &owner {
        Owner::New(_) => None,
        Owner::There(fd) => Some(fd),
    };
    let Some(pid) = sys::fork()? else {
        // Between a fork of a process with threads and its end there are system calls alone.
        let code = work(&theirs, there, flags).err().map_or(0, |e| e as i32);
        sys::exit_now(code)
    };
    let helper = Helper(pid);
    drop(theirs);
    let step = |what: &str| -> Result<()> {
        let mut byte = [0];
        match nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(&ours), &mut byte)? {
            1 if byte[0] == 0 => Ok(()),
            1 => bail!(
                "{what}: {}",
                std::io::Error::from_raw_os_error(byte[0].into())
            ),
            _ => bail!("{what}: the helping process was stopped"),
        }
    };
    ours.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
    step("make a user namespace")?;
    if let Owner::New(maps) = &owner {
        for (kind, ranges) in [("uid", &maps.users), ("gid", &maps.groups)] {
            fs::write(format!("/proc/{}/{kind}_map", helper.0), Maps::text(ranges))?;
        }
    }
    nix::unistd::write(&ours, &[0])?;
    step("make namespaces")?;
    let open = |kind: &str| -> Result<OwnedFd> {
        let file = fs::File::open(format!("/proc/{}/ns/{kind}", helper.0))?;
        Ok(file.into_parts().0.into())
    };
    Ok(Made {
        user: open("user")?,
        others: kinds
            .iter()
            .map(|(kind, flag)| Ok((open(kind)?, *flag)))
            .collect::<Result<_>>()?,
    })
}

/// The helper's part: no memory is asked for in it.
fn work(link: &UnixStream, there: Option<&OwnedFd>, flags: CloneFlags) -> nix::Result<()> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(link);
    let tell = |done: nix::Result<()>| -> nix::Result<()> {
        let code = done.err().map_or(0, |e| e as i32 as u8);
        nix::unistd::write(link, &[code])?;
        done
    };
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).ok();
    tell(match there {
        Some(user) => setns(user, CloneFlags::CLONE_NEWUSER),
        None => unshare(CloneFlags::CLONE_NEWUSER),
    })?;
    nix::unistd::read(fd, &mut [0])?;
    tell(unshare(flags))?;
    // Until it is stopped.
    nix::unistd::read(fd, &mut [0])?;
    Ok(())
}

/// This thread makes files as this user and group, while it may do all that it could before.
#[derive(Debug)]
pub struct Assumed(());

impl Assumed {
    /// From now on.
    pub fn new((user, group): (u32, u32)) -> std::io::Result<Self> {
        nix::unistd::setfsgid(Gid::from_raw(group));
        nix::unistd::setfsuid(Uid::from_raw(user));
        let this = Self(());
        // The kernel takes away what is about files.
        sys::raise_capabilities()?;
        Ok(this)
    }
}

impl Drop for Assumed {
    fn drop(&mut self) {
        nix::unistd::setfsuid(Uid::from_raw(0));
        nix::unistd::setfsgid(Gid::from_raw(0));
    }
}
