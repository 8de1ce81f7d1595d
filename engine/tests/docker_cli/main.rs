//! The real `docker` command against the engine. Needs root, `docker`, busybox-static, iproute2.

mod bench;
mod building;
mod building_language;
mod building_stages;
mod containers;
mod copying;
mod full;
mod health;
mod images;
mod networking;
mod registries;
mod sharing;
mod streams;
mod surviving;
mod system;
mod torture;
mod userns;
mod volumes;

use bench::{get, text, with_engine};

const SERVE: &str = "mkdir -p /www; echo $NAME > /www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn images_volumes_and_networks() {
    with_engine(|b| {
        assert!(b.ok(&["version"]).contains("windlass"));
        assert!(b.ok(&["info"]).contains("overlay"));
        let images = b.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert_eq!(images, "box:latest");
        b.ok(&["tag", "box", "boat:v1"]);
        let (_, words) = b.fails(&["rmi", "nosuch"]);
        assert!(words.contains("No such image: nosuch"), "{words}");
        assert!(b.ok(&["rmi", "boat:v1"]).contains("Untagged: boat:v1"));
        assert!(b.ok(&["history", "box"]).contains("Imported"));
        assert!(b.inspect("box", "{{.Architecture}}").len() > 3);
        let saved = b.path("saved.tar");
        b.ok(&["save", "-o", saved.to_str().unwrap(), "box"]);
        b.ok(&["rmi", "box"]);
        let loaded = b.ok(&["load", "-i", saved.to_str().unwrap()]);
        assert!(loaded.contains("Loaded image: box:latest"), "{loaded}");

        assert_eq!(
            b.ok(&["volume", "create", "--label", "a=b", "data"]),
            "data"
        );
        assert_eq!(b.ok(&["volume", "ls", "-q"]), "data");
        assert_eq!(
            b.ok(&["volume", "inspect", "-f", "{{.Labels.a}}", "data"]),
            "b"
        );
        b.ok(&[
            "run",
            "--rm",
            "-v",
            "data:/d",
            "box",
            "sh",
            "-c",
            "echo kept > /d/x",
        ]);
        b.ok(&[
            "create",
            "--name",
            "user",
            "-v",
            "data:/d:ro",
            "box",
            "cat",
            "/d/x",
        ]);
        assert_eq!(b.ok(&["start", "-a", "user"]), "kept");
        let usage = b.ok(&[
            "system",
            "df",
            "--format",
            "{{.Type}} {{.TotalCount}} {{.Active}}",
        ]);
        assert!(usage.contains("Local Volumes 1 1"), "{usage}");
        let (_, words) = b.fails(&["volume", "rm", "data"]);
        assert!(words.contains("volume is in use"), "{words}");
        b.ok(&["rm", "user"]);
        assert_eq!(b.ok(&["volume", "rm", "data"]), "data");
        let (_, words) = b.fails(&["volume", "rm", "data"]);
        assert!(words.contains("no such volume"), "{words}");

        let listed = b.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
        assert_eq!(listed, "bridge bridge\nhost host\nnone null");
        b.ok(&["network", "create", "back"]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "db",
            "--network",
            "back",
            "box",
            "sleep",
            "100",
        ]);
        let found = b.ok(&[
            "run",
            "--rm",
            "--network",
            "back",
            "box",
            "ping",
            "-c1",
            "db",
        ]);
        assert!(found.contains("1 packets received"), "{found}");
        let (_, words) = b.fails(&["network", "rm", "back"]);
        assert!(words.contains("active endpoints"), "{words}");
        b.ok(&["rm", "-f", "db"]);
        b.ok(&["network", "rm", "back"]);
        let (_, words) = b.fails(&["network", "inspect", "back"]);
        assert!(words.contains("network back not found"), "{words}");
    });
}

