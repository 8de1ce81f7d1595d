//! The engine itself: version, host, the edges of its HTTP, its settings file.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::bench::{Bench, text, with_engine};

/// Sends bytes and answers what came until the engine closed the connection, or kept silent for long.
fn raw(b: &Bench, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(b.path("socket")).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // It may have refused before all of it was sent.
    stream.write_all(request).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(
        ended.is_ok() || !answer.is_empty(),
        "{}: {ended:?}",
        text(request)
    );
    text(&answer)
}

fn call(b: &Bench, line: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    raw(b, request.as_bytes())
}

#[test]
fn version_and_info() {
    with_engine(|b| {
        let version = b.ok(&["version", "--format", "{{json .Server}}"]);
        for key in [
            "Platform",
            "Components",
            "BuildTime",
            "KernelVersion",
            "GoVersion",
        ] {
            assert!(version.contains(&format!("\"{key}\":")), "{key}: {version}");
        }
        assert!(version.contains("\"MinAPIVersion\":\"1.24\""), "{version}");
        b.ok(&["run", "-d", "box", "sleep", "100"]);
        b.ok(&["create", "box", "true"]);
        let counts = "{{.Containers}} {{.ContainersRunning}} {{.ContainersStopped}} {{.Images}}";
        assert_eq!(b.ok(&["info", "--format", counts]), "2 1 1 1");
        let said = b.docker(&["info"]);
        assert_eq!(text(&said.stderr), "", "no warnings");
        let said = text(&said.stdout);
        for line in [
            "Storage Driver: overlay2",
            "Supports d_type: true",
            "Cgroup Driver: cgroupfs",
            "Volume: local",
            "Swarm: inactive",
            "Default Runtime: runc",
            "Init Binary: docker-init",
            "Live Restore Enabled: true",
            "127.0.0.0/8",
            "Profile: builtin",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    });
}

#[test]
fn what_every_answer_carries() {
    with_engine(|b| {
        for method in ["GET", "HEAD"] {
            let answer = call(b, &format!("{method} /_ping")).to_lowercase();
            for line in [
                "http/1.1 200 ok",
                "api-version: 1.50",
                "builder-version: 1",
                "docker-experimental: false",
                "ostype: linux",
                "swarm: inactive",
                "cache-control: no-cache, no-store, must-revalidate",
                "pragma: no-cache",
                "content-type: text/plain; charset=utf-8",
            ] {
                assert!(answer.contains(line), "{method} {line}: {answer}");
            }
            assert_eq!(answer.ends_with("\r\n\r\nok"), method == "GET", "{answer}");
        }
        let swarm = "This node is not a swarm manager. Use \\\"docker swarm init\\\"";
        for (line, status, words) in [
            (
                "GET /v1.99/info",
                400,
                "client version 1.99 is too new. Maximum supported API version is 1.50",
            ),
            (
                "GET /v1.12/info",
                400,
                "client version 1.12 is too old. Minimum supported API version is 1.24",
            ),
            ("GET /v1.24/version", 200, "ApiVersion"),
            ("GET /nope", 404, "{\"message\":\"page not found\"}"),
            ("GET /", 404, "page not found"),
            ("POST /info", 404, "page not found"),
            ("PUT /v1.41/info", 404, "page not found"),
            ("PATCH /info", 404, "page not found"),
            ("HEAD /info", 404, ""),
            ("OPTIONS /info", 200, ""),
            ("GET /swarm", 503, swarm),
            ("GET /services", 503, swarm),
            ("GET /nodes", 503, swarm),
            ("GET /tasks", 503, swarm),
            ("GET /secrets", 503, swarm),
            ("GET /configs", 503, swarm),
            ("GET /plugins", 200, "[]"),
            ("GET /plugins/x/json", 404, "plugin \\\"x\\\" not found"),
            ("POST /plugins/pull?remote=x", 501, "plugins"),
            ("GET /containers/x/checkpoints", 501, "checkpoints"),
            ("GET /debug/vars", 404, "page not found"),
        ] {
            let answer = call(b, line);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{line}: {answer}"
            );
            assert!(answer.contains(words), "{line}: {answer}");
            let head = answer.to_lowercase();
            assert!(
                head.contains("server: ") && head.contains("api-version: "),
                "{line}"
            );
        }
    });
}

#[test]
fn clients_that_misbehave() {
    with_engine(|b| {
        let post = |headers: &str, body: &str| {
            format!(
                "POST /volumes/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
            )
        };
        let sized = |body: &str| post(&format!("Content-Length: {}\r\n", body.len()), body);
        for (request, words) in [
            (sized("{"), "unexpected EOF"),
            (
                sized("{x}"),
                "invalid character 'x' looking for beginning of object key string",
            ),
            (sized("{} x"), "unexpected content after JSON"),
            (sized(""), "got EOF while reading request body"),
            (sized("{\"Name\":5}"), "400 Bad Request"),
            (sized("[]"), "400 Bad Request"),
            (post("Content-Length: 1000\r\n", "{"), "400 Bad Request"),
            (
                post("Transfer-Encoding: chunked\r\n", "zz\r\n{}"),
                "400 Bad Request",
            ),
            (
                post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
                "201 Created",
            ),
            (
                post("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"),
                "201 Created",
            ),
            (
                format!("GET /info HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2_000_000)),
                "431",
            ),
            ("nonsense\r\n\r\n".to_owned(), "400"),
            ("GET /info HTTP/1.1\r\nHost".to_owned(), ""),
            (String::new(), ""),
        ] {
            let answer = raw(b, request.as_bytes());
            let shown: String = request.chars().take(300).collect();
            assert!(answer.contains(words), "{shown}: {answer}");
        }
        let continued = raw(
            b,
            post("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}").as_bytes(),
        );
        assert!(
            continued.starts_with("HTTP/1.1 100 Continue"),
            "{continued}"
        );
        // One that says nothing for ever keeps nobody else from it.
        let silent = UnixStream::connect(b.path("socket")).unwrap();
        (&silent)
            .write_all(b"POST /volumes/create HTTP/1.1\r\nContent-Le")
            .unwrap();
        assert!(b.ok(&["version"]).contains("windlass"));
        assert!(!b.log().contains("panic"), "{}", b.log());
    });
}

#[test]
fn the_settings_file() {
    with_engine(|b| {
        let settings = r#"{"labels": ["zone=here"], "dns": ["10.9.8.7"], "default-shm-size": "32M",
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 123, "Hard": 456}},
            "registry-mirrors": ["http://mirror"], "insecure-registries": ["reg:5000"]}"#;
        std::fs::write(b.path("engine.json"), settings).unwrap();
        b.kill_engine();
        b.start();
        let info = b.ok(&["info"]);
        for words in ["zone=here", "http://mirror", "reg:5000"] {
            assert!(info.contains(words), "{words}: {info}");
        }
        let script = "ulimit -n; grep nameserver /etc/resolv.conf; grep /dev/shm /proc/mounts";
        let seen = b.ok(&["run", "--rm", "box", "sh", "-c", script]);
        for words in ["123\n", "nameserver 10.9.8.7", "size=32768k"] {
            assert!(seen.contains(words), "{words}: {seen}");
        }
        b.kill_engine();
        std::fs::write(b.path("engine.json"), r#"{"nonsense": 1}"#).unwrap();
        let said = b.refuses_to_start();
        assert!(
            said.contains("engine.json") && said.contains("`nonsense`"),
            "{said}"
        );
        std::fs::remove_file(b.path("engine.json")).unwrap();
        b.start();
    });
}
