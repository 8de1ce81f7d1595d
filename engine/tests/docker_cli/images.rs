//! Images by the docker command: names, lists, commits, archives.

use std::io::Write as _;

use crate::bench::{Bench, text, with_engine};

/// An archive of one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(1_000_000_000);
    header.set_uid(7);
    header.set_gid(8);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

fn imported(b: &Bench, arguments: &[&str], archive: &[u8]) -> String {
    let made = b.feed(&[&["import"], arguments].concat(), archive);
    assert!(made.status.success(), "{}", text(&made.stderr));
    text(&made.stdout).trim().to_owned()
}

#[test]
fn commit_keeps_what_the_container_wrote() {
    with_engine(|b| {
        let script =
            "echo hi > /new; mkdir -p /d/e; rm /etc/passwd; chmod 700 /bin; echo x > /vol/x";
        b.ok(&[
            "run", "--name", "cc", "-v", "/vol", "box", "sh", "-c", script,
        ]);
        let wanted = "C /bin\nA /d\nA /d/e\nC /etc\nD /etc/passwd\nA /new\nA /vol";
        assert_eq!(b.ok(&["diff", "cc"]), wanted);
        let id = b.ok(&[
            "commit",
            "-m",
            "message",
            "-a",
            "me",
            "-c",
            "CMD [\"cat\", \"/new\"]",
            "-c",
            "ENV A=b",
            "-c",
            "ENV C=$A",
            "-c",
            "EXPOSE 80",
            "-c",
            "LABEL x=y",
            "cc",
            "made:1",
        ]);
        assert_eq!(b.ok(&["run", "--rm", "made:1"]), "hi");
        let seen = b.ok(&[
            "run",
            "--rm",
            "made:1",
            "sh",
            "-c",
            "ls /vol; stat -c %a /bin; test -e /etc/passwd || echo gone",
        ]);
        assert_eq!(seen, "700\ngone", "a volume's content is no part of it");
        let base = b.inspect("box", "{{.Id}}");
        let fields = "{{.Id}} {{.Parent}} {{.Comment}} {{.Author}} {{.Config.Env}} {{.Config.Labels.x}} {{json .Config.ExposedPorts}}";
        let seen = b.inspect("made:1", fields);
        assert!(
            seen.starts_with(&format!("{id} {base} message me [")),
            "{seen}"
        );
        assert!(seen.ends_with("A=b C=b] y {\"80/tcp\":{}}"), "{seen}");
        let history = b.ok(&[
            "history",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.CreatedBy}} {{.Comment}}",
            "made:1",
        ]);
        let (first, second) = history.split_once('\n').unwrap();
        assert_eq!(first, format!("{id} sh -c {script} message"));
        assert!(second.starts_with(&base), "{second}");
        let (_, words) = b.fails(&["rmi", "-f", &base]);
        assert!(
            words.contains("(cannot be forced) - image has dependent child images"),
            "{words}"
        );
        let (_, words) = b.fails(&["commit", "-c", "RUN true", "cc"]);
        assert!(
            words.contains("run is not a valid change command"),
            "{words}"
        );
        let (_, words) = b.fails(&["commit", "nosuch"]);
        assert!(words.contains("No such container: nosuch"), "{words}");

        b.ok(&["run", "-d", "--name", "runs", "box", "sleep", "100"]);
        let same = b.ok(&["commit", "runs"]);
        assert_eq!(
            b.inspect(&same, "{{len .RootFS.Layers}} {{.RepoTags}}"),
            "1 []"
        );
        assert_eq!(b.inspect("runs", "{{.State.Status}}"), "running");
        let listed = b.ok(&["images", "-q", "--no-trunc", "--filter", "dangling=true"]);
        assert_eq!(listed, same);
        assert!(b.ok(&["image", "prune", "-f"]).contains(&same));
        b.ok(&["rm", "-f", "-v", "cc", "runs"]);
        let gone = b.ok(&["rmi", "made:1"]);
        assert!(
            gone.starts_with(&format!(
                "Untagged: made:1\nDeleted: {id}\nDeleted: sha256:"
            )),
            "{gone}"
        );
    });
}

