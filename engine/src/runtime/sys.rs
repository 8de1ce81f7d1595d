//! The system calls that no safe library offers, one thin function each.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::unistd::Pid;

fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(value)
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into new namespaces and, on v2, into a control group. `None` is the child.
pub fn clone_into(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Pid>> {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork; the shim has one thread, so the child's memory is consistent.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    Ok((pid > 0).then(|| Pid::from_raw(pid as i32)))
}

/// A plain fork, which works below a filter that refuses `clone3` too. `None` is the child: where this process has threads it makes
/// system calls alone, and ends by [`exit_now`].
pub fn fork() -> Result<Option<Pid>> {
    // SAFETY: the shim has one thread, so the child's memory is consistent; elsewhere the child looks at no memory that others change.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok((pid > 0).then(|| Pid::from_raw(pid as i32)))
}

/// Closes every descriptor from `first` on; for a process that uses none of them again and ends by [`exit_now`].
pub fn close_from(first: i32) {
    close_range(first, i32::MAX);
}

/// `prctl` with numbers.
pub fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<libc::c_int> {
    // SAFETY: callers pass options that take numbers only, so the kernel touches no memory of ours.
    let done = unsafe { libc::prctl(option, value, 0, 0, 0) };
    check(libc::c_long::from(done)).map(|v| v as libc::c_int)
}

/// Sets permitted and effective capabilities; none are inheritable.
pub fn set_capabilities(set: u64) -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let half = |bits: u32| Data {
        effective: bits,
        permitted: bits,
        inheritable: 0,
    };
    let data = [half(set as u32), half((set >> 32) as u32)];
    // SAFETY: version 3 of the call reads one header and two data structures.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Makes every permitted capability of this thread effective.
pub fn raise_capabilities() -> Result<()> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let permitted = status.lines().find_map(|l| l.strip_prefix("CapPrm:"));
    let permitted = permitted.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    set_capabilities(permitted.ok_or_else(|| Error::other("no capabilities are known"))?)
}

/// The user namespace that owns a namespace.
pub fn owner_of(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the call takes nothing and answers a descriptor that is ours.
    unsafe {
        let fd = check(libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// A limit of this process, soft and hard.
pub fn limit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one structure.
    let done = unsafe { libc::getrlimit(resource as _, &raw mut limit) };
    check(libc::c_long::from(done))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets a limit of this process.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads one structure.
    let done = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    check(libc::c_long::from(done)).map(drop)
}

#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a mount and everything below it read-only.
pub fn make_read_only(mount: BorrowedFd<'_>, recursive: Recursive) -> Result<()> {
    let attributes = Attributes {
        set: 1,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    set_attributes(mount, recursive, &attributes)
}

/// Lets a detached mount show its files' owners as the user namespace's own (`MOUNT_ATTR_IDMAP`, Linux 5.12).
pub fn shift_owners(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attributes {
        set: 0x0010_0000,
        clear: 0,
        propagation: 0,
        user_namespace: user_namespace.as_raw_fd() as u64,
    };
    set_attributes(mount, Recursive::No, &attributes)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: Recursive,
    attributes: &Attributes,
) -> Result<()> {
    let flags = match recursive {
        Recursive::Yes => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
        Recursive::No => libc::AT_EMPTY_PATH,
    };
    // SAFETY: the kernel reads an empty text and `size` bytes of the structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// Whether what lies below is meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursive {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// A copy of the mount of this file that is in no tree.
pub fn detached_mount(path: &std::ffi::CStr) -> Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_long = 1;
    let flags = OPEN_TREE_CLONE | libc::c_long::from(libc::O_CLOEXEC);
    // SAFETY: the kernel reads the path; the descriptor it answers is ours.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Puts a detached mount over `target`.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    // By descriptors alone: MOVE_MOUNT_F_EMPTY_PATH and MOVE_MOUNT_T_EMPTY_PATH.
    const FLAGS: libc::c_long = 0x4 | 0x40;
    // SAFETY: the kernel reads two empty texts.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FLAGS,
        )
    })
    .map(drop)
}

/// Closes every descriptor but the standard ones and `kept`; for a process that uses none of the others again and ends by `execve` or
/// [`exit_now`].
pub fn close_all_but(mut kept: [i32; 2]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        close_range(first, fd - 1);
        first = first.max(fd + 1);
    }
    close_range(first, i32::MAX);
}

