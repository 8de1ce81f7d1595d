//! Containers in user namespaces (`userns-remap`): their ids on the host, and files that keep the container's own.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::bench::{Bench, get, with_engine};

/// The first ids of the ranges that [`remap`] gives.
const ROOT: (u32, u32) = (300_000, 400_000);

/// Puts a file over one of the host's, in the test's own mount namespace.
fn cover(b: &Bench, name: &str, text: &str) {
    let file = b.path(name);
    std::fs::write(&file, text).unwrap();
    let nothing: Option<&str> = None;
    let at = Path::new("/etc").join(name);
    mount(Some(&file), &at, nothing, MsFlags::MS_BIND, nothing).unwrap();
}

/// A user with subordinate ids in two ranges; the engine starts again and uses them.
fn remap(b: &mut Bench) {
    let with = |name: &str, line: &str| {
        let text = std::fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        format!("{text}{line}\n")
    };
    cover(
        b,
        "passwd",
        &with("passwd", "wlremap:x:4242:4243::/:/bin/false"),
    );
    cover(b, "group", &with("group", "wlremap:x:4243:"));
    cover(
        b,
        "subuid",
        "wlremap:300000:1000\nother:1:2\nwlremap:500000:64536\n",
    );
    cover(b, "subgid", "wlremap:400000:65536\n");
    settings(b, "wlremap");
    b.kill_engine();
    b.start();
}