#[test]
fn lists_and_removals() {
    with_engine(|b| {
        let old = imported(
            b,
            &["-c", "LABEL is=old", "-m", "said", "-", "app:1"],
            &archive("a", b"1"),
        );
        let new = imported(
            b,
            &["-c", "LABEL is=new", "-", "host.test/deep/app:2"],
            &archive("a", b"22"),
        );
        assert_eq!(b.inspect("app:1", "{{.Comment}} {{.Size}}"), "said 1");
        let ids = |filter: &str| b.ok(&["images", "-q", "--no-trunc", "--filter", filter]);
        for (filter, wanted) in [
            ("reference=app", &old),
            ("reference=host.test/*/app:*", &new),
            ("label=is=old", &old),
            ("label=is=new", &new),
        ] {
            assert_eq!(&ids(filter), wanted, "{filter}");
        }
        assert_eq!(ids("since=app:1"), new);
        assert_eq!(ids("before=app:1"), b.inspect("box", "{{.Id}}"));
        let (_, words) = b.fails(&["images", "--filter", "nonsense=x"]);
        assert!(words.contains("invalid filter 'nonsense'"), "{words}");

        for (name, wanted) in [
            ("UPPER:1", "must be lowercase"),
            ("app:-", "invalid"),
            ("sha256:abc", "refusing to create an ambiguous tag"),
        ] {
            let (_, words) = b.fails(&["tag", "app:1", name]);
            assert!(words.contains(wanted), "{name}: {words}");
        }
        b.ok(&["tag", "app:1", "moved:1"]);
        b.ok(&["tag", "host.test/deep/app:2", "moved:1"]);
        assert_eq!(b.inspect("moved:1", "{{.Id}}"), new);
        let (_, words) = b.fails(&["rmi", &new]);
        assert!(
            words.contains("(must be forced) - image is referenced in multiple repositories"),
            "{words}"
        );
        assert_eq!(b.ok(&["rmi", "moved:1"]), "Untagged: moved:1");

        b.ok(&["create", "--name", "user", "app:1", "x"]);
        let (_, words) = b.fails(&["rmi", "app:1"]);
        let short = &old[7..19];
        assert!(
            words.contains(
                "conflict: unable to remove repository reference \"app:1\" (must force) - container"
            ),
            "{words}"
        );
        assert!(
            words.ends_with(&format!("is using its referenced image {short}")),
            "{words}"
        );
        let usage = b.ok(&["system", "df", "-v", "--format", "{{json .Images}}"]);
        assert!(usage.contains(r#""Containers":"1""#), "{usage}");
        b.ok(&["image", "prune", "-a", "-f", "--filter", "label=is=old"]);
        assert_eq!(b.inspect("app:1", "{{.Id}}"), old, "its container keeps it");
        b.ok(&["rm", "user"]);
        let pruned = b.ok(&["image", "prune", "-a", "-f", "--filter", "label=is=old"]);
        assert!(
            pruned.contains(&old) && pruned.ends_with("Total reclaimed space: 1B"),
            "{pruned}"
        );
        b.ok(&["image", "prune", "-a", "-f", "--filter", "label!=is=new"]);
        assert_eq!(b.ok(&["images", "-q", "--no-trunc"]), new);
        b.ok(&["image", "prune", "-a", "-f", "--filter", "until=1h"]);
        assert_eq!(b.ok(&["images", "-q", "--no-trunc"]), new, "it is younger");
        let gone = b.ok(&["rmi", &new[7..19]]);
        assert!(
            gone.starts_with("Untagged: host.test/deep/app:2\nDeleted: sha256:"),
            "{gone}"
        );
        let (_, words) = b.fails(&["rmi", " "]);
        assert!(words.contains("image name cannot be blank"), "{words}");
    });
}

#[test]
fn a_container_outlives_its_image() {
    with_engine(|b| {
        let id = b.inspect("box", "{{.Id}}");
        b.ok(&["create", "--name", "fresh", "box", "echo", "still here"]);
        b.ok(&["run", "-d", "--name", "runs", "box", "sleep", "100"]);
        let (_, words) = b.fails(&["rmi", "-f", &id]);
        assert!(
            words.contains("(cannot be forced) - image is being used by running container"),
            "{words}"
        );
        b.ok(&["rm", "-f", "runs"]);
        let gone = b.ok(&["rmi", "-f", "box"]);
        assert!(gone.contains(&format!("Deleted: {id}")), "{gone}");
        assert_eq!(b.ok(&["images", "-aq"]), "");
        b.kill_engine();
        b.start();
        assert_eq!(b.ok(&["start", "-a", "fresh"]), "still here");
        let layers = b.path("root").join("layers");
        assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 1);
        b.ok(&["rm", "fresh"]);
        assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 0);
    });
}

