//! Images to and from real registries: Debian's `docker-registry`, open and with a login.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::bench::{Bench, with_engine};

/// `me`, whose word is `secret`.
const USERS: &str = "me:$2y$05$F1mHvA.o17hxkI1/smSitudsaWuKaBaEwMJcir8uMVRsFJgkMZa.K\n";

/// A registry at this port; it ends with the test, whose folder its command line names.
fn registry(b: &Bench, port: u16, login: bool) {
    let folder = b.path(&format!("registry-{port}"));
    std::fs::create_dir(&folder).unwrap();
    let users = folder.join("users");
    std::fs::write(&users, USERS).unwrap();
    let mut config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
        folder.join("data").display()
    );
    if login {
        let line = format!(
            "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
            users.display()
        );
        config.push_str(&line);
    }
    let file = folder.join("config.yml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&file).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("Debian's docker-registry is needed");
    // Reaped when it ends.
    std::thread::spawn(move || child.wait_with_output());
    b.until("the registry answers", |_| {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
}

#[test]
fn push_sends_what_is_missing_and_pull_finds_it() {
    with_engine(|b| {
        registry(b, 5000, false);
        let id = b.inspect("box", "{{.Id}}");
        for name in ["a/box:1", "a/box:2", "b/box:1"] {
            b.ok(&["tag", "box", &format!("localhost:5000/{name}")]);
        }
        let first = b.ok(&["push", "localhost:5000/a/box:1"]);
        assert!(
            first.contains("The push refers to repository [localhost:5000/a/box]"),
            "{first}"
        );
        assert!(
            first.contains(": Pushed") && first.contains("1: digest: sha256:"),
            "{first}"
        );
        let all = b.ok(&["push", "-a", "localhost:5000/a/box"]);
        assert_eq!(all.matches("Layer already exists").count(), 2, "{all}");
        assert!(all.contains("2: digest: sha256:"), "{all}");
        let other = b.ok(&["push", "localhost:5000/b/box:1"]);
        assert!(other.contains("Mounted from a/box"), "{other}");
        let digest = other
            .split("digest: ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        assert!(
            first.contains(digest),
            "the same image is the same manifest"
        );
        let (_, words) = b.fails(&["push", "localhost:5000/a/box:nosuch"]);
        assert!(
            words.contains("An image does not exist locally with the tag: localhost:5000/a/box"),
            "{words}"
        );
        let digests = b.inspect("box", "{{json .RepoDigests}}");
        assert!(
            digests.contains(&format!("localhost:5000/b/box@{digest}")),
            "{digests}"
        );

        b.ok(&["rmi", "-f", &id]);
        assert_eq!(b.ok(&["images", "-aq"]), "");
        let pulled = b.ok(&["pull", "localhost:5000/a/box:1"]);
        assert!(
            pulled.contains("Status: Downloaded newer image for localhost:5000/a/box:1"),
            "{pulled}"
        );
        assert_eq!(b.inspect("localhost:5000/a/box:1", "{{.Id}}"), id);
        let again = b.ok(&["pull", "localhost:5000/a/box:1"]);
        assert!(
            again.contains("Status: Image is up to date for localhost:5000/a/box:1"),
            "{again}"
        );
        b.ok(&["pull", "-q", "-a", "localhost:5000/a/box"]);
        assert_eq!(b.inspect("localhost:5000/a/box:2", "{{.Id}}"), id);
        let pulled = b.ok(&["push", "localhost:5000/a/box:1"]);
        assert!(
            pulled.contains("Layer already exists") && pulled.contains(digest),
            "{pulled}"
        );

        // By digest alone it has no tag, and goes by its digest.
        b.ok(&["rmi", "-f", &id]);
        let by_digest = format!("localhost:5000/b/box@{digest}");
        b.ok(&["pull", "-q", &by_digest]);
        assert_eq!(
            b.inspect(&by_digest, "{{.Id}} {{.RepoTags}}"),
            format!("{id} []")
        );
        let listed = b.ok(&[
            "images",
            "--digests",
            "--format",
            "{{.Repository}} {{.Tag}} {{.Digest}}",
        ]);
        assert_eq!(listed, format!("localhost:5000/b/box <none> {digest}"));
        let gone = b.ok(&["rmi", &by_digest]);
        assert!(
            gone.starts_with(&format!("Untagged: {by_digest}\nDeleted: {id}")),
            "{gone}"
        );

        for name in [
            "localhost:5000/a/box:nosuch",
            "localhost:5000/nosuch:latest",
        ] {
            let (_, words) = b.fails(&["pull", name]);
            let wanted = format!("manifest for {name} not found: manifest unknown");
            assert!(words.contains(&wanted), "{words}");
        }
        let (_, words) = b.fails(&["pull", "--platform", "foobar", "localhost:5000/a/box:1"]);
        assert!(
            words.contains("unknown operating system or architecture"),
            "{words}"
        );
        let (_, words) = b.fails(&["search", "localhost:5000/box"]);
        assert!(words.contains("has no search"), "{words}");
    });
}

#[test]
fn a_registry_with_a_login() {
    with_engine(|b| {
        registry(b, 5001, true);
        let name = "localhost:5001/mine/box:1";
        b.ok(&["tag", "box", name]);
        let (_, words) = b.fails(&["push", name]);
        assert!(words.contains("no basic auth credentials"), "{words}");
        let (_, words) = b.fails(&["pull", name]);
        assert!(words.contains("no basic auth credentials"), "{words}");
        let (_, words) = b.fails(&["login", "-u", "me", "-p", "wrong", "localhost:5001"]);
        assert!(words.contains("401 Unauthorized"), "{words}");
        let said = b.ok(&["login", "-u", "me", "-p", "secret", "localhost:5001"]);
        assert!(said.contains("Login Succeeded"), "{said}");
        b.ok(&["push", name]);
        b.ok(&["rmi", name]);
        b.ok(&["pull", "-q", name]);
        b.ok(&["logout", "localhost:5001"]);
        let (_, words) = b.fails(&["push", name]);
        assert!(words.contains("no basic auth credentials"), "{words}");
    });
}
