//! Volumes and mounts.

use std::path::Path;

use crate::bench::{Bench, with_engine};

fn volumes(b: &Bench, filters: &[&str]) -> String {
    let mut words = vec!["volume", "ls", "-q"];
    for filter in filters {
        words.extend(["-f", filter]);
    }
    b.ok(&words)
}

fn run(b: &Bench, options: &[&str], script: &str) -> String {
    b.ok(&[&["run", "--rm"], options, &["box", "sh", "-c", script]].concat())
}

/// The words of a refusal.
fn refused(b: &Bench, options: &[&str]) -> String {
    b.fails(&[&["create"], options, &["box", "true"]].concat())
        .1
}

fn is_mounted(at: &str, b: &Bench) -> bool {
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", b.engine_pid())).unwrap();
    mounts.lines().any(|l| l.split(' ').nth(1) == Some(at))
}

#[test]
fn made_listed_and_removed() {
    with_engine(|b| {
        b.ok(&["volume", "create", "--label", "a=b", "one"]);
        assert_eq!(
            b.ok(&["volume", "create", "one"]),
            "one",
            "the one there is"
        );
        let chosen = b.ok(&["volume", "create"]);
        assert_eq!(chosen.len(), 64);
        let shown = b.ok(&["volume", "inspect", "one"]);
        let folder = b.path("root/volumes/one/_data");
        assert!(shown.contains(&format!("\"Mountpoint\": \"{}\"", folder.display())));
        assert!(shown.contains("\"Options\": null") && shown.contains("\"Scope\": \"local\""));
        let plain = b.ok(&["volume", "inspect", "-f", "{{json .Labels}}", &chosen]);
        assert_eq!(plain, "{\"com.docker.volume.anonymous\":\"\"}");
        for (words, said) in [
            (&["x"][..], "volume name is too short"),
            (
                &["a/b"],
                "includes invalid characters for a local volume name",
            ),
            (
                &["-d", "nope", "two"],
                "error looking up volume plugin nope: plugin \"nope\" not found",
            ),
            (
                &["-o", "foo=x", "two"],
                "create two: invalid option: \"foo\"",
            ),
            (
                &["-o", "type=x", "two"],
                "create two: missing required option: \"device\"",
            ),
            (
                &["-o", "size=1m", "two"],
                "quota size requested but no quota support",
            ),
        ] {
            let (_, error) = b.fails(&[&["volume", "create"], words].concat());
            assert!(error.contains(said), "{words:?}: {error}");
        }
        b.ok(&["volume", "create", "--label", "c", "two"]);
        b.ok(&["create", "--name", "user", "-v", "two:/x", "box", "true"]);
        for (filters, found) in [
            (&["label=a"][..], "one"),
            (&["label=a=z"], ""),
            (&["label=c", "dangling=false"], "two"),
            (&["dangling=true", "name=n"], "one"),
            (&["driver=local", "name=tw"], "two"),
            (&["driver=other"], ""),
        ] {
            assert_eq!(volumes(b, filters), found, "{filters:?}");
        }
        let (_, error) = b.fails(&["volume", "ls", "-f", "nope=1"]);
        assert!(error.contains("invalid filter 'nope'"), "{error}");
        let (_, error) = b.fails(&["volume", "ls", "-f", "dangling=perhaps"]);
        assert!(
            error.contains("invalid filter 'dangling=[perhaps]'"),
            "{error}"
        );

        let id = b.inspect("user", "{{.Id}}");
        for words in [&["volume", "rm", "two"][..], &["volume", "rm", "-f", "two"]] {
            let (_, error) = b.fails(words);
            let said = format!("remove two: volume is in use - [{id}]");
            assert!(error.contains(&said), "{error}");
        }
        b.fails(&["volume", "rm", "nope"]);
        assert_eq!(b.ok(&["volume", "rm", "-f", "nope"]), "nope");
        std::fs::write(folder.join("file"), "12345").unwrap();
        let sizes = b.ok(&["system", "df", "-v", "--format", "{{json .Volumes}}"]);
        assert!(sizes.contains("\"Size\":\"5B\""), "{sizes}");
        let pruned = b.ok(&["volume", "prune", "-f"]);
        assert!(
            pruned.contains(&chosen) && !pruned.contains("one"),
            "{pruned}"
        );
        let pruned = b.ok(&["volume", "prune", "-f", "-a"]);
        assert!(
            pruned.contains("one\n") && pruned.contains("5B"),
            "{pruned}"
        );
        assert_eq!(volumes(b, &[]), "two");
        let events = [
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "type=volume",
        ];
        // The end is a whole second.
        b.until("all events are past", |b| {
            let format = ["--format", "{{.Action}} {{.Actor.ID}}"];
            let told = b.ok(&[&events[..], &format].concat());
            ["create one", "destroy one", "prune"]
                .iter()
                .all(|event| told.lines().any(|l| l.trim() == *event))
        });
    });
}

