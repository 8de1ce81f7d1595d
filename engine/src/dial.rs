//! `windlassd dial SOCKET`: joins stdin and stdout with a unix socket, for a login user who reaches root by sudo only.
//!
//! Deliberately absent: any understanding of what is said.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Returns when the socket's side has ended, or nobody takes what it says any more.
pub fn join(socket: &Path) -> io::Result<()> {
    // Not `Stdout`: that keeps back what has no line end yet.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    join_files(socket, input, output)
}

fn join_files(socket: &Path, mut input: File, mut output: File) -> io::Result<()> {
    let connect =
        |e: io::Error| io::Error::new(e.kind(), format!("connect to {}: {e}", socket.display()));
    let mut stream = UnixStream::connect(socket).map_err(connect)?;
    let mut forth = stream.try_clone()?;
    std::thread::spawn(move || {
        let _ = pass_on(&mut input, &mut forth);
        // Its end of file is ours; the answer goes on.
        let _ = forth.shutdown(Shutdown::Write);
    });
    let taker = output.try_clone()?;
    let quiet = stream.try_clone()?;
    std::thread::spawn(move || {
        // A stream that says nothing would never notice that its reader has gone.
        let mut gone = [PollFd::new(taker.as_fd(), PollFlags::empty())];
        if poll(&mut gone, PollTimeout::NONE).is_ok() {
            let _ = quiet.shutdown(Shutdown::Both);
        }
    });
    match pass_on(&mut stream, &mut output) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    }
}

/// Not `io::copy`: that splices, and the kernel keeps a pipe locked against its reader while it waits for more from the socket.
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn pair() -> (UnixStream, File) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, File::from(OwnedFd::from(theirs)))
    }

    #[test]
    fn both_directions_and_half_close() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (mut to, input) = pair();
        let (mut from, output) = pair();
        let bridge = std::thread::spawn(move || join_files(&path, input, output));
        let (mut peer, _) = listener.accept().unwrap();
        to.write_all(b"question").unwrap();
        to.shutdown(Shutdown::Write).unwrap();
        let mut asked = String::new();
        peer.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "question");
        peer.write_all(b"answer").unwrap();
        drop(peer);
        let mut answer = [0; 6];
        from.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        bridge.join().unwrap().unwrap();
    }

    #[test]
    fn a_reader_that_has_gone_ends_it_though_nothing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (_to, input) = pair();
        let (from, output) = pair();
        let bridge = std::thread::spawn(move || join_files(&path, input, output));
        let (mut peer, _) = listener.accept().unwrap();
        drop(from);
        assert_eq!(
            peer.read(&mut [0; 1]).unwrap(),
            0,
            "the engine sees its end"
        );
        bridge.join().unwrap().unwrap();
    }

    #[test]
    fn an_answer_gets_through_pipes_while_the_stream_stays_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (_to, input) = pair();
        let (mut from, output) = std::io::pipe().unwrap();
        let output = File::from(OwnedFd::from(output));
        std::thread::spawn(move || join_files(&path, input, output));
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"answer").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let (done, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut answer = [0; 6];
            from.read_exact(&mut answer).unwrap();
            done.send(answer).unwrap();
        });
        let answer = waits.recv_timeout(std::time::Duration::from_secs(5));
        assert_eq!(&answer.unwrap(), b"answer");
        drop(peer);
    }

    #[test]
    fn no_engine_is_an_error_that_names_the_socket() {
        let (_to, input) = pair();
        let (_from, output) = pair();
        let error = join_files(Path::new("/nowhere.sock"), input, output).unwrap_err();
        assert!(error.to_string().contains("/nowhere.sock"), "{error}");
    }
}
