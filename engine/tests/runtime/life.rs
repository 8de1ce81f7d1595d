//! Beginnings and ends.

use std::path::Path;

use windlassd::container::error::Kind;
use windlassd::container::parts::Runtime as _;

use crate::lab::{Lab, collect, eventually, process, until, within};

#[tokio::test]
async fn exit_codes() {
    let lab = Lab::new();
    for (script, code) in [("true", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let script = format!("sh -c '{script}' & wait $!");
        let (_, exit) = lab.script(&script).await;
        assert_eq!(exit.code, code, "{script}");
        assert!(
            !exit.oom_killed && exit.at.ends_with('Z') && exit.at.len() == 30,
            "{exit:?}"
        );
    }
}

#[tokio::test]
async fn programs_that_are_not_there() {
    let lab = Lab::new();
    std::fs::write(lab.root().join("etc/odd"), "no program").unwrap();
    for (program, words) in [
        (
            "nosuch",
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        ("/bin/nosuch", "stat /bin/nosuch: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "is a directory"),
        ("", "exec: \"\": executable file not found in $PATH"),
    ] {
        let spec = lab.spec(&[program]);
        let error = lab.runtime.create(&spec).await.unwrap_err();
        assert!(
            error.message.contains(words),
            "{program}: {}",
            error.message
        );
        assert_eq!(Lab::groups(&spec.id), Vec::<std::path::PathBuf>::new());
        assert_eq!(lab.runtime.alive(&spec.id).await, None);
    }
    let mut spec = lab.spec(&["true"]);
    spec.process.user = "captain".to_owned();
    let error = lab.runtime.create(&spec).await.unwrap_err().message;
    assert!(error.contains("unable to find user captain"), "{error}");
}

#[tokio::test]
async fn created_is_not_started() {
    let lab = Lab::new();
    let spec = lab.spec(&["touch", "/tmp/ran"]);
    let pid = lab.runtime.create(&spec).await.unwrap();
    assert_eq!(lab.runtime.alive(&spec.id).await, Some(pid));
    assert!(!lab.root().join("tmp/ran").exists());
    lab.runtime.start(&spec.id).await.unwrap();
    assert_eq!(lab.wait(&spec.id).await.code, 0);
    assert!(lab.root().join("tmp/ran").exists());
    lab.runtime.delete(&spec.id).await.unwrap();
    // Deleted without having been started, and never made at all.
    let spec = lab.spec(&["true"]);
    let pid = lab.runtime.create(&spec).await.unwrap();
    lab.runtime.delete(&spec.id).await.unwrap();
    lab.runtime.delete(&spec.id).await.unwrap();
    eventually("its process ends", async || {
        !Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    assert_eq!(
        lab.runtime.wait(&spec.id).await.unwrap_err().kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn signals() {
    let lab = Lab::new();
    let spec = lab.spec(&[
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done",
    ]);
    let mut attachment = lab.run(&spec).await;
    until(&mut attachment, "up").await;
    lab.runtime.signal(&spec.id, libc::SIGTERM).await.unwrap();
    assert_eq!(lab.wait(&spec.id).await.code, 5);
    assert!(lab.runtime.signal(&spec.id, libc::SIGTERM).await.is_err());
    let spec = lab.spec(&["sleep", "100"]);
    lab.run(&spec).await;
    lab.runtime.signal(&spec.id, libc::SIGKILL).await.unwrap();
    assert_eq!(lab.wait(&spec.id).await.code, 137);
}

#[tokio::test]
async fn init_reaps_and_forwards() {
    let lab = Lab::new();
    let script = "(sleep 0.1 &) ; sleep 0.3; ps -o stat | grep -c Z; exit 3";
    let mut spec = lab.spec(&["sh", "-c", script]);
    spec.host.init = Some(true);
    let (output, exit) = lab.complete(&spec).await;
    assert_eq!((output.stdout.trim(), exit.code), ("0", 3), "{output:?}");
    let mut spec = lab.spec(&[
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo $$; while :; do sleep 0.05; done",
    ]);
    spec.host.init = Some(true);
    let mut attachment = lab.run(&spec).await;
    let pid = until(&mut attachment, "\n").await;
    assert_ne!(pid.trim(), "1");
    lab.runtime.signal(&spec.id, libc::SIGTERM).await.unwrap();
    assert_eq!(lab.wait(&spec.id).await.code, 9);
    let mut spec = lab.spec(&["/etc/passwd"]);
    spec.host.init = Some(true);
    assert!(lab.runtime.create(&spec).await.is_err());
}

#[tokio::test]
async fn engine_goes_and_comes() {
    let mut lab = Lab::new();
    let mut spec = lab.spec(&["sh", "-c", "echo up; read line; echo got $line; exit 4"]);
    spec.process.stdin = true;
    let mut attachment = lab.run(&spec).await;
    until(&mut attachment, "up").await;
    let (exec, _running) = {
        let process = process(&["sh", "-c", "sleep 0.3; exit 6"]);
        lab.runtime.exec(&spec.id, "e1", &process).await.unwrap()
    };
    drop(attachment);
    lab.reopen();
    assert!(lab.runtime.alive(&spec.id).await.is_some() && exec > 0);
    assert_eq!(
        within(lab.runtime.wait_exec(&spec.id, "e1"))
            .await
            .unwrap()
            .code,
        6
    );
    let mut attachment = lab.runtime.attach(&spec.id).await.unwrap();
    let stdin = attachment.stdin.as_mut().unwrap();
    tokio::io::AsyncWriteExt::write_all(stdin, b"home\n")
        .await
        .unwrap();
    until(&mut attachment, "got home").await;
    assert_eq!(lab.wait(&spec.id).await.code, 4);
    // The end came while nobody was there; the shim is gone too.
    eventually("the shim ends", async || {
        lab.runtime.alive(&spec.id).await.is_none()
    })
    .await;
    lab.reopen();
    assert_eq!(lab.wait(&spec.id).await.code, 4);
}

#[tokio::test]
async fn deletion_leaves_nothing() {
    let lab = Lab::new();
    let spec = lab.spec(&["sh", "-c", "sleep 100 & sleep 101 & echo up; wait"]);
    let mut attachment = lab.run(&spec).await;
    until(&mut attachment, "up").await;
    let pid = lab.runtime.alive(&spec.id).await.unwrap();
    let (other, _streams) = lab
        .runtime
        .exec(&spec.id, "e", &process(&["sleep", "102"]))
        .await
        .unwrap();
    assert!(!Lab::groups(&spec.id).is_empty());
    lab.runtime.delete(&spec.id).await.unwrap();
    for pid in [pid, other] {
        eventually("killed", async || {
            !Path::new(&format!("/proc/{pid}/exe")).exists()
        })
        .await;
    }
    assert_eq!(Lab::groups(&spec.id), Vec::<std::path::PathBuf>::new());
    assert!(!lab.dir.path().join("run/shim").join(&spec.id).exists());
    collect(attachment).await;
}

#[tokio::test]
async fn pausing() {
    let lab = Lab::new();
    let spec = lab.spec(&["sh", "-c", "while :; do echo tick; sleep 0.02; done"]);
    let mut attachment = lab.run(&spec).await;
    until(&mut attachment, "tick").await;
    lab.runtime.pause(&spec.id).await.unwrap();
    // Whatever was on its way has come when nothing comes for a while.
    let quiet = std::time::Duration::from_millis(300);
    while tokio::time::timeout(quiet, attachment.output.recv())
        .await
        .is_ok()
    {}
    lab.runtime.resume(&spec.id).await.unwrap();
    until(&mut attachment, "tick").await;
    lab.runtime.pause(&spec.id).await.unwrap();
    lab.runtime.delete(&spec.id).await.unwrap();
    assert_eq!(Lab::groups(&spec.id), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn out_of_memory() {
    let lab = Lab::new();
    let mut spec = lab.spec(&["sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=1"]);
    spec.host.memory = 16 << 20;
    spec.host.memory_swap = 16 << 20;
    spec.process.args = vec![
        "dd".into(),
        "if=/dev/zero".into(),
        "of=/dev/null".into(),
        "bs=200M".into(),
        "count=1".into(),
    ];
    let (_, exit) = lab.complete(&spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test]
async fn shims_are_small() {
    let lab = Lab::new();
    let spec = lab.spec(&["sleep", "100"]);
    lab.run(&spec).await;
    let pid = lab.runtime.alive(&spec.id).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|l| l.strip_prefix("PPid:\t"))
        .unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap();
    // What is its own alone; pages of the program's file are shared with the engine.
    let private: u64 = rollup
        .lines()
        .filter(|l| l.starts_with("Anonymous:"))
        .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    println!("{rollup}");
    let groups = std::fs::read_to_string(format!("/proc/{parent}/cgroup")).unwrap();
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // Not in the engine's service, whose end must not be the shim's.
        assert!(groups.trim().ends_with("/windlass/shims"), "{groups}");
    }
    assert!(private > 0 && private <= 2048, "{private} kB\n{rollup}");
}