#[test]
fn options_are_carried_out_while_somebody_uses_it() {
    with_engine(|b| {
        let tmpfs = [
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            "o=size=64k,uid=1000,mode=750",
        ];
        b.ok(&[&["volume", "create"], &tmpfs[..], &["mem"]].concat());
        let data = b.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "mem"]);
        for name in ["one", "two"] {
            b.ok(&[
                "run", "-d", "--name", name, "-v", "mem:/m", "box", "sleep", "100",
            ]);
        }
        assert_eq!(
            b.ok(&["exec", "one", "stat", "-c", "%u %a", "/m"]),
            "1000 750"
        );
        b.ok(&["exec", "one", "sh", "-c", "echo seen > /m/x"]);
        assert_eq!(b.ok(&["exec", "two", "cat", "/m/x"]), "seen");
        b.fails(&[
            "exec",
            "one",
            "sh",
            "-c",
            "head -c 100000 /dev/zero > /m/big",
        ]);
        b.ok(&["rm", "-f", "one"]);
        assert!(is_mounted(&data, b));
        b.kill_engine();
        b.start();
        assert_eq!(b.ok(&["exec", "two", "cat", "/m/x"]), "seen");
        assert!(is_mounted(&data, b));
        b.ok(&["rm", "-f", "two"]);
        assert!(!is_mounted(&data, b), "nobody uses it");
        assert_eq!(run(b, &["-v", "mem:/m"], "ls /m"), "", "a new one");

        let folder = b.path("shared");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("f"), "from outside").unwrap();
        let device = format!("device={}", folder.display());
        b.ok(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind,ro",
            "-o",
            &device,
            "tied",
        ]);
        assert_eq!(run(b, &["-v", "tied:/t"], "cat /t/f"), "from outside");
        b.fails(&["run", "--rm", "-v", "tied:/t", "box", "touch", "/t/g"]);
        b.ok(&["volume", "rm", "tied"]);
        assert!(folder.join("f").exists(), "what was mounted is not its own");

        for (kind, options, words) in [
            ("none", "o=bind", "no such file or directory"),
            (
                "nfs",
                "o=addr=no.such.host.invalid",
                "error resolving passed in network volume address",
            ),
            ("nosuchfs", "o=ro", "no such device"),
        ] {
            let kind = format!("type={kind}");
            b.ok(&[
                "volume",
                "create",
                "-o",
                &kind,
                "-o",
                "device=/no/such",
                "-o",
                options,
                "bad",
            ]);
            let (code, error) = b.fails(&["run", "--rm", "-v", "bad:/b", "box", "true"]);
            assert!(
                [125, 127].contains(&code) && error.contains("error while mounting volume"),
                "{error}"
            );
            assert!(error.contains(words), "{error}");
            b.ok(&["volume", "rm", "bad"]);
        }
        assert_eq!(b.ok(&["ps", "-aq"]), "");
    });
}

/// An image with files at `/data`, which is a volume.
fn image_with_files(b: &Bench) {
    let folder = b.path("context");
    std::fs::create_dir(&folder).unwrap();
    let text = "FROM box\nRUN mkdir -p /data/sub && echo hello > /data/sub/f && chown -R 7:8 /data && chmod 751 /data && ln -s sub/f /data/link\nVOLUME /data\n";
    std::fs::write(folder.join("Dockerfile"), text).unwrap();
    b.ok(&["build", "-t", "full", folder.to_str().unwrap()]);
}