#[test]
fn archives_keep_ids() {
    with_engine(|b| {
        // Headers that no engine would write itself.
        let one = imported(b, &["-", "one:1"], &archive("./odd", b"1"));
        let two = imported(b, &["-", "two:1"], &archive("b", &[2; 100_000]));
        b.ok(&["tag", "one:1", "one:2"]);
        let saved = b.docker(&["save", "one", "two:1"]);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
        let mut names = Vec::new();
        let mut manifest = String::new();
        for entry in tar::Archive::new(&saved.stdout[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                std::io::Read::read_to_string(&mut entry, &mut manifest).unwrap();
            }
            names.push(name);
        }
        for name in ["oci-layout", "index.json", "manifest.json", "repositories"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        assert!(manifest.contains(r#"["one:1","one:2"]"#), "{manifest}");
        b.ok(&["rmi", "one:1", "one:2", "two:1"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&saved.stdout).unwrap();
        let loaded = b.feed(&["load"], &packed.finish().unwrap());
        let mut lines: Vec<_> = text(&loaded.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "Loaded image: one:1",
                "Loaded image: one:2",
                "Loaded image: two:1"
            ]
        );
        assert_eq!(b.inspect("one:2", "{{.Id}}"), one);
        assert_eq!(b.inspect("two:1", "{{.Id}}"), two);

        // By id there is no name; and a name that is taken moves.
        let nameless = b.docker(&["save", &one]).stdout;
        b.ok(&["rmi", "one:1", "one:2"]);
        let loaded = b.feed(&["load"], &nameless);
        assert_eq!(
            text(&loaded.stdout).trim(),
            format!("Loaded image ID: {one}")
        );
        b.ok(&["tag", &one, "two:1"]);
        let loaded = text(&b.feed(&["load"], &saved.stdout).stdout);
        let words = format!(
            "The image two:1 already exists, renaming the old one with ID {one} to empty string"
        );
        assert!(loaded.contains(&words), "{loaded}");
        let (_, words) = b.fails(&["save", "nosuch"]);
        assert!(words.contains("No such image: nosuch"), "{words}");
        let broken = b.feed(&["load"], b"no archive at all");
        assert!(!broken.status.success());
        let xz = b.feed(&["load"], b"\xfd7zXZ\0\0\x04 and so on");
        assert!(!xz.status.success());
        assert!(text(&xz.stderr).contains("broken archive"), "{xz:?}");
    });
}

#[test]
fn imports_from_an_address() {
    with_engine(|b| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let n = std::io::Read::read(&mut stream, &mut request).unwrap();
                let found = text(&request[..n]).starts_with("GET /there ");
                let body = if found {
                    archive("f", b"far")
                } else {
                    Vec::new()
                };
                let status = if found { "200 OK" } else { "404 Not Found" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
            }
        });
        b.ok(&["import", &format!("http://{address}/there"), "far:1"]);
        let from = format!("Imported from http://{address}/there");
        assert_eq!(b.inspect("far:1", "{{.Comment}}"), from);
        let (_, words) = b.fails(&["import", &format!("http://{address}/elsewhere")]);
        assert!(words.contains("404"), "{words}");
        server.join().unwrap();
        let copied = b.path("copied.tar");
        b.ok(&["create", "--name", "cc", "far:1", "x"]);
        b.ok(&["export", "-o", copied.to_str().unwrap(), "cc"]);
        b.ok(&["import", copied.to_str().unwrap(), "far:2"]);
        assert_eq!(b.inspect("far:2", "{{.Size}}"), "3");
    });
}

#[test]
fn images_tell_what_happens_to_them() {
    with_engine(|b| {
        let id = imported(b, &["-c", "LABEL k=v", "-", "told:1"], &archive("a", b"1"));
        b.ok(&["tag", "told:1", "told:2"]);
        let saved = b.docker(&["save", "told:1"]).stdout;
        b.feed(&["load"], &saved);
        b.ok(&["rmi", "told:1", "told:2"]);
        b.ok(&["image", "prune", "-f"]);
        let format = "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Actor.Attributes.k}}{{.Actor.Attributes.reclaimed}}";
        let told = b.ok(&[
            "events",
            "--since",
            "1",
            "--until",
            "-1s",
            "--filter",
            "type=image",
            "--format",
            format,
        ]);
        let told: Vec<&str> = told
            .lines()
            .skip_while(|line| !line.contains(&id))
            .collect();
        let none = "<no value>";
        let of = |action: &str, name: &str| format!("{action} {id} {name} v{none}");
        let wanted = [
            of("tag", "told:1"),
            of("import", &id),
            of("tag", "told:2"),
            of("save", &id),
            of("load", &id),
            of("untag", &id),
            of("untag", &id),
            of("delete", &id),
            format!("prune  {none} {none}0"),
        ];
        assert_eq!(told, wanted);
    });
}
