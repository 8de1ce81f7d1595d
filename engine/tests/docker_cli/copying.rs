//! `docker cp`, `docker diff` and `docker export`.

use std::path::Path;

use crate::bench::{text, with_engine};
use crate::streams::{ask, events};

#[test]
fn into_and_out_of_containers_that_run_or_not() {
    with_engine(|b| {
        let host = |name: &str| b.path(name).to_str().unwrap().to_owned();
        std::fs::create_dir(b.path("from")).unwrap();
        std::fs::write(b.path("from/a"), "A").unwrap();
        let script = "echo in > /vol/f; test -e /way || busybox ln -s /vol /way; test -e /users || busybox ln -s /etc/passwd /users; sleep 300";
        b.ok(&[
            "run", "-d", "--name", "web", "-v", "/vol", "-u", "sailor", "box", "true",
        ]);
        b.ok(&["rm", "-f", "web"]);
        b.ok(&[
            "run", "-d", "--name", "web", "-v", "/vol", "box", "sh", "-c", script,
        ]);
        for state in ["running", "stopped"] {
            let to = |name: &str| host(&format!("{state}-{name}"));
            let read = |name: &str| std::fs::read_to_string(to(name)).unwrap();
            b.until("it has written", |b| {
                b.docker(&["cp", "web:/vol/f", &to("f")]).status.success()
            });
            assert_eq!(read("f"), "in\n", "a volume, {state}");
            b.ok(&["cp", "web:/way/f", &to("way")]);
            assert_eq!(read("way"), "in\n");
            b.ok(&["cp", "web:/users", &to("users")]);
            assert!(std::fs::symlink_metadata(to("users")).unwrap().is_symlink());
            b.ok(&["cp", "-L", "web:/users", &to("followed")]);
            assert!(read("followed").contains("sailor"));
            b.ok(&["cp", &host("from"), &format!("web:/vol/{state}")]);
            b.ok(&["cp", &format!("{}/.", host("from")), "web:/way"]);
            b.ok(&["cp", &format!("web:/vol/{state}"), &to("back")]);
            assert_eq!(read("back/a"), "A");
            b.ok(&["cp", "web:/etc/hosts", &to("hosts")]);
            assert!(read("hosts").contains("localhost"), "the engine's own file");
            let (_, words) = b.fails(&["cp", "web:/nosuch", &to("x")]);
            assert!(
                words.contains("Could not find the file /nosuch in container web"),
                "{words}"
            );
            let (_, words) = b.fails(&["cp", &host("from"), "web:/nosuch/x"]);
            assert!(words.contains("Could not find the file /nosuch"), "{words}");
            b.ok(&["stop", "-t", "0", "web"]);
        }
        b.ok(&["start", "web"]);
        let all = b.ok(&["exec", "web", "ls", "/vol"]);
        assert_eq!(
            all.lines().collect::<Vec<_>>(),
            ["a", "f", "running", "stopped"]
        );
        b.ok(&["create", "--name", "new", "-v", "/deep/vol", "box", "true"]);
        b.ok(&["cp", &host("from"), "new:/deep/vol/x"]);
        let out = b.docker(&["cp", "new:/deep/vol/x/a", "-"]);
        assert!(text(&out.stdout).starts_with("a\0"), "{out:?}");
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains("/volumes/"), "{mounts}");
    });
}