#[test]
fn an_empty_volume_gets_the_images_files() {
    with_engine(|b| {
        image_with_files(b);
        b.ok(&[
            "create",
            "--name",
            "cc",
            "-v",
            "named:/data",
            "full",
            "true",
        ]);
        let data = b.path("root/volumes/named/_data");
        let text = std::fs::read_to_string(data.join("link")).unwrap();
        assert_eq!(text, "hello\n", "already before it starts");
        let seen = b.ok(&[
            "run",
            "--rm",
            "-v",
            "named:/data",
            "full",
            "stat",
            "-c",
            "%u:%g %a",
            "/data",
        ]);
        assert_eq!(seen, "7:8 751");
        std::fs::remove_dir_all(data.join("sub")).unwrap();
        let seen = b.ok(&["run", "--rm", "-v", "named:/data", "full", "ls", "/data"]);
        assert_eq!(seen, "link", "what is not empty stays");
        let seen = b.ok(&[
            "run",
            "--rm",
            "-v",
            "bare:/data:nocopy",
            "full",
            "ls",
            "/data",
        ]);
        assert_eq!(seen, "");
        b.ok(&["rm", "cc"]);
        assert_eq!(volumes(b, &[]), "bare\nnamed");

        b.ok(&[
            "run",
            "--name",
            "owner",
            "full",
            "sh",
            "-c",
            "echo own > /data/own",
        ]);
        let name = b.inspect(
            "owner",
            "{{(index .Mounts 0).Name}} {{(index .Mounts 0).Type}}",
        );
        let name = name.strip_suffix(" volume").unwrap().to_owned();
        b.ok(&[
            "create",
            "--name",
            "heir",
            "--volumes-from",
            "owner:ro",
            "box",
            "cat",
            "/data/own",
        ]);
        assert_eq!(b.ok(&["start", "-a", "heir"]), "own");
        assert_eq!(b.inspect("heir", "{{(index .Mounts 0).RW}}"), "false");
        b.ok(&["rm", "-v", "owner"]);
        assert!(volumes(b, &[]).contains(&name), "the heir has it");
        b.ok(&["rm", "-v", "heir"]);
        assert!(!volumes(b, &[]).contains(&name));
        b.ok(&["run", "--name", "kept", "-v", "/anonymous", "box", "true"]);
        b.ok(&["rm", "kept"]);
        assert_eq!(volumes(b, &["dangling=true"]).lines().count(), 3);
        for (from, words) in [
            ("nope", "No such container: nope"),
            ("nope:wat", "invalid mode: wat"),
        ] {
            let said = refused(b, &["--volumes-from", from]);
            assert!(said.contains(words), "{said}");
        }
    });
}

#[test]
fn binds_in_all_modes() {
    with_engine(|b| {
        let folder = b.path("f");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        std::fs::write(folder.join("file"), "text").unwrap();
        let bind = |more: &str| format!("{}:/b{more}", folder.display());
        assert_eq!(
            run(
                b,
                &["-v", &bind(":ro,z")],
                "cat /b/file; touch /b/no || echo ro"
            ),
            "textro"
        );
        let file = format!("{}/file:/etc/one", folder.display());
        assert_eq!(run(b, &["-v", &file], "cat /etc/one"), "text");
        let missing = b.path("made/for/it");
        run(
            b,
            &["-v", &format!("{}:/m:cached", missing.display())],
            "touch /m/x",
        );
        assert!(missing.join("x").exists());
        let mount = |kind: &str| format!("type=bind,src={},dst=/b{kind}", b.path("gone").display());
        let said = refused(b, &["--mount", &mount("")]);
        assert!(said.contains("bind source path does not exist: "), "{said}");
        // Inner after outer, whatever the order on the command line; links in the image lead nowhere else.
        let nested = [&format!("{}/inner:/b/inner", folder.display()), &bind("")];
        let nested = ["-v", nested[0], "-v", nested[1], "-v", "deep:/b/inner/deep"];
        assert_eq!(
            run(b, &nested, "echo x > /b/inner/deep/x; ls /b/inner"),
            "deep"
        );
        assert!(b.path("root/volumes/deep/_data/x").exists());

        b.mount_tmpfs(&folder.join("inner"));
        let seen = |options: &str| {
            let mount = format!("type=bind,src={},dst=/b,{options}", folder.display());
            run(
                b,
                &["--mount", &mount],
                "grep -c ' /b/inner ' /proc/mounts; touch /b/inner/x && echo w || echo r",
            )
        };
        assert_eq!(seen("ro"), "1\nr", "read-only with what is mounted below");
        assert_eq!(seen("ro,bind-recursive=writable"), "1\nw");
        assert_eq!(seen("bind-recursive=disabled"), "0\nw");
        let said = refused(b, &["-v", &bind(":wat")]);
        assert!(said.contains("invalid mode: wat"), "{said}");
        let (_, said) = b.fails(&["run", "--rm", "-v", &bind(":rshared"), "box", "true"]);
        assert!(said.contains("but it is not a shared mount"), "{said}");
        let (_, said) = b.fails(&["run", "--rm", "-v", &bind(":slave"), "box", "true"]);
        assert!(
            said.contains("but it is not a shared or slave mount"),
            "{said}"
        );
    });
}

