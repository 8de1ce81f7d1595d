//! What containers go through: the engine's death, their own ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::SERVE;
use crate::bench::{Bench, get, with_engine};
use crate::streams::{ask, events, read_until, upgrade};

#[test]
fn restart_policies() {
    with_engine(|b| {
        b.ok(&[
            "run",
            "-d",
            "--name",
            "fails",
            "--restart",
            "on-failure:2",
            "box",
            "false",
        ]);
        b.until("it has given up", |b| {
            b.inspect(
                "fails",
                "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}",
            ) == "exited 2 1"
        });
        b.ok(&[
            "run",
            "-d",
            "--name",
            "fine",
            "--restart",
            "on-failure",
            "box",
            "true",
        ]);
        b.until("it is done", |b| {
            b.inspect("fine", "{{.State.Status}}") == "exited"
        });
        assert_eq!(b.inspect("fine", "{{.RestartCount}}"), "0");
        b.ok(&[
            "run",
            "-d",
            "--name",
            "always",
            "--restart",
            "always",
            "box",
            "sleep",
            "100",
        ]);
        let pid: i32 = b.inspect("always", "{{.State.Pid}}").parse().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        b.until("it runs again", |b| {
            let state = b.inspect(
                "always",
                "{{.State.Status}} {{.RestartCount}} {{.State.Pid}}",
            );
            state.starts_with("running 1 ") && !state.ends_with(&format!(" {pid}"))
        });
        b.ok(&["stop", "-t", "0", "always"]);
        assert_eq!(
            b.inspect("always", "{{.State.Status}}"),
            "exited",
            "stopped by hand"
        );
    });
}

#[test]
fn containers_outlive_the_engine() {
    with_engine(|b| {
        b.ok(&["network", "create", "back"]);
        b.ok(&[
            "run", "-d", "--name", "web", "-p", "8001:80", "-e", "NAME=web", "box", "sh", "-c",
            SERVE,
        ]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "counts",
            "--network",
            "back",
            "box",
            "sh",
            "-c",
            "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done",
        ]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "ends",
            "box",
            "sh",
            "-c",
            "while [ ! -e /end ]; do sleep 0.05; done; exit 7",
        ]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "always",
            "box",
            "sleep",
            "100",
        ]);
        b.until("web answers", |_| get(8001).as_deref() == Some("web"));
        let pid = b.inspect("web", "{{.State.Pid}}");
        let mut open = TcpStream::connect("127.0.0.1:8001").unwrap();
        let root = |pid: String| format!("/proc/{pid}/root");
        let ends = root(b.inspect("ends", "{{.State.Pid}}"));
        let again: i32 = b.inspect("again", "{{.State.Pid}}").parse().unwrap();

        b.kill_engine();
        assert_eq!(get(8001).as_deref(), Some("web"), "without an engine");
        std::fs::write(format!("{ends}/end"), "").unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(again),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        b.until("it has ended", |_| !std::path::Path::new(&ends).exists());
        b.start();

        assert_eq!(
            b.inspect("web", "{{.State.Status}} {{.State.Pid}}"),
            format!("running {pid}")
        );
        open.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut reply = String::new();
        open.read_to_string(&mut reply).unwrap();
        assert!(reply.ends_with("web\n"), "the open connection: {reply}");
        b.until("its end is known", |b| {
            b.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}") == "exited 7"
        });
        b.until("its policy was kept", |b| {
            b.inspect("again", "{{.State.Status}}") == "running"
        });
        let so_far = b.ok(&["logs", "counts"]).lines().count();
        b.until("it goes on", |b| {
            b.ok(&["logs", "counts"]).lines().count() > so_far
        });
        let all = b.ok(&["logs", "counts"]);
        for (line, number) in all.lines().zip(1..) {
            assert_eq!(line, number.to_string(), "nothing of its output is lost");
        }
        assert_eq!(b.ok(&["exec", "web", "echo", "hi"]), "hi");
        let (_, words) = b.fails(&["run", "-d", "-p", "8001:80", "box", "true"]);
        assert!(words.contains("port is already allocated"), "{words}");
        let found = b.ok(&[
            "run",
            "--rm",
            "--network",
            "back",
            "box",
            "ping",
            "-c1",
            "counts",
        ]);
        assert!(found.contains("1 packets received"), "{found}");
        b.ok(&["stop", "-t", "0", "web"]);
        assert_eq!(get(8001), None);
        b.ok(&["start", "web"]);
        b.until("web answers again", |_| get(8001).as_deref() == Some("web"));
    });
}

