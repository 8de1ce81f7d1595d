//! Pseudo-terminals. Deliberately absent: the client's terminal modes; the kernel's defaults are what people use.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::Winsize;
use tokio::io::unix::AsyncFd;

/// Columns, rows, and pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub columns: u32,
    pub rows: u32,
    pub pixels: (u32, u32),
}

impl From<Size> for Winsize {
    fn from(size: Size) -> Self {
        let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        Winsize {
            ws_row: short(size.rows),
            ws_col: short(size.columns),
            ws_xpixel: short(size.pixels.0),
            ws_ypixel: short(size.pixels.1),
        }
    }
}

/// The side that we hold.
#[derive(Clone, Debug)]
pub struct Master(Arc<AsyncFd<OwnedFd>>);

/// Makes a terminal; the second is the side for the processes.
pub fn open(size: Size) -> io::Result<(Master, OwnedFd)> {
    let pair = nix::pty::openpty(Some(&size.into()), None)?;
    for fd in [&pair.master, &pair.slave] {
        fcntl(fd.as_raw_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    fcntl(
        pair.master.as_raw_fd(),
        FcntlArg::F_SETFL(OFlag::O_NONBLOCK),
    )?;
    // SAFETY: an owned descriptor is the same open file until it is dropped, which is after its registration.
    let master = unsafe { AsyncFd::register(pair.master) }?;
    Ok((Master(Arc::new(master)), pair.slave))
}

impl Master {
    /// The next output; 0 when no process has the terminal open any more.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.as_raw_fd(), buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return done,
                Err(_) => {}
            }
        }
    }

    /// Types `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => bytes = &bytes[written?.min(bytes.len())..],
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sets the size; the processes get a SIGWINCH.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size: Winsize = size.into();
        // SAFETY: TIOCSWINSZ reads a winsize, which lives until the call returns.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Between fork and exec: a session of its own, with signals as a fresh program expects them, whatever our starter ignored.
pub fn begin_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the default action is no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(())
}

/// Between fork and exec: a session of its own whose terminal is standard input.
pub fn take_control() -> io::Result<()> {
    begin_session()?;
    // SAFETY: a system call on standard input, which is the terminal's side for processes here.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