#[test]
fn mounts_spread_where_they_may() {
    with_engine(|b| {
        let folder = b.path("f");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        b.mount_tmpfs(&folder);
        b.share(&folder);
        std::fs::create_dir_all(folder.join("late")).unwrap();
        for mode in ["rslave", "rprivate", "rshared"] {
            let bind = format!("{}:/b:{mode}", folder.display());
            b.ok(&[
                "run",
                "-d",
                "--name",
                mode,
                "--privileged",
                "-v",
                &bind,
                "box",
                "sleep",
                "100",
            ]);
        }
        b.mount_tmpfs(&folder.join("late"));
        let count = |name: &str, place: &str| {
            let script = format!("grep -c ' {place} ' /proc/mounts || true");
            b.ok(&["exec", name, "sh", "-c", &script])
        };
        assert_eq!(count("rslave", "/b/late"), "1");
        assert_eq!(count("rshared", "/b/late"), "1");
        assert_eq!(count("rprivate", "/b/late"), "0");
        b.ok(&[
            "exec",
            "rshared",
            "sh",
            "-c",
            "mkdir /b/own; mount -t tmpfs none /b/own",
        ]);
        assert!(is_mounted(folder.join("own").to_str().unwrap(), b));
        assert_eq!(
            b.inspect("rslave", "{{(index .Mounts 0).Propagation}}"),
            "rslave"
        );
    });
}

#[test]
fn tmpfs_subpaths_and_images() {
    with_engine(|b| {
        let options = ["--tmpfs", "/a:size=1m,mode=700", "--tmpfs", "/etc"];
        let seen = run(b, &options, "grep ' /a ' /proc/mounts; stat -c %a /a /etc");
        assert!(
            seen.contains("size=1024k") && seen.contains("noexec"),
            "{seen}"
        );
        assert!(seen.ends_with("700\n755"), "{seen}");
        let mount = "type=tmpfs,dst=/t,tmpfs-size=65536,tmpfs-mode=1750";
        b.ok(&[
            "create", "--name", "tt", "--tmpfs", "/a", "--mount", mount, "box", "stat", "-c", "%a",
            "/t",
        ]);
        assert_eq!(b.ok(&["start", "-a", "tt"]), "1750");
        assert_eq!(
            b.inspect(
                "tt",
                "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}"
            ),
            "tmpfs /t true"
        );
        let (_, said) = b.fails(&["run", "--rm", "--tmpfs", "/a:wat", "box", "true"]);
        assert!(said.contains("invalid tmpfs option [\"wat\"]"), "{said}");
        let said = refused(b, &["-v", "/a", "--tmpfs", "/a", "-v", "one:/a"]);
        assert!(said.contains("Duplicate mount point: /a"), "{said}");

        run(
            b,
            &["-v", "vol:/v"],
            "mkdir -p /v/s/t; echo deep > /v/s/t/f; ln -s s /v/good; ln -s ../.. /v/up",
        );
        let at = |path: &str| format!("type=volume,src=vol,dst=/x,volume-subpath={path}");
        assert_eq!(run(b, &["--mount", &at("s/t")], "cat /x/f"), "deep");
        assert_eq!(run(b, &["--mount", &at("good/t/f")], "cat /x"), "deep");
        let said = refused(b, &["--mount", &at("../x")]);
        assert!(
            said.contains("subpath must be a relative path within the volume"),
            "{said}"
        );
        for (path, words) in [
            ("up", "escapes the base directory"),
            ("no", "cannot access path"),
        ] {
            let (code, said) = b.fails(&["run", "--rm", "--mount", &at(path), "box", "true"]);
            assert!(code != 0 && said.contains(words), "{said}");
        }

        image_with_files(b);
        let image = "type=image,src=full,dst=/i,image-subpath=data/sub";
        b.ok(&[
            "create", "--name", "ii", "--mount", image, "box", "cat", "/i/f",
        ]);
        assert_eq!(b.ok(&["start", "-a", "ii"]), "hello");
        let (_, said) = b.fails(&["rmi", "full"]);
        assert!(said.contains("using its referenced image"), "{said}");
        b.ok(&["rm", "ii"]);
        b.ok(&["rm", "tt"]);
        b.ok(&["rmi", "full"]);
        let left = std::fs::read_dir(b.path("root/rootfs")).unwrap().count();
        assert_eq!(left, 0, "no layer is left");
        assert!(!Path::new("/i").exists());
    });
}

#[test]
fn nothing_lies_over_proc() {
    with_engine(|b| {
        let fails = |volume: &str| b.fails(&["run", "--rm", "-v", volume, "box", "true"]).1;
        let words = fails("/tmp:/proc//sys");
        assert!(words.contains("inside /proc"), "{words}");
        let words = fails("/proc/cpuinfo:/proc/self/maps");
        assert!(words.contains("inside /proc"), "{words}");
        let words = fails("/tmp:/proc");
        assert!(words.contains("not of type proc"), "{words}");
        run(b, &["-v", "/proc:/proc"], "test -e /proc/1");
        std::fs::write(b.path("cpus"), "one\n").unwrap();
        let volume = format!("{}:/proc/cpuinfo", b.path("cpus").display());
        assert_eq!(run(b, &["-v", &volume], "cat /proc/cpuinfo"), "one");
    });
}
