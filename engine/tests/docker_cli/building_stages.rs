//! Stages, the mounts of RUN, and what builds keep.

use std::process::{Command, Stdio};

use crate::bench::with_engine;
use crate::building_language::{context, say};

const STAGES: &str = "FROM box AS base\nRUN echo base > /base\n\
    FROM base AS left\nRUN cat /proc/uptime > /left; sleep 2; cat /proc/uptime >> /left\n\
    FROM base AS right\nRUN cat /proc/uptime > /right; sleep 2; cat /proc/uptime >> /right\n\
    FROM box AS broken\nRUN false\n\
    FROM base\nCOPY --from=left /left /out/\nCOPY --from=2 /right /out/\nCOPY --from=box /bin/sh /out/shell\n";

#[test]
fn stages_side_by_side() {
    with_engine(|b| {
        let (code, said) = say(b, &["-t", "app"], STAGES);
        assert_eq!(code, 0, "{said}");
        let span = |name: &str| -> Vec<f64> {
            let text = b.ok(&["run", "--rm", "app", "cat", &format!("/out/{name}")]);
            let first = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
            text.lines().map(first).collect()
        };
        let (left, right) = (span("left"), span("right"));
        assert!(
            left[0] < right[1] && right[0] < left[1],
            "{left:?} {right:?}"
        );
        let steps: Vec<&str> = said.lines().filter(|l| l.starts_with("Step ")).collect();
        let numbers: Vec<String> = (1..=10).map(|n| format!("Step {n}/10 :")).collect();
        assert_eq!(steps.len(), 10, "{said}");
        for (step, number) in steps.iter().zip(&numbers) {
            assert!(step.starts_with(number), "{said}");
        }
        assert_eq!(
            b.ok(&["run", "--rm", "app", "ls", "/out"]),
            "left\nright\nshell"
        );
        let (_, again) = say(b, &["-t", "app"], STAGES);
        assert_eq!(again.matches("Using cache").count(), 6, "{again}");
        let (code, target) = say(b, &["--target", "left", "-t", "left"], STAGES);
        assert!(code == 0 && target.contains("Step 4/4"), "{target}");
        let (_, nowhere) = say(b, &["--target", "none"], STAGES);
        assert!(
            nowhere.contains("failed to reach build target none"),
            "{nowhere}"
        );
        let (code, _) = say(b, &["--target", "broken"], STAGES);
        assert_eq!(code, 1);
    });
}

#[test]
fn a_copy_of_the_image_is_a_cache() {
    with_engine(|b| {
        let file = "FROM box\nENV A=b\nRUN echo x > /x\nRUN echo y > /y\n";
        say(b, &["-t", "app"], file);
        let saved = b.path("saved.tar");
        let saved = saved.to_str().unwrap();
        let id = b.inspect("app", "{{.Id}}");
        b.ok(&["save", "-o", saved, "app"]);
        b.ok(&["rmi", "app"]);
        b.ok(&["builder", "prune", "-af"]);
        b.ok(&["load", "-i", saved]);
        let (_, said) = say(b, &["--cache-from", "app", "-t", "again"], file);
        assert_eq!(said.matches("Using cache").count(), 3, "{said}");
        assert_eq!(b.inspect("again", "{{.Id}}"), id);
        let (_, said) = say(b, &["--no-cache"], file);
        assert_eq!(said.matches("Using cache").count(), 0, "{said}");
    });
}

const MOUNTS: &str = r#"FROM box AS other
RUN echo theirs > /file
FROM box
RUN --mount=type=cache,id=kept,target=/cache,mode=0711,uid=9 echo $ROUND >> /cache/log; cat /cache/log; stat -c '%a %u' /cache
RUN --mount=type=bind,target=/context,rw --mount=from=other,source=/file,target=/theirs cat /context/mine /theirs; echo new > /context/mine; mount | grep /theirs
RUN --mount=target=/context cat /context/mine; echo no > /context/mine || echo read-only
RUN --mount=type=tmpfs,target=/t,size=1m mount | grep ' /t '
RUN --mount=type=secret,id=s test ! -e /run/secrets/s
"#;

#[test]
fn mounts_of_run() {
    with_engine(|b| {
        let round = |number: &str| {
            let file = MOUNTS.replace("$ROUND", number);
            let folder = context(b, "context", &[("Dockerfile", &file), ("mine", "ours\n")]);
            b.ok(&["build", "-t", "app", folder.to_str().unwrap()])
        };
        let first = round("one");
        for wanted in [
            "one\n711 9",
            "ours\ntheirs\n",
            "Read-only file system",
            "size=1024k",
        ] {
            let said = first.replace("\u{1b}[0m", "");
            assert!(said.contains(wanted), "{wanted}: {first}");
        }
        assert!(round("two").contains("one\ntwo\n711 9"));
        let left = b.ok(&["run", "--rm", "app", "ls", "/"]);
        for name in ["cache", "context", "theirs", "t"] {
            assert!(!left.lines().any(|line| line == name), "{name} in {left}");
        }
        for (flag, wanted) in [
            ("type=secret,id=s,required=true", "secret s: not found"),
            ("type=ssh", "needs BuildKit"),
            ("type=bind,source=none,target=/x", "not found"),
            ("type=cache", "a target is required"),
        ] {
            let (code, said) = say(b, &[], &format!("FROM box\nRUN --mount={flag} true\n"));
            assert!(code == 1 && said.contains(wanted), "{said}");
        }
        let usage = b.ok(&[
            "system",
            "df",
            "--format",
            "{{.Type}} {{.TotalCount}} {{.Size}}",
        ]);
        assert!(usage.contains("Build Cache 1 8B"), "{usage}");
        let pruned = b.ok(&["builder", "prune", "-f"]);
        assert!(pruned.contains("8B"), "{pruned}");
        let usage = b.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]);
        assert!(usage.contains("Build Cache 0"), "{usage}");
        let images = || b.ok(&["images", "-aq"]).lines().count();
        say(b, &["--no-cache"], "FROM box\nRUN echo a > /a\nRUN false\n");
        let before = images();
        b.ok(&["builder", "prune", "-af"]);
        assert_eq!(
            before - images(),
            2,
            "the failed build's step, and the stage that was copied from"
        );
        assert!(round("three").contains("three"));
    });
}

#[test]
fn a_build_ends_with_its_client() {
    with_engine(|b| {
        let mut client = Command::new("docker")
            .args(["build", "-"])
            .env("DOCKER_BUILDKIT", "0")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", b.path("socket").display()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = client.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"FROM box\nRUN sleep 1000\n").unwrap();
        drop(stdin);
        let steps = |b: &crate::bench::Bench| {
            std::fs::read_dir(b.path("root/build"))
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().join("step").exists())
                .count()
        };
        b.until("the step runs", |b| steps(b) == 1);
        client.kill().unwrap();
        client.wait().unwrap();
        b.until("all of it is gone", |b| {
            std::fs::read_dir(b.path("root/build")).unwrap().count() == 0
                && std::fs::read_dir(b.path("run/shim")).map_or(0, |entries| entries.count()) == 0
        });
    });
}
