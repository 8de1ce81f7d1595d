//! Commands, uploads, sockets, terminals, and servers that die in the middle.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use windlass_ssh::{
    Command, Error, FirstUse, PtyRequest, Session, ShellRequest, ShellStreams, Upload, WindowSize,
};

use crate::harness::{Sshd, descendants, kill, send};

fn sh(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

#[tokio::test]
async fn exit_codes_output_and_input() {
    let server = Sshd::start();
    let session = server.session().await;
    let output = session
        .exec(&sh("echo out; echo err >&2; exit 7"))
        .await
        .unwrap();
    assert_eq!(
        (
            output.status,
            output.stdout_text().as_str(),
            output.stderr_text().as_str()
        ),
        (7, "out\n", "err")
    );
    assert_eq!(
        session.exec(&sh("kill -TERM $$")).await.unwrap().status,
        143
    );
    assert_eq!(
        session
            .exec(&Command::new(["no-such-program"]))
            .await
            .unwrap()
            .status,
        127
    );
    let error = session
        .run(&sh("echo because >&2; exit 3"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("because"), "{error}");
    let output = session
        .exec_with_input(&Command::new(["cat"]), &b"hello"[..])
        .await
        .unwrap();
    assert_eq!(output.stdout, b"hello");
    // A command that does not read all of its input is not stuck, and does not get stuck.
    let output = session
        .exec_with_input(&sh("head -c 1 >/dev/null; exit 5"), tokio::io::repeat(1))
        .await
        .unwrap();
    assert_eq!(output.status, 5);
    let endless = session.exec(&Command::new(["yes"])).await;
    assert!(
        matches!(endless, Err(Error::TooMuchOutput { .. })),
        "{endless:?}"
    );
    let slow = sh("sleep 60").time_limit(Duration::from_millis(300));
    assert!(matches!(
        session.exec(&slow).await,
        Err(Error::TooLong { .. })
    ));
}

#[tokio::test]
async fn odd_arguments_arrive_as_they_are() {
    let server = Sshd::start();
    let session = server.session().await;
    let odd = [
        "", " ", "'", "\"", "$HOME", "`id`", "a\nb", "\\", "é✓", "*", "-n", "!x", "#", "~", "a=b",
    ];
    let mut arguments = vec!["printf", "%s\\0"];
    arguments.extend(odd);
    let output = session.exec(&Command::new(arguments)).await.unwrap();
    let mut want = odd.join("\0").into_bytes();
    want.push(0);
    assert_eq!(output.stdout, want);
}

#[tokio::test]
async fn fifty_megabytes_arrive_whole_and_at_once() {
    let server = Sshd::start();
    let session = server.session().await;
    let content: Vec<u8> = (0..50u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let digest = hex::encode(Sha256::digest(&content));
    let path = server.folder.path().join("deep/er/file");
    let upload = Upload::new(path.to_str().unwrap(), 0o750).sha256(&digest);
    let begin = Instant::now();
    let uploaded = session.upload(content.as_slice(), &upload).await.unwrap();
    println!("50 MB in {:?}", begin.elapsed());
    assert_eq!(uploaded.bytes_sent, 50 << 20);
    assert!(uploaded.verified);
    assert_eq!(
        hex::encode(Sha256::digest(fs_err::read(&path).unwrap())),
        digest
    );
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs_err::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o750);

    let wrong = session.upload(&b"other"[..], &upload).await.unwrap_err();
    assert!(wrong.to_string().contains("digest"), "{wrong}");
    assert_eq!(
        fs_err::metadata(&path).unwrap().len(),
        50 << 20,
        "the old file is untouched"
    );
    let left: Vec<_> = fs_err::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left over: {left:?}");
}

#[tokio::test]
async fn a_unix_socket_answers_over_the_session_and_after_it_died() {
    let server = Sshd::start();
    let session = server.session().await;
    let path = server.folder.path().join("echo.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let socket = session.unix_socket(path.to_str().unwrap());
    let ask = async || {
        let mut stream = socket.dial().await?;
        stream.write_all(b"ping").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    assert_eq!(ask().await.unwrap(), "ping");

    // The stream of a lost connection ends with an error, never with an end of file; the next dial connects again.
    let mut stream = socket.dial().await.unwrap();
    for pid in server.connections() {
        descendants(pid).into_iter().chain([pid]).for_each(kill);
    }
    let error = stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(ask().await.unwrap(), "ping");
    assert!(session.unix_socket("/nowhere.sock").dial().await.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_forward_is_bridged() {
    let server = Sshd::start_with("AllowStreamLocalForwarding no", "");
    let session = server.session().await;
    let path = server.folder.path().join("some.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let path = path.to_str().unwrap();
    let socket = session.unix_socket_with(path, Command::new(["cat"]));
    let mut stream = socket.dial().await.unwrap();
    stream.write_all(b"through cat").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "through cat");

    let failing = session.unix_socket_with(path, sh("echo no engine >&2; exit 1"));
    let mut stream = failing.dial().await.unwrap();
    let error = stream.read(&mut [0; 8]).await.unwrap_err().to_string();
    assert!(error.contains("no engine"), "{error}");
    let absent = session.unix_socket_with("/nowhere.sock", Command::new(["cat"]));
    assert!(absent.dial().await.is_err());
}

#[tokio::test]
async fn a_terminal_resizes_and_the_exit_code_comes_through() {
    let server = Sshd::start();
    let session = server.session().await;
    let (mut typed, stdin) = tokio::io::duplex(1024);
    let (stdout, mut screen) = tokio::io::duplex(1 << 16);
    let (sizes, resizes) = mpsc::channel(4);
    let request = ShellRequest {
        command: Some(vec![
            "sh".into(),
            "-c".into(),
            "stty size; read x; stty size; exit 9".into(),
        ]),
        pty: Some(PtyRequest {
            term: "xterm".into(),
            size: WindowSize {
                columns: 91,
                rows: 23,
            },
        }),
    };
    let streams = ShellStreams {
        stdin,
        stdout,
        stderr: tokio::io::sink(),
        resizes,
    };
    let user = async {
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains("23 91") {
            let count = screen.read(&mut buffer).await.unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        sizes
            .send(WindowSize {
                columns: 100,
                rows: 40,
            })
            .await
            .unwrap();
        typed.write_all(b"\n").await.unwrap();
        screen.read_to_string(&mut seen).await.unwrap();
        seen
    };
    let (status, seen) = tokio::join!(session.shell(&request, streams), user);
    assert_eq!(status.unwrap(), 9);
    assert!(seen.contains("40 100"), "{seen}");
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_up_the_others() {
    let server = Sshd::start();
    let session = server.session().await;
    let mut slow = session
        .spawn(&sh("head -c 8000000 /dev/zero; echo done >&2"))
        .await
        .unwrap();
    let mut said = String::new();
    slow.stderr.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "done\n", "all of it is queued");
    assert_eq!(
        session.run(&Command::new(["echo", "quick"])).await.unwrap(),
        "quick\n"
    );
    let mut all = Vec::new();
    slow.stdout.read_to_end(&mut all).await.unwrap();
    assert_eq!(all.len(), 8_000_000);
    assert_eq!(slow.end.wait().await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_a_clear_error() {
    let mut server = Sshd::start();
    let session = server.session().await;
    let command = sh("sleep 60");
    let working = session.exec(&command);
    let dying = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.stop();
    };
    let begin = Instant::now();
    let (outcome, ()) = tokio::join!(working, dying);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(!error.nothing_sent());
    assert!(begin.elapsed() < Duration::from_secs(5));
    let error = session.exec(&sh("true")).await.unwrap_err();
    assert!(error.nothing_sent(), "{error}");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_in_bounded_time() {
    let server = Sshd::start();
    let mut destination = server.destination();
    destination.alive_interval = Duration::from_millis(300);
    let session = Session::connect(&destination, &|_: &FirstUse| {})
        .await
        .unwrap();
    let command = sh("sleep 60");
    let working = session.exec(&command);
    let freezing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for pid in server.connections() {
            send(pid, Signal::SIGSTOP);
        }
    };
    let begin = Instant::now();
    let (outcome, ()) = tokio::join!(working, freezing);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    // The next request gets a connection of its own.
    assert!(session.exec(&sh("true")).await.unwrap().success());
}
