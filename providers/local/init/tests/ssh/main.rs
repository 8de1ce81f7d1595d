//! The SSH server, driven by the real OpenSSH client over loopback.

mod server;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use server::{Scene, finished, until};

#[test]
fn exit_codes_streams_and_signals() {
    let scene = Scene::new();
    let done = scene.run(&[], "echo out; echo err >&2; exit 7", b"");
    assert_eq!(
        (done.out.as_str(), done.err.as_str(), done.code),
        ("out\n", "err\n", Some(7))
    );
    let killed = scene.run(&["-v"], "kill -TERM $$", b"");
    assert_eq!(killed.code, Some(255), "as OpenSSH shows a signal");
    assert!(killed.err.contains("exit-signal"), "{}", killed.err);
    assert_eq!(scene.run(&[], "nonesuch-program", b"").code, Some(127));
    let told = scene.run(
        &["-o", "SetEnv=LANG=C.UTF-8 SECRET=x"],
        "echo $0 $USER $HOME $LANG:$SECRET; tty",
        b"",
    );
    assert_eq!(told.out, "/bin/sh root /root C.UTF-8:\nnot a tty\n");
    let quotes = scene.run(&[], r#"printf '%s\n' "a  b" 'c"d' "$(echo e)""#, b"");
    assert_eq!(quotes.out, "a  b\nc\"d\ne\n");
}

#[test]
fn only_the_right_key_logs_in_and_only_as_root() {
    let scene = Scene::new();
    assert_eq!(scene.run(&[], "true", b"").code, Some(0));
    for wrong in [&["-i", "stranger"][..], &["-l", "nobody"][..]] {
        let refused = scene.run(wrong, "echo in", b"");
        assert_eq!((refused.out.as_str(), refused.code), ("", Some(255)));
        assert!(
            refused.err.contains("Permission denied (publickey)"),
            "{}",
            refused.err
        );
    }
    scene.authorize("");
    assert_eq!(
        scene.run(&[], "true", b"").code,
        Some(255),
        "the file is read at each login"
    );
}

#[test]
fn big_input_and_output_arrive_whole() {
    let scene = Scene::new();
    let data: Vec<u8> = (0..50_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let path = scene.path("upload");
    let upload = format!("cat > {}", path.display());
    assert_eq!(scene.run(&[], &upload, &data).code, Some(0));
    assert!(std::fs::read(&path).unwrap() == data, "the upload differs");
    let echoed = scene.run_bytes(&[], "cat", &data);
    assert!(echoed.0 == data, "the echo differs");
    // The reader ends early: the rest is dropped, and the command's code arrives.
    assert_eq!(
        scene
            .run(&[], "head -c 5 >/dev/null; exit 4", &data[..5_000_000])
            .code,
        Some(4)
    );
}

#[test]
fn a_stuck_reader_holds_up_nobody() {
    let scene = Scene::new();
    let control = scene.path("control");
    let control = ["-S", control.to_str().unwrap()];
    let mut master = scene
        .ssh(&[&control[..], &["-M", "-N"]].concat(), None)
        .spawn()
        .unwrap();
    until("the shared connection", || scene.path("control").exists());
    // One channel whose process never reads, one whose client never reads.
    let mut writer = scene
        .ssh(&control, Some("sleep 20"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = writer.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let chunk = vec![0; 1 << 20];
        for _ in 0..16 {
            if input.write_all(&chunk).is_err() {
                break;
            }
        }
        input
    });
    let mut reader = scene
        .ssh(&control, Some("cat /dev/zero"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    for _ in 0..5 {
        let began = Instant::now();
        let done = scene.run(&control, "cat", b"alive");
        assert_eq!(done.out, "alive", "{}", done.err);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
    for child in [&mut writer, &mut reader, &mut master] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    drop(feeding.join().unwrap());
}

#[test]
fn terminals_have_a_size_and_follow_it() {
    let scene = Scene::new();
    let done = scene.run(
        &["-tt"],
        "tty; echo $TERM; test -t 0 -a -t 1 -a -t 2; exit 3",
        b"",
    );
    assert_eq!(done.code, Some(3), "{}", done.out);
    assert!(done.out.starts_with("/dev/pts/"), "{}", done.out);
    let marker = scene.path("marker");
    let remote = format!(
        "stty size; touch {}; until [ \"$(stty size)\" = \"50 120\" ]; do sleep 0.05; done; echo resized",
        marker.display()
    );
    std::fs::write(scene.path("remote"), remote).unwrap();
    let local = format!(
        "stty rows 40 cols 100; (until test -e {0}; do sleep 0.05; done; stty rows 50 cols 120 < /dev/tty) & {1} -tt m \"$(cat {2})\"",
        marker.display(),
        scene.command_line(),
        scene.path("remote").display(),
    );
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &local, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let out = finished(script.spawn().unwrap(), b"");
    let text = String::from_utf8_lossy(&out.0).into_owned();
    assert!(
        text.contains("40 100") && text.contains("resized"),
        "{text}"
    );
}

#[test]
fn a_lost_client_ends_its_terminal() {
    let scene = Scene::new();
    let file = scene.path("pid");
    let command = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        file.display()
    );
    let mut client = scene
        .ssh(&["-tt"], Some(&command))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    until("the command", || file.exists());
    let pid = std::fs::read_to_string(&file).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    client.kill().unwrap();
    client.wait().unwrap();
    until("the end of the command", || !process.exists());
}

#[test]
fn sockets_are_forwarded() {
    let scene = Scene::new();
    let (remote, local) = (scene.path("remote.sock"), scene.path("local.sock"));
    let listener = UnixListener::bind(&remote).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut text = Vec::new();
                // Answers after the end of the input only: half-closed streams must work.
                stream.read_to_end(&mut text).unwrap();
                text.reverse();
                stream.write_all(&text).unwrap();
            });
        }
    });
    let forward = format!("{}:{}", local.display(), remote.display());
    let mut tunnel = scene.ssh(&["-N", "-L", &forward], None).spawn().unwrap();
    until("the tunnel", || local.exists());
    let streams: Vec<_> = (0..20u8)
        .map(|n| {
            let mut stream = UnixStream::connect(&local).unwrap();
            stream.write_all(&vec![n; 100_000]).unwrap();
            stream.write_all(b"abc").unwrap();
            stream
        })
        .collect();
    for (n, mut stream) in streams.into_iter().enumerate() {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 100_003);
        assert!(answer.starts_with(b"cba") && answer.ends_with(&[n as u8]));
    }
    tunnel.kill().unwrap();
    tunnel.wait().unwrap();
    // direct-tcpip, as ProxyJump uses it: the server's own banner through itself.
    let through = scene.run(
        &["-W", &format!("127.0.0.1:{}", scene.port)],
        "",
        b"SSH-2.0-test\r\n",
    );
    assert!(
        through.out.starts_with("SSH-2.0-windlass"),
        "{} {}",
        through.out,
        through.err
    );
    let closed = scene.run(&["-W", "127.0.0.1:1"], "", b"");
    assert_ne!(closed.code, Some(0));
    assert_eq!(
        scene.run(&["-s"], "sftp", b"").code,
        Some(255),
        "no subsystem"
    );
}

#[test]
fn detached_programs_outlive_their_starter() {
    let scene = Scene::new();
    let done = scene
        .init()
        .args(["detach", "/bin/sleep", "1000"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let pid: i32 = String::from_utf8(done.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let columns: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(columns[3], pid.to_string(), "it leads a session of its own");
    let failed = scene.init().args(["detach", "/nowhere"]).output().unwrap();
    assert!(!failed.status.success() && failed.stdout.is_empty());
}