#[test]
fn what_must_not_be_written() {
    with_engine(|b| {
        std::fs::write(b.path("f"), "F").unwrap();
        let file = b.path("f").to_str().unwrap().to_owned();
        b.ok(&["volume", "create", "data"]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "firm",
            "--read-only",
            "-v",
            "data:/ro:ro",
            "-v",
            "data:/rw",
            "box",
            "sleep",
            "300",
        ]);
        for state in ["running", "stopped"] {
            let (_, words) = b.fails(&["cp", &file, "firm:/etc/f"]);
            assert!(
                words.contains("container rootfs is marked read-only"),
                "{words}"
            );
            let (_, words) = b.fails(&["cp", &file, "firm:/ro/f"]);
            assert!(
                words.contains("mounted volume is marked read-only"),
                "{words}"
            );
            b.ok(&["cp", &file, &format!("firm:/rw/{state}")]);
            b.ok(&["stop", "-t", "0", "firm"]);
        }
        b.ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "box",
            "sh",
            "-c",
            "mkdir -p /d/f; echo > /g; sleep 300",
        ]);
        b.until("it is ready", |b| {
            b.docker(&["exec", "web", "ls", "/g"]).status.success()
        });
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name(&file, "f").unwrap();
        let bytes = archive.into_inner().unwrap();
        let put = |query: &str| {
            let mut command = std::process::Command::new("curl");
            command.args(["-s", "-X", "PUT", "--data-binary", "@-", "--unix-socket"]);
            command.arg(b.path("socket"));
            command.arg(format!("http://x/containers/web/archive?path={query}"));
            let mut child = command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
            text(&child.wait_with_output().unwrap().stdout)
        };
        let said = put("/d&noOverwriteDirNonDir=1");
        assert!(
            said.contains(r#"cannot overwrite directory \"/d/f\" with non-directory \"/d\""#),
            "{said}"
        );
        assert!(put("/g").contains("extraction point is not a directory"));
        assert!(put("/nosuch").contains("Could not find the file /nosuch in container web"));
        assert_eq!(put("/d"), "");
        assert_eq!(b.ok(&["exec", "web", "cat", "/d/f"]), "F");
        let none = ask(b, "GET", "/containers/web/archive", "");
        assert!(
            none.contains("400") && none.contains("path cannot be empty"),
            "{none}"
        );
    });
}

#[test]
fn owners_links_and_exports() {
    with_engine(|b| {
        let script = "echo x > /one; busybox ln /one /two; mkdir /d; busybox ln -s .. /d/up; echo v > /vol/v";
        b.ok(&[
            "run", "--name", "web", "-v", "/vol", "-u", "0", "box", "sh", "-c", script,
        ]);
        b.ok(&[
            "create", "--name", "sails", "-u", "sailor", "-v", "/vol", "box", "ls", "-n", "/vol",
        ]);
        std::fs::write(b.path("f"), "F").unwrap();
        let file = b.path("f").to_str().unwrap().to_owned();
        b.ok(&["cp", &file, "sails:/vol/plain"]);
        b.ok(&["cp", "-a", &file, "sails:/vol/given"]);
        let seen = b.ok(&["start", "-a", "sails"]);
        let owner = |name: &str| {
            let line = seen.lines().find(|l| l.ends_with(name)).unwrap();
            line.split_whitespace().nth(2).unwrap().to_owned()
        };
        assert_eq!(
            (owner("plain").as_str(), owner("given").as_str()),
            ("0", "1000"),
            "{seen}"
        );
        let archive = b.path("all.tar");
        b.ok(&["export", "-o", archive.to_str().unwrap(), "web"]);
        let mut archive = tar::Archive::new(std::fs::File::open(&archive).unwrap());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().into_owned();
            if name == Path::new("two") {
                assert_eq!(entry.link_name().unwrap().unwrap(), Path::new("one"));
            }
            names.push(name);
        }
        assert!(names.contains(&"d/up".into()), "{names:?}");
        assert!(
            !names.contains(&"vol/v".into()),
            "volumes are no part of it"
        );
        let changed = b.ok(&["diff", "web"]);
        for line in ["A /one", "A /two", "A /d", "A /d/up"] {
            assert!(changed.lines().any(|l| l == line), "{line}: {changed}");
        }
        assert!(
            !changed.contains("hosts") && !changed.contains("/proc"),
            "{changed}"
        );
        let mark = "test -f /.dockerenv && test ! -s /.dockerenv";
        b.ok(&["run", "--rm", "box", "sh", "-c", mark]);
        assert!(names.contains(&".dockerenv".into()), "{names:?}");
        assert!(!changed.contains(".dockerenv"), "{changed}");
        let told = events(b, "web");
        assert!(told.contains("export"), "{told}");
    });
}
