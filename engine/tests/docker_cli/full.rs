//! A full disk: clear errors, nothing half-made, and all is well again when there is room.

use std::io::Write as _;
use std::path::PathBuf;

use crate::bench::{Bench, with_engine};
use crate::torture::{Registry, big, check, prepare};

const NO_ROOM: &str = "no space left on device";

/// Takes all room but so many bytes.
fn fill(b: &Bench, left: u64) -> PathBuf {
    let path = b.path("root/fill");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![1u8; 64 * 1024];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&block[..1024]).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(left)).unwrap();
    path
}

/// It fails for want of room, and leaves nothing.
fn fails(b: &Bench, words: &[&str]) {
    let output = b.docker(words);
    let said = crate::bench::text(&output.stdout) + &crate::bench::text(&output.stderr);
    assert!(!output.status.success(), "{words:?}: {said}");
    assert!(
        said.to_lowercase().contains(NO_ROOM),
        "{words:?}: {said}\n{}",
        b.log()
    );
    assert_eq!(check(b), "", "{words:?}");
}

#[test]
fn nothing_is_left_half_made_on_a_full_disk() {
    with_engine(|b| {
        b.kill_engine();
        b.mount_sized(&b.path("root"), "size=64m");
        b.start();
        b.import();
        let _registry = Registry::start(&b.path(""));
        prepare(b);
        let context = b.path("context");
        let context = context.to_str().unwrap();
        let lines = "FROM box\nCOPY f0 /data/f0\nVOLUME /data\n";
        std::fs::write(b.path("context/Full"), lines).unwrap();
        let file = b.path("context/Full");
        b.ok(&[
            "build",
            "-q",
            "-t",
            "full",
            "-f",
            file.to_str().unwrap(),
            context,
        ]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "talks",
            "box",
            "sh",
            "-c",
            "while :; do echo line; sleep 0.01; done",
        ]);
        b.ok(&["run", "-d", "--name", "runs", "box", "sleep", "100"]);
        let pid = b.inspect("talks", "{{.State.Pid}}");
        let images = b.ok(&["images", "-q"]);

        let filled = fill(b, 1024 * 1024);
        fails(b, &["pull", &big()]);
        fails(b, &["build", "--no-cache", "-t", "more", context]);
        fails(
            b,
            &[
                "create",
                "--name",
                "cc",
                "-v",
                "named:/data",
                "full",
                "true",
            ],
        );
        assert_eq!(b.ok(&["images", "-q"]), images);
        let named = b.path("root/volumes/named/_data");
        let files = std::fs::read_dir(named).map_or(0, |entries| entries.count());
        assert_eq!(files, 0, "not half filled");
        b.fails(&["exec", "runs", "sh", "-c", "head -c 9000000 /dev/zero > /x"]);
        b.ok(&["exec", "runs", "true"]);

        // Not a byte: what runs goes on, and can be stopped and removed.
        std::fs::remove_file(filled).unwrap();
        b.ok(&["exec", "runs", "rm", "-f", "/x"]);
        let filled = fill(b, 0);
        let failed = b.docker(&["run", "--name", "late", "box", "true"]);
        let said = crate::bench::text(&failed.stderr);
        assert!(
            failed.status.success() || said.contains(NO_ROOM) || said.contains("No space"),
            "{said}"
        );
        b.docker(&["rm", "-f", "late"]);
        assert_eq!(
            b.inspect("talks", "{{.State.Status}} {{.State.Pid}}"),
            format!("running {pid}")
        );
        assert!(b.ok(&["logs", "--tail", "1", "talks"]).contains("line"));
        b.ok(&["rm", "-f", "runs"]);
        assert_eq!(check(b), "");

        std::fs::remove_file(filled).unwrap();
        let count = |b: &Bench| b.ok(&["logs", "talks"]).lines().count();
        let before = count(b);
        b.until("its log goes on", |b| count(b) > before);
        b.ok(&["pull", &big()]);
        b.ok(&[
            "run",
            "--rm",
            "-v",
            "named:/data",
            "full",
            "test",
            "-s",
            "/data/f0",
        ]);
        b.ok(&["rm", "-f", "talks"]);
        assert_eq!(check(b), "");
    });
}