#[test]
fn running_in_the_foreground() {
    with_engine(|b| {
        assert_eq!(b.ok(&["run", "--rm", "box", "true"]), "");
        for (command, code, words) in [
            (&["false"][..], 1, ""),
            (&["sh", "-c", "exit 42"], 42, ""),
            (&["nosuch"], 127, "executable file not found"),
            (&["/etc/passwd"], 126, "permission denied"),
        ] {
            let (got, said) = b.fails(&[&["run", "--rm", "box"], command].concat());
            assert_eq!(got, code, "{command:?}: {said}");
            assert!(said.contains(words), "{command:?}: {said}");
        }
        let both = b.docker(&["run", "--rm", "box", "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!(
            (&both.stdout[..], &both.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let long: Vec<u8> = (0..500_000u32).map(|n| n as u8).collect();
        let through = b.feed(&["run", "--rm", "-i", "box", "cat"], &long);
        assert!(
            through.stdout == long,
            "{} bytes came",
            through.stdout.len()
        );
        let set = b.ok(&[
            "run",
            "--rm",
            "-e",
            "A=b",
            "-w",
            "/made/here",
            "-u",
            "sailor",
            "-h",
            "boat",
            "box",
            "sh",
            "-c",
            "echo $A $(pwd) $(id -u):$(id -g) $(hostname)",
        ]);
        assert_eq!(set, "b /made/here 1000:1000 boat");
        let terminal = b.docker(&["run", "--rm", "-t", "box", "echo", "x"]);
        assert_eq!(text(&terminal.stdout), "x\r\n");
        let talk = b.on_terminal(
            &[
                "run",
                "--rm",
                "-it",
                "box",
                "sh",
                "-c",
                "test -t 0; echo tty=$?; read word; echo got $word",
            ],
            "hello\n",
        );
        assert!(
            talk.contains("tty=0") && talk.contains("got hello"),
            "{talk}"
        );
        assert_eq!(b.ok(&["ps", "-aq"]), "", "all were removed");
    });
}

#[test]
fn a_containers_life() {
    with_engine(|b| {
        let id = b.ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "box",
            "sh",
            "-c",
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        ]);
        let listed = b.ok(&[
            "ps",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Names}} {{.Image}} {{.State}}",
        ]);
        assert_eq!(listed, format!("{id} web box running"));
        let (code, words) = b.fails(&["run", "-d", "--name", "web", "box", "true"]);
        assert_eq!(code, 125);
        assert!(words.contains("\"/web\" is already in use"), "{words}");
        b.until("it has spoken", |b| b.ok(&["logs", "web"]) == "up");
        assert_eq!(
            b.ok(&["exec", "web", "sh", "-c", "echo in > /x; cat /x"]),
            "in"
        );
        let (code, _) = b.fails(&["exec", "web", "sh", "-c", "exit 5"]);
        assert_eq!(code, 5);
        let echoed = b.feed(&["exec", "-i", "web", "cat"], b"through");
        assert_eq!(text(&echoed.stdout), "through");
        assert!(b.ok(&["top", "web"]).contains("sleep"));
        assert!(b.ok(&["stats", "--no-stream", "web"]).contains("web"));
        let file = b.path("file");
        std::fs::write(&file, "copied").unwrap();
        b.ok(&["cp", file.to_str().unwrap(), "web:/y"]);
        b.ok(&["cp", "web:/y", b.path("back").to_str().unwrap()]);
        assert_eq!(std::fs::read_to_string(b.path("back")).unwrap(), "copied");
        assert!(b.ok(&["diff", "web"]).contains("A /y"));
        b.ok(&["stop", "web"]);
        assert_eq!(
            b.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"),
            "exited 0"
        );
        assert_eq!(b.ok(&["logs", "web"]), "up\nbye");
        b.ok(&["start", "web"]);
        assert_eq!(b.ok(&["exec", "web", "cat", "/x"]), "in", "its files stay");
        let before = b.inspect("web", "{{.State.Pid}}");
        b.ok(&["restart", "-t", "0", "web"]);
        assert_ne!(b.inspect("web", "{{.State.Pid}}"), before);
        let (_, words) = b.fails(&["rm", "web"]);
        assert!(words.contains("running"), "{words}");
        b.ok(&["pause", "web"]);
        assert_eq!(b.inspect("web", "{{.State.Status}}"), "paused");
        b.ok(&["unpause", "web"]);
        b.ok(&["kill", "web"]);
        assert_eq!(b.ok(&["wait", "web"]), "137");
        assert_eq!(
            b.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"),
            "exited 137"
        );
        b.ok(&["rm", "web"]);
        assert_eq!(b.ok(&["ps", "-aq"]), "");
        let (_, words) = b.fails(&["inspect", "web"]);
        assert!(
            words.to_lowercase().contains("no such object: web"),
            "{words}"
        );
    });
}

