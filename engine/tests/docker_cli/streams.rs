//! What flows in and out of containers: exec, attach, logs, top, stats.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::bench::{Bench, text, with_engine};

/// A connection on which a request was sent.
fn send(b: &Bench, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(b.path("socket")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// A whole answer, head and body.
pub fn ask(b: &Bench, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let mut stream = send(
        b,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    );
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

/// A connection that a request has taken over, and the answer's head.
pub fn upgrade(b: &Bench, path: &str, body: &str) -> (UnixStream, String) {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = send(b, &request);
    let head = read_until(&mut stream, "\r\n\r\n");
    (stream, head)
}

/// Reads until it has come.
pub fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut got = Vec::new();
    let mut byte = [0; 1];
    while !text(&got).contains(wanted) {
        match stream.read(&mut byte) {
            Ok(1) => got.push(byte[0]),
            end => panic!("{end:?}: no {wanted:?} in {:?}", text(&got)),
        }
    }
    text(&got)
}

/// What was told about a container so far.
pub fn events(b: &Bench, name: &str) -> String {
    let filter = format!("container={name}");
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let format = "{{.Action}} {{.Actor.Attributes.exitCode}}";
    b.ok(&[
        "events", "--since", "10m", "--until", &until, "--filter", &filter, "--format", format,
    ])
}

#[test]
fn execs() {
    with_engine(|b| {
        b.ok(&["run", "-d", "--name", "web", "box", "sleep", "300"]);
        for (arguments, code, words) in [
            (
                &["web", "nosuch"][..],
                127,
                "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH: unknown",
            ),
            (&["web", "/etc/passwd"], 126, "permission denied"),
            (
                &["-u", "nosuch", "web", "true"],
                126,
                "unable to find user nosuch: no matching entries in passwd file",
            ),
            (&["-w", "/nosuch", "web", "true"], 127, "chdir to cwd"),
            (&["web", "sh", "-c", "exit 9"], 9, ""),
        ] {
            let output = b.docker(&[&["exec"], arguments].concat());
            assert_eq!(
                output.status.code(),
                Some(code),
                "{arguments:?}: {output:?}"
            );
            // Docker too tells it on the standard output.
            let said = text(&output.stdout) + &text(&output.stderr);
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        let (_, words) = b.fails(&["exec", "-d", "web", "nosuch"]);
        assert!(words.contains("executable file not found"), "{words}");
        let told = events(b, "web");
        for event in [
            "exec_create: sh -c exit 9",
            "exec_start: sh -c exit 9",
            "exec_die 9",
        ] {
            assert!(told.contains(event), "{event}: {told}");
        }
        let seen = b.on_terminal(
            &["exec", "-it", "web", "sh", "-c", "test -t 0; echo tty=$?"],
            "",
        );
        assert!(seen.contains("tty=0"), "{seen}");

        let (head, _) = b.fails(&["exec", "nosuch", "true"]);
        assert_eq!(head, 1);
        let create = |body: &str| ask(b, "POST", "/containers/web/exec", body);
        assert!(create("{}").contains("No exec command specified"));
        assert!(create("").contains("got EOF while reading request body"));
        assert!(create(r#"{"Cmd":["x"],"DetachKeys":"ctrl-1"}"#).contains("Invalid escape keys"));
        let id = create(r#"{"Cmd":["sleep","1"]}"#);
        let id = id.split('"').rev().nth(1).unwrap().to_owned();
        let start = || {
            ask(
                b,
                "POST",
                &format!("/exec/{id}/start"),
                r#"{"Detach":true}"#,
            )
        };
        let state = || ask(b, "GET", &format!("/exec/{id}/json"), "");
        assert!(state().contains(r#""Running":false,"ExitCode":null"#));
        assert!(start().starts_with("HTTP/1.1 200"));
        assert!(state().contains(r#""Running":true,"ExitCode":null"#));
        assert!(start().contains("is already running"));
        b.until("it has ended", |_| {
            state().contains(r#""Running":false,"ExitCode":0"#)
        });
        assert!(start().contains("has already run"));
        b.ok(&["pause", "web"]);
        let (_, words) = b.fails(&["exec", "web", "true"]);
        assert!(
            words.contains("is paused, unpause the container"),
            "{words}"
        );
        b.ok(&["unpause", "web"]);
        b.ok(&["rm", "-f", "web"]);
        assert!(state().contains("No such exec instance"));
    });
}

#[test]
fn several_at_the_same_container() {
    with_engine(|b| {
        b.ok(&["run", "-di", "--name", "cat", "box", "cat"]);
        let attach = |query: &str| {
            let path = format!("/containers/cat/attach?stream=1&stdout=1&{query}");
            let (stream, head) = upgrade(b, &path, "");
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            assert!(head.contains("vnd.docker.multiplexed-stream"), "{head}");
            stream
        };
        let mut one = attach("stdin=1");
        let mut two = attach("");
        one.write_all(b"hello\n").unwrap();
        for stream in [&mut one, &mut two] {
            assert!(read_until(stream, "hello\n").starts_with("\u{1}\0\0\0"));
        }
        drop(two);
        let mut late = attach("logs=1");
        read_until(&mut late, "hello\n");
        one.write_all(b"again\n").unwrap();
        read_until(&mut one, "again\n");
        read_until(&mut late, "again\n");

        let request = "GET /containers/cat/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut socket = send(b, request);
        let head = read_until(&mut socket, "\r\n\r\n");
        // The key and its answer are those of RFC 6455.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        // A masked text of two bytes, the mask being zero.
        socket.write_all(b"\x81\x82\0\0\0\0w\n").unwrap();
        assert!(read_until(&mut socket, "w\n").ends_with("\u{2}w\n"));
        read_until(&mut one, "w\n");
        let plain = ask(b, "GET", "/containers/cat/attach/ws?stream=1", "");
        assert!(
            plain.contains("400") && plain.contains("not websocket protocol"),
            "{plain}"
        );
        let odd = ask(
            b,
            "POST",
            "/containers/cat/attach?stream=1&detachKeys=ctrl-1",
            "",
        );
        assert!(
            odd.contains("Invalid detach keys (ctrl-1) provided"),
            "{odd}"
        );
        assert!(events(b, "cat").contains("attach"));
        b.ok(&["rm", "-f", "cat"]);
        let mut end = Vec::new();
        one.read_to_end(&mut end).unwrap();
        assert!(end.is_empty(), "the output ends with the container");
    });
}

#[test]
fn detaching() {
    with_engine(|b| {
        b.ok(&["run", "-dit", "--name", "cat", "box", "cat"]);
        let upgrade = |path: &str, body: &str| {
            let (stream, head) = upgrade(b, path, body);
            assert!(head.contains("vnd.docker.raw-stream"), "{head}");
            stream
        };
        let leaves = |mut stream: UnixStream, word: &str, keys: &str| {
            stream.write_all(word.as_bytes()).unwrap();
            read_until(&mut stream, word.trim());
            // Key by key, as they are typed.
            for key in keys.bytes() {
                stream.write_all(&[key]).unwrap();
            }
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
        };
        let path = "/containers/cat/attach?stream=1&stdin=1&stdout=1";
        leaves(upgrade(path, ""), "one\n", "\u{10}\u{11}");
        leaves(
            upgrade(&format!("{path}&detachKeys=a,b"), ""),
            "two\n",
            "ab",
        );
        let exec = r#"{"Cmd":["cat"],"Tty":true,"AttachStdin":true,"AttachStdout":true}"#;
        let made = ask(b, "POST", "/containers/cat/exec", exec);
        let id = made.split('"').rev().nth(1).unwrap().to_owned();
        let start = upgrade(&format!("/exec/{id}/start"), r#"{"Tty":true}"#);
        leaves(start, "three\n", "\u{10}\u{11}");
        let state = ask(b, "GET", &format!("/exec/{id}/json"), "");
        assert!(state.contains(r#""Running":true"#), "{state}");
        assert_eq!(b.inspect("cat", "{{.State.Running}}"), "true");
        let seen = b.ok(&["logs", "cat"]);
        assert!(seen.contains("one") && seen.contains("two"), "{seen}");
        b.ok(&["exec", "-d", "cat", "true"]);
        let sized = ask(b, "POST", "/containers/cat/resize?h=10&w=20", "");
        assert!(sized.starts_with("HTTP/1.1 200"), "{sized}");
        assert!(b.ok(&["exec", "cat", "sh", "-c", "stty size < /proc/1/fd/0"]) == "10 20");
        let odd = ask(b, "POST", "/containers/cat/resize?h=a&w=20", "");
        assert!(odd.contains(r#"invalid resize height \"a\""#), "{odd}");
        let told = events(b, "cat");
        assert_eq!(told.matches("\ndetach").count(), 2, "{told}");
        assert!(
            told.contains("exec_detach") && told.contains("resize"),
            "{told}"
        );
    });
}

#[test]
fn kept_output() {
    with_engine(|b| {
        let run = |name: &str, options: &[&str], script: &str| {
            let container = ["box", "sh", "-c", script];
            b.docker(&[&["run", "--name", name], options, &container].concat())
        };
        let labels = [
            "-l",
            "tier=a b",
            "-e",
            "MODE=x",
            "--log-opt",
            "labels=tier",
            "--log-opt",
            "env=MODE",
            "--log-opt",
            "tag={{.Name}}",
        ];
        run("told", &labels, "echo out; echo err >&2; echo -n end");
        let both = b.docker(&["logs", "--details", "told"]);
        assert_eq!(
            text(&both.stdout),
            "MODE=x,tag=told,tier=a+b out\nMODE=x,tag=told,tier=a+b end"
        );
        assert_eq!(text(&both.stderr), "MODE=x,tag=told,tier=a+b err\n");
        assert_eq!(b.ok(&["logs", "-n", "1", "told"]), "end");
        assert_eq!(b.ok(&["logs", "-n", "0", "told"]), "");
        let stamped = b.ok(&["logs", "-t", "-n", "1", "told"]);
        assert_eq!(stamped.split(' ').next().unwrap().len(), 30, "{stamped}");
        assert_eq!(
            b.ok(&["logs", "--since", "1h", "--until", "30m", "told"]),
            ""
        );
        let none = ask(b, "GET", "/containers/told/logs", "");
        assert!(
            none.contains("you must choose at least one stream"),
            "{none}"
        );

        let rotated = [
            "--log-opt",
            "max-size=1k",
            "--log-opt",
            "max-file=3",
            "--log-opt",
            "compress=true",
        ];
        run(
            "turns",
            &rotated,
            "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; done",
        );
        let last = b.ok(&["logs", "turns"]);
        assert!(
            last.lines().count() > 20 && last.ends_with("line 60"),
            "{last}"
        );
        let file = b.inspect("turns", "{{.LogPath}}");
        assert!(
            std::path::Path::new(&format!("{file}.1.gz")).exists(),
            "{file}"
        );
        assert_eq!(b.ok(&["logs", "-n", "25", "turns"]).lines().count(), 25);

        run("local", &["--log-driver", "local"], "echo here");
        assert_eq!(b.ok(&["logs", "local"]), "here");
        assert_eq!(b.inspect("local", "{{.LogPath}}"), "");
        run("quiet", &["--log-driver", "none"], "echo hi");
        let (_, words) = b.fails(&["logs", "quiet"]);
        assert!(
            words.contains("configured logging driver does not support reading"),
            "{words}"
        );
        for (options, words) in [
            (
                &["--log-driver", "gelf"][..],
                "error looking up logging plugin gelf: plugin \"gelf\" not found",
            ),
            (
                &["--log-opt", "bad=1"],
                "unknown log opt 'bad' for json-file log driver",
            ),
            (
                &["--log-opt", "max-size=x"],
                "failed to initialize logging driver: invalid size: 'x'",
            ),
        ] {
            let output = run("odd", options, "true");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{options:?}: {said}");
            assert!(said.contains(words), "{options:?}: {said}");
            b.docker(&["rm", "odd"]);
        }
    });
}

#[test]
fn following() {
    with_engine(|b| {
        let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.003; done";
        b.ok(&[
            "run",
            "-d",
            "--name",
            "long",
            "--log-opt",
            "max-size=2k",
            "--log-opt",
            "max-file=9",
            "box",
            "sh",
            "-c",
            script,
        ]);
        let followed = b.ok(&["logs", "-f", "long"]);
        let wanted: Vec<String> = (1..=300).map(|n| format!("line {n}")).collect();
        assert_eq!(
            followed.lines().collect::<Vec<_>>(),
            wanted,
            "nothing is lost"
        );
        b.ok(&[
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "always",
            "box",
            "sh",
            "-c",
            "echo hi; sleep 0.5",
        ]);
        assert_eq!(
            b.ok(&["logs", "-f", "again"]),
            "hi",
            "to the end of the run"
        );
        b.ok(&["rm", "-f", "again"]);
    });
}

#[test]
fn default_log() {
    with_engine(|b| {
        b.kill_engine();
        let settings = r#"{"log-driver": "local", "log-opts": {"max-size": "1m"}}"#;
        std::fs::write(b.path("engine.json"), settings).unwrap();
        b.start();
        b.ok(&["create", "--name", "plain", "box", "true"]);
        let seen = b.inspect("plain", "{{json .HostConfig.LogConfig}}");
        assert_eq!(seen, r#"{"Type":"local","Config":{"max-size":"1m"}}"#);
        b.ok(&[
            "create",
            "--name",
            "own",
            "--log-driver",
            "json-file",
            "box",
            "true",
        ]);
        let seen = b.inspect("own", "{{json .HostConfig.LogConfig}}");
        assert_eq!(seen, r#"{"Type":"json-file","Config":{}}"#);
        assert_eq!(b.ok(&["info", "-f", "{{.LoggingDriver}}"]), "local");
    });
}

#[test]
fn processes_and_usage() {
    with_engine(|b| {
        b.ok(&["run", "-d", "--name", "web", "box", "sleep", "300"]);
        b.ok(&["create", "--name", "still", "box", "true"]);
        let top = b.ok(&["top", "web"]);
        let lines: Vec<&str> = top.lines().collect();
        assert!(
            lines[0].starts_with("UID") && lines[1].ends_with("sleep 300"),
            "{top}"
        );
        assert_eq!(lines.len(), 2, "{top}");
        if std::process::Command::new("ps").output().is_ok() {
            let own = b.ok(&["top", "web", "-o", "pid,comm"]);
            let pid = b.inspect("web", "{{.State.Pid}}");
            assert!(own.contains(&pid) && own.contains("sleep"), "{own}");
            let (_, words) = b.fails(&["top", "web", "-o", "comm"]);
            assert!(
                words.contains("Couldn't find PID field in ps output"),
                "{words}"
            );
        }
        let (_, words) = b.fails(&["top", "still"]);
        assert!(words.contains("is not running"), "{words}");
        assert!(events(b, "web").contains("top"));

        let once = ask(b, "GET", "/containers/web/stats?stream=0&one-shot=1", "");
        for field in [
            r#""storage_stats":{}"#,
            r#""name":"/web""#,
            r#""eth0":{"rx_bytes":"#,
        ] {
            assert!(once.contains(field), "{field}: {once}");
        }
        assert!(
            once.contains(r#""preread":"0001-01-01T00:00:00Z""#),
            "{once}"
        );
        let twice = ask(b, "GET", "/containers/web/stats?stream=0", "");
        assert_eq!(twice.matches(r#""system_cpu_usage""#).count(), 2, "{twice}");
        let zero = ask(b, "GET", "/containers/still/stats?stream=0", "");
        assert!(zero.contains(r#""read":"0001-01-01T00:00:00Z""#), "{zero}");
        assert!(
            !zero.contains("networks") && zero.contains(r#""memory_stats":{}"#),
            "{zero}"
        );
    });
}
