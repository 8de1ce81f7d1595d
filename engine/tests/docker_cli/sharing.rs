//! What containers have of another's, and where that makes no sense; options that a read-only or limited container keeps to.

use crate::bench::with_engine;

#[test]
fn a_joined_network_leaves_nothing_of_ones_own() {
    with_engine(|b| {
        b.ok(&["run", "-d", "--name", "owner", "box", "sleep", "100"]);
        for (options, words) in [
            (
                &["--expose", "5000"][..],
                "conflicting options: port exposing and the container type network mode",
            ),
            (
                &["-P"],
                "conflicting options: port publishing and the container type network mode",
            ),
        ] {
            let joined = ["run", "--rm", "--network", "container:owner"];
            let (_, said) = b.fails(&[&joined, options, &["box", "true"]].concat());
            assert!(said.contains(words), "{options:?}: {said}");
        }
        let itself = ["run", "--name", "me", "--network", "container:me", "box"];
        let (_, said) = b.fails(&[&itself[..], &["true"]].concat());
        assert!(said.contains("cannot join own network"), "{said}");
        let guest = ["run", "-d", "--name", "guest", "--network"];
        b.ok(&[&guest[..], &["container:owner", "box", "sleep", "100"]].concat());
        let linked = ["run", "--rm", "--link", "guest:g", "box", "cat"];
        let further = ["run", "--rm", "--network", "container:guest", "box"];
        b.ok(&[&further[..], &["cat", "/etc/hosts"]].concat());
        let hosts = b.ok(&[&linked[..], &["/etc/hosts"]].concat());
        assert!(hosts.contains("\tg "), "{hosts}");
    });
}

#[test]
fn a_read_only_container_cannot_write_its_names() {
    with_engine(|b| {
        for options in [&["--read-only"][..], &["--read-only", "--privileged"]] {
            for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
                let run = [&["run", "--rm"], options, &["box", "touch", file]].concat();
                let (_, said) = b.fails(&run);
                assert!(said.contains("Read-only file system"), "{said}");
            }
        }
        let shared = ["run", "--rm", "--tmpfs", "/t:shared", "box"];
        let mounts = b.ok(&[&shared[..], &["grep", " /t ", "/proc/self/mountinfo"]].concat());
        assert!(mounts.contains("shared:"), "{mounts}");
        for user in ["-1", "2147483648"] {
            let (_, said) = b.fails(&["run", "--rm", "-u", user, "box", "true"]);
            assert!(said.contains("must be in range 0-2147483647"), "{said}");
        }
        let parent = ["--cgroupns", "host", "--cgroup-parent", "../../../above"];
        let said = b.ok(&[
            &["run", "--rm"],
            &parent[..],
            &["box", "cat", "/proc/1/cgroup"],
        ]
        .concat());
        assert!(said.contains("/above/"), "{said}");
    });
}

#[test]
fn a_limit_of_processes_is_taken_away() {
    with_engine(|b| {
        let limited = ["run", "-d", "--name", "cc", "--pids-limit", "32", "box"];
        b.ok(&[&limited[..], &["sleep", "100"]].concat());
        b.ok(&["update", "--pids-limit", "-1", "cc"]);
        assert_eq!(b.inspect("cc", "{{.HostConfig.PidsLimit}}"), "0");
        let read = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
        assert_eq!(b.ok(&["exec", "cc", "sh", "-c", read]), "max");
    });
}

#[test]
fn links_by_name_where_networks_have_names() {
    with_engine(|b| {
        b.ok(&["network", "create", "br.net"]);
        let run = |name: &str, options: &[&str]| {
            let start = ["run", "-d", "--name", name];
            b.ok(&[&start, options, &["box", "sleep", "100"]].concat());
        };
        run("second.x", &["--network", "br.net", "--link", "third:bar"]);
        let reaches = |name: &str| {
            let ping = ["exec", "second.x", "ping", "-c", "1", "-W", "1", name];
            b.docker(&ping).status.success()
        };
        assert!(!reaches("bar"));
        run("third", &["--network", "br.net"]);
        assert!(reaches("bar") && reaches("second.x.br.net"));
        run("db", &[]);
        run("web", &["--link", "db:store"]);
        let env = b.ok(&["exec", "web", "env"]);
        assert!(env.contains("STORE_NAME=/web/store"), "{env}");
        let names = b.ok(&["ps", "--no-trunc", "--format", "{{.Names}}"]);
        assert!(names.lines().any(|l| l == "db,web/store"), "{names}");
    });
}

#[test]
fn a_working_directory_is_there_before_a_first_run() {
    with_engine(|b| {
        b.ok(&["create", "-w", "/made/here", "--name", "new", "box", "true"]);
        let to = b.path("copied");
        b.ok(&["cp", "new:/made/here", to.to_str().unwrap()]);
        assert!(to.is_dir());
        // An empty word is a command, though none that there is.
        b.ok(&["create", "--name", "odd", "box", ""]);
        let (_, said) = b.fails(&["start", "odd"]);
        assert!(said.contains("exec: \"\""), "{said}");
    });
}

#[test]
fn saved_parents_come_back() {
    with_engine(|b| {
        for (from, name) in [("box", "one"), ("one", "two")] {
            let make = ["run", "--name", name, from, "touch"];
            b.ok(&[&make[..], &[&format!("/{name}")]].concat());
            b.ok(&["commit", name, name]);
            b.ok(&["rm", name]);
        }
        let first = b.inspect("one", "{{.Id}}");
        let archive = b.path("both.tar");
        let archive = archive.to_str().unwrap();
        b.ok(&["save", "-o", archive, "two", "one"]);
        b.ok(&["rmi", "two"]);
        b.ok(&["load", "-i", archive]);
        assert_eq!(b.inspect("two", "{{.Parent}}"), first);
    });
}

#[test]
fn a_step_of_a_build_finds_the_places_of_volumes() {
    with_engine(|b| {
        let file = "FROM box\nVOLUME /not/there\nRUN touch /not/there/file\n";
        let built = b.feed(&["build", "-q", "-"], file.as_bytes());
        assert!(built.status.success(), "{built:?}");
    });
}