fn close_range(first: i32, last: i32) {
    /// Kernels before 5.9 do not close ranges; a shim has far fewer descriptors than that.
    const MOST: i32 = 1024;
    if first > last {
        return;
    }
    // SAFETY: see the callers: no owner of a closed descriptor is used or dropped any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) < 0 {
            for fd in first..=last.min(MOST) {
                libc::close(fd);
            }
        }
    }
}

/// A keyring of its own, so that the host's keys stay the host's. Kernels without keyrings have nothing to hide.
pub fn new_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name makes an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0) };
}

/// Sets a terminal's size.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads one structure.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(libc::c_long::from(done)).map(drop)
}

/// The other end of a terminal's controlling end, and its number.
pub fn terminal_peer(controller: BorrowedFd<'_>) -> Result<(OwnedFd, u32)> {
    let (unlock, mut number): (libc::c_int, libc::c_uint) = (0, 0);
    let fd = controller.as_raw_fd();
    // SAFETY: the kernel reads `unlock`, writes `number`, and answers a descriptor that is ours.
    unsafe {
        check(libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlock).into())?;
        check(libc::ioctl(fd, libc::TIOCGPTN, &raw mut number).into())?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let peer = check(libc::ioctl(fd, libc::TIOCGPTPEER, flags).into())?;
        Ok((OwnedFd::from_raw_fd(peer as i32), number))
    }
}

/// Makes a terminal the session's own.
pub fn control_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the call takes a number.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(libc::c_long::from(done)).map(drop)
}

/// Makes `to` (0, 1 or 2) another name of `from`, kept by `execve`.
pub fn duplicate_to(from: BorrowedFd<'_>, to: i32) -> Result<()> {
    nix::unistd::dup2(from.as_raw_fd(), to)?;
    Ok(())
}

/// Brings the namespace's loopback up.
pub fn loopback_up() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one structure.
    let done = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    check(libc::c_long::from(done)).map(drop)
}

/// Signals as a fresh program expects them: none blocked, none ignored.
pub fn default_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).ok();
    for number in 1..=64 {
        // SAFETY: the default action is no code of ours. SIGKILL, SIGSTOP and the library's own refuse, which is right.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Ends at once, without the parent's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: this ends the process.
    unsafe { libc::_exit(code) }
}

/// Takes a descriptor that this process was started with.
pub fn inherited(fd: i32) -> Result<OwnedFd> {
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the copy has just been made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Sends one byte with a descriptor.
pub fn send_descriptor(socket: BorrowedFd<'_>, byte: u8, fd: BorrowedFd<'_>) -> Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds = [fd.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[std::io::IoSlice::new(&[byte])],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives bytes, and a descriptor when one comes with them. 0 bytes: the other end is closed.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut slices = [std::io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// Any signal, real-time ones too.
pub fn send_signal(to: Pid, number: i32) -> Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::kill(to.as_raw(), number) }.into()).map(drop)
}

/// Gives back the pages of the program's file that setting up has touched; what is needed again comes from the page cache.
pub fn forget_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(mode), Some(offset)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        // Code, and the file's beginning: neither is ever written, not by relocation either.
        let is_pristine = mode == "r-xp" || (mode == "r--p" && offset == "00000000");
        let bounds = range.split_once('-').map(|(from, to)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or_default();
            (number(from), number(to))
        });
        if let Some((from, to)) = bounds.filter(|_| is_pristine && line.contains('/')) {
            let start = std::ptr::without_provenance_mut(from);
            // SAFETY: the range is a private mapping of a file without changes, so reading it again gives the same bytes.
            unsafe { libc::madvise(start, to.saturating_sub(from), libc::MADV_DONTNEED) };
        }
    }
}

/// Shows other arguments of this process than it was started with, as far as there is room; what they told goes away.
pub fn show_arguments(words: &[String]) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything; the 48th and 49th fields of all.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = fields.split_whitespace().skip(45);
    let mut address = || fields.next()?.parse::<usize>().ok();
    let (Some(start), Some(end)) = (address(), address()) else {
        return;
    };
    let Some(room) = end.checked_sub(start).filter(|_| start > 0) else {
        return;
    };
    let mut text = words.join("\0").into_bytes();
    text.resize(room, 0);
    if let Some(last) = text.last_mut() {
        *last = 0;
    }
    // SAFETY: the kernel says that this process' arguments lie at `start..end`; they are writable, `text` has their length, and this
    // one thread, after a fork, looks at them no more.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, room);
    }
}