#[test]
fn a_privileged_container_holds_an_engine_of_its_own() {
    with_engine(|b| {
        let program = env!("CARGO_BIN_EXE_windlassd");
        let mount = format!("{program}:/windlassd:ro");
        b.ok(&["volume", "create", "inner"]);
        // The engine of a test build needs the host's libraries.
        let libraries = ["/lib", "/lib64", "/usr/lib"].map(|l| format!("{l}:{l}:ro"));
        let mut arguments = vec![
            "run",
            "-d",
            "--name",
            "machine",
            "--privileged",
            "-p",
            "8001:8001",
            "-v",
            "inner:/var/lib/windlass",
            "-v",
            &mount,
        ];
        for library in libraries
            .iter()
            .filter(|l| std::path::Path::new(l.split(':').next().unwrap()).exists())
        {
            arguments.extend(["-v", library]);
        }
        arguments.extend(["--tmpfs", "/run", "box", "/windlassd"]);
        b.ok(&arguments);
        let pid = b.inspect("machine", "{{.State.Pid}}");
        let host = format!("unix:///proc/{pid}/root/run/windlass/engine.sock");
        let inner = |rest: &[&str]| b.docker(&[&["-H", &host], rest].concat());
        b.until("the inner engine answers", |_| {
            inner(&["version"]).status.success()
        });
        let saved = b.path("box.tar");
        b.ok(&["save", "-o", saved.to_str().unwrap(), "box"]);
        let loaded = inner(&["load", "-i", saved.to_str().unwrap()]);
        assert!(loaded.status.success(), "{loaded:?}");
        let started = inner(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "8001:80",
            "-e",
            "NAME=inner",
            "box",
            "sh",
            "-c",
            SERVE,
        ]);
        assert!(
            started.status.success(),
            "{started:?} {}",
            b.ok(&["logs", "machine"])
        );
        b.until("a container in the container answers", |_| {
            get(8001).as_deref() == Some("inner")
        });
        assert!(!b.ok(&["ps", "--format", "{{.Names}}"]).contains("web"));
        inner(&["rm", "-f", "web"]);
    });
}

#[test]
fn streams_go_on_after_the_engine() {
    with_engine(|b| {
        let script = "i=0; while read word; do i=$((i+1)); echo $i $word; done";
        b.ok(&["run", "-di", "--name", "says", "box", "sh", "-c", script]);
        let wait = "while [ ! -e /end ]; do sleep 0.05; done; exit 3";
        b.ok(&["exec", "-d", "says", "sh", "-c", wait]);
        b.ok(&["exec", "-d", "says", "sh", "-c", "echo up > /up; sleep 300"]);
        let ids = b.inspect("says", "{{json .ExecIDs}}");
        assert_eq!(ids.matches("\",\"").count(), 1, "{ids}");
        let say = |b: &Bench, word: &str| {
            let path = "/containers/says/attach?stream=1&stdin=1&stdout=1";
            let (mut stream, _) = upgrade(b, path, "");
            stream.write_all(format!("{word}\n").as_bytes()).unwrap();
            read_until(&mut stream, word);
        };
        say(b, "before");

        b.kill_engine();
        b.start();
        assert_eq!(b.inspect("says", "{{json .ExecIDs}}"), ids, "they go on");
        b.ok(&["exec", "says", "touch", "/end"]);
        b.until("one has ended", |b| {
            events(b, "says").contains("exec_die 3")
        });
        let id = |n: usize| ids.split('"').nth(n).unwrap().to_owned();
        let states = [id(1), id(3)].map(|id| ask(b, "GET", &format!("/exec/{id}/json"), ""));
        let ended = |s: &&String| s.contains(r#""Running":false,"ExitCode":3"#);
        let runs = |s: &&String| s.contains(r#""Running":true,"ExitCode":null"#);
        assert_eq!(states.iter().filter(ended).count(), 1, "{states:?}");
        assert_eq!(states.iter().filter(runs).count(), 1, "{states:?}");
        say(b, "after");
        b.until("both came", |b| {
            b.ok(&["logs", "says"]) == "1 before\n2 after"
        });
        assert!(b.ok(&["stats", "--no-stream", "says"]).contains("says"));
        assert!(b.ok(&["top", "says"]).contains("sleep 300"));
        b.ok(&["stop", "-t", "0", "says"]);
        assert_eq!(
            b.inspect("says", "{{json .ExecIDs}}"),
            "null",
            "all have ended"
        );
        let followed = b.ok(&["logs", "-f", "says"]);
        assert_eq!(followed, "1 before\n2 after");
    });
}