fn settings(b: &Bench, wanted: &str) {
    let text = format!(r#"{{"userns-remap": "{wanted}"}}"#);
    std::fs::write(b.path("engine.json"), text).unwrap();
}

fn status(b: &Bench, name: &str, key: &str) -> String {
    let pid = b.inspect(name, "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn root_inside_is_nobody_outside() {
    with_engine(|b| {
        remap(b);
        let options = b.ok(&["info", "-f", "{{.SecurityOptions}}"]);
        assert!(options.contains("name=userns"), "{options}");
        let script =
            "id -u; echo x > /v/f; echo y > /own; chown 1500:5 /own; echo ready; sleep 100";
        b.ok(&[
            "run", "-d", "--name", "sea", "-v", "data:/v", "box", "sh", "-c", script,
        ]);
        b.until("it is ready", |b| b.ok(&["logs", "sea"]).ends_with("ready"));
        assert!(b.ok(&["logs", "sea"]).starts_with("0\n"));
        assert_eq!(status(b, "sea", "Uid:"), ROOT.0.to_string());
        assert_eq!(status(b, "sea", "Gid:"), ROOT.1.to_string());
        let data = b.path("root/volumes/data/_data");
        assert_eq!((owner(&data), owner(&data.join("f"))), (ROOT, ROOT));
        // What is kept for the image has the container's own ids.
        let id = b.inspect("sea", "{{.Id}}");
        let own = b.path("root").join(format!("rootfs/{id}/upper/own"));
        assert_eq!(owner(&own), (1500, 5));

        let look =
            "stat -c '%u %g' /own /v/f /bin /etc/hosts /dev/null; echo out > /dev/stdout; id -u";
        let seen = b.ok(&["exec", "sea", "sh", "-c", look]);
        assert_eq!(seen, "1500 5\n0 0\n0 0\n0 0\n0 0\nout\n0");
        let look = [
            "exec",
            "-it",
            "sea",
            "stat",
            "-L",
            "-c",
            "%u %g",
            "/dev/stdin",
        ];
        let seen = b.on_terminal(&look, "");
        assert_eq!(seen.trim(), "0 5");
        assert_eq!(b.ok(&["exec", "-u", "sailor", "sea", "id", "-u"]), "1000");
        // The network's namespace is the container's, the host's settings are not.
        let pinged = b.ok(&["exec", "sea", "ping", "-c1", "127.0.0.1"]);
        assert!(pinged.contains("1 packets received"), "{pinged}");
        let capable = [
            "run",
            "--rm",
            "--cap-add",
            "NET_ADMIN",
            "box",
            "ip",
            "addr",
            "add",
        ];
        b.ok(&[&capable[..], &["10.1.1.1/32", "dev", "lo"]].concat());
        let asked = ["exec", "sea", "sh", "-c", "echo 1 > /proc/sysrq-trigger"];
        b.fails(&asked);
    });
}

#[test]
fn files_keep_the_containers_ids() {
    with_engine(|b| {
        remap(b);
        let script = "echo y > /own; chown 1500:5 /own; sleep 100";
        b.ok(&[
            "run", "-d", "--name", "sea", "-p", "8031:80", "-v", "data:/v", "box", "sh", "-c",
            script,
        ]);
        b.until("it is made", |b| b.ok(&["diff", "sea"]).contains("A /own"));
        let owners = |b: &Bench, name: &str| {
            let archive = b.docker(&["cp", &format!("sea:{name}"), "-"]).stdout;
            let mut archive = tar::Archive::new(&archive[..]);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            let header = entry.header();
            (header.uid().unwrap(), header.gid().unwrap())
        };
        assert_eq!((owners(b, "/own"), owners(b, "/bin")), ((1500, 5), (0, 0)));
        let file = b.path("brought");
        std::fs::write(&file, "z").unwrap();
        std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
        let brought = file.to_str().unwrap();
        b.ok(&["cp", "-a", brought, "sea:/running"]);
        b.ok(&["stop", "-t", "0", "sea"]);
        b.ok(&["cp", "-a", brought, "sea:/stopped"]);
        b.ok(&["cp", "-a", brought, "sea:/v/volume"]);
        assert_eq!(owners(b, "/running"), (7, 8));
        std::os::unix::fs::chown(&file, Some(70_000), Some(8)).unwrap();
        let (_, said) = b.fails(&["cp", "-a", brought, "sea:/other"]);
        assert!(said.contains("cannot be mapped to a host ID"), "{said}");
        b.ok(&["start", "sea"]);
        let look = [
            "stat",
            "-c",
            "%u %g",
            "/own",
            "/running",
            "/stopped",
            "/v/volume",
        ];
        let seen = "1500 5\n7 8\n7 8\n7 8";
        assert_eq!(b.ok(&[&["exec", "sea"], &look[..]].concat()), seen);

        b.kill_engine();
        b.start();
        let served = "echo sea > /index.html; httpd -p 80 -h /";
        b.ok(&["exec", "sea", "sh", "-c", served]);
        b.until("it is served", |_| get(8031).as_deref() == Some("sea"));
        b.ok(&["restart", "-t", "0", "sea"]);
        assert_eq!(status(b, "sea", "Uid:"), ROOT.0.to_string());
        b.ok(&["commit", "sea", "kept"]);
        // Without a shift the image is the same.
        let plain = ["run", "--rm", "--userns", "host", "kept"];
        let seen = b.ok(&[&plain[..], &look[..6]].concat());
        assert_eq!(seen, "1500 5\n7 8\n7 8");
        b.ok(&["rm", "-f", "sea"]);

        let context = b.path("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("f"), "f").unwrap();
        let steps = "FROM kept\nCOPY --chown=3:4 f /f\n\
            RUN test \"$(stat -c %u:%g /f)\" = 3:4 && touch /g && chown 8:9 /g && head -n1 /proc/self/uid_map\n\
            RUN rm /own\n";
        std::fs::write(context.join("Dockerfile"), steps).unwrap();
        let said = b.ok(&["build", "-t", "built", context.to_str().unwrap()]);
        assert!(said.contains("300000"), "{said}");
        let built = ["run", "--rm", "built", "stat", "-c", "%u %g", "/f", "/g"];
        assert_eq!(b.ok(&built), "3 4\n8 9");
    });
}

#[test]
fn the_hosts_namespace_and_refusals() {
    with_engine(|b| {
        b.ok(&["create", "--name", "former", "--privileged", "box", "true"]);
        remap(b);
        for (option, words) in [
            (
                "--privileged",
                "privileged mode is incompatible with user namespaces.",
            ),
            (
                "--network=host",
                "cannot share the host's network namespace when user namespaces",
            ),
            (
                "--pid=host",
                "cannot share the host PID namespace when user namespaces",
            ),
        ] {
            let (code, said) = b.fails(&["run", "--rm", option, "box", "true"]);
            assert!(code == 125 && said.contains(words), "{said}");
            let map = b.ok(&[
                "run",
                "--rm",
                option,
                "--userns=host",
                "box",
                "cat",
                "/proc/self/uid_map",
            ]);
            assert!(map.ends_with("4294967295"), "{map}");
        }
        let (_, said) = b.fails(&["start", "former"]);
        assert!(said.contains("privileged mode is incompatible"), "{said}");
        b.ok(&["create", "--name", "host", "--userns=host", "box", "true"]);
        assert_eq!(b.inspect("host", "{{.HostConfig.UsernsMode}}"), "host");

        b.kill_engine();
        for (wanted, words) in [
            ("default", "there is no user \"dockremap\""),
            ("root:nosuch", "there is no group \"nosuch\""),
            (
                "daemon:wlremap",
                "subuid has no range for \"daemon\"; add a line like daemon:100000:65536",
            ),
        ] {
            settings(b, wanted);
            let said = b.refuses_to_start();
            assert!(said.contains(words), "{said}");
        }
        std::fs::write(b.path("subuid"), "wlremap:none:1\n").unwrap();
        settings(b, "wlremap");
        let said = b.refuses_to_start();
        assert!(said.contains("bad line 'wlremap:none:1'"), "{said}");
        std::fs::remove_file(b.path("engine.json")).unwrap();
        b.start();
        b.ok(&["start", "former"]);
    });
}