#[test]
fn two_containers_with_the_same_port() {
    with_engine(|b| {
        for (name, port) in [("one", "8001:80"), ("two", "127.0.0.1:8002:80")] {
            let variable = format!("NAME={name}");
            b.ok(&[
                "run", "-d", "--name", name, "-p", port, "-e", &variable, "box", "sh", "-c", SERVE,
            ]);
        }
        b.until("one answers", |_| get(8001).as_deref() == Some("one"));
        b.until("two answers", |_| get(8002).as_deref() == Some("two"));
        assert_eq!(b.ok(&["port", "one"]), "80/tcp -> 0.0.0.0:8001");
        let (code, words) = b.fails(&[
            "run", "-d", "--name", "three", "-p", "8001:80", "box", "true",
        ]);
        assert_eq!(code, 125);
        assert!(
            words.contains("Bind for 0.0.0.0:8001 failed: port is already allocated"),
            "{words}"
        );
        assert_eq!(b.inspect("three", "{{.State.Status}}"), "created");
        b.ok(&["rm", "-f", "one"]);
        b.ok(&["start", "three"]);
        assert_eq!(get(8002).as_deref(), Some("two"));
        b.ok(&[
            "run", "-d", "--name", "any", "-p", "80", "-e", "NAME=any", "box", "sh", "-c", SERVE,
        ]);
        let chosen = b.ok(&["port", "any", "80"]);
        let port = chosen.rsplit(':').next().unwrap().parse().unwrap();
        b.until("any answers", |_| get(port).as_deref() == Some("any"));
    });
}

#[test]
fn containers_do_not_see_each_other() {
    with_engine(|b| {
        let sleeps = ["sh", "-c", "touch /mine; exec sleep 300"];
        for name in ["one", "two"] {
            b.ok(&[&["run", "-d", "--name", name, "box"], &sleeps[..]].concat());
        }
        for name in ["one", "two"] {
            let seen = b.ok(&["exec", name, "ps", "-o", "args"]);
            assert_eq!(seen.matches("sleep 300").count(), 1, "{seen}");
            assert!(!seen.contains("windlassd"), "{seen}");
            assert_eq!(
                b.ok(&["exec", name, "sh", "-c", "echo /proc/[0-9]*"])
                    .matches("/proc/1 ")
                    .count(),
                1
            );
        }
        b.ok(&["exec", "one", "touch", "/only-one"]);
        b.fails(&["exec", "two", "cat", "/only-one"]);
        for space in ["pid", "net", "mnt", "uts", "ipc"] {
            let of = |name: &str| b.ok(&["exec", name, "ls", "-l", &format!("/proc/1/ns/{space}")]);
            let inode = |line: String| line.rsplit(' ').next().unwrap().to_owned();
            let own = std::fs::read_link(format!("/proc/thread-self/ns/{space}")).unwrap();
            let (one, two) = (inode(of("one")), inode(of("two")));
            assert_ne!(one, two, "{space}");
            assert_ne!(one, own.display().to_string(), "{space}");
        }
    });
}

#[test]
fn folders_nested_without_end() {
    with_engine(|b| {
        let nest = "i=0; while [ $i -lt 3000 ]; do mkdir d; cd d; i=$((i+1)); done; echo > /done";
        b.ok(&["run", "--name", "nest", "box", "sh", "-c", nest]);
        // What is not all of it does not look like it.
        let archive = b.path("archive");
        b.fails(&["export", "-o", archive.to_str().unwrap(), "nest"]);
        b.ok(&["cp", "nest:/done", b.path("done").to_str().unwrap()]);
        b.ok(&["rm", "-v", "nest"]);
        assert_eq!(b.ok(&["ps", "-aq"]), "");
    });
}

#[test]
fn a_health_check_that_hangs() {
    with_engine(|b| {
        b.ok(&[
            "run",
            "-d",
            "--name",
            "slow",
            "--health-cmd",
            "exec sleep 77",
            "--health-timeout",
            "500ms",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "box",
            "sleep",
            "300",
        ]);
        b.until("it is found unwell, again and again", |b| {
            let seen = b.inspect(
                "slow",
                "{{.State.Health.Status}} {{.State.Health.FailingStreak}}",
            );
            ["unhealthy 3", "unhealthy 4"].contains(&seen.as_str())
        });
        let log = b.inspect("slow", "{{json .State.Health.Log}}");
        assert!(log.contains("exceeded timeout"), "{log}");
        let processes = b.ok(&["exec", "slow", "ps", "-o", "args"]);
        assert!(processes.matches("sleep 77").count() <= 1, "{processes}");
    });
}
