//! How containers fare: health checks, the end of memory, shared namespaces, what is told of a restart.

use crate::bench::with_engine;

#[test]
fn health_is_found_early_and_looked_at_by_the_next_engine() {
    with_engine(|b| {
        b.ok(&[
            "run",
            "-d",
            "--name",
            "hh",
            "--health-cmd",
            "test -e /ready",
            "--health-interval",
            "300ms",
            "--health-retries",
            "1",
            "--health-start-period",
            "60s",
            "--health-start-interval",
            "50ms",
            "box",
            "sh",
            "-c",
            "sleep 0.5; touch /ready; sleep 100",
        ]);
        let status = |b: &crate::bench::Bench| b.inspect("hh", "{{.State.Health.Status}}");
        assert_eq!(status(b), "starting");
        b.until("it is well", |b| status(b) == "healthy");
        assert_eq!(b.inspect("hh", "{{.State.Health.FailingStreak}}"), "0");
        assert!(
            b.ok(&["ps", "--filter", "health=healthy"])
                .contains("(healthy)")
        );
        b.kill_engine();
        b.start();
        assert_eq!(status(b), "healthy", "kept over the engine's end");
        b.ok(&["exec", "hh", "sh", "-c", "mv /ready /gone"]);
        b.until("the next engine finds it unwell", |b| {
            status(b) == "unhealthy"
        });
        let log = b.inspect("hh", "{{len .State.Health.Log}}");
        assert!(log.parse::<usize>().unwrap() <= 5, "{log}");
        b.ok(&["rm", "-f", "hh"]);
    });
}

#[test]
fn an_end_for_want_of_memory_is_told() {
    with_engine(|b| {
        let since = now();
        let eat = "x=aaaaaaaa; while :; do x=$x$x; done";
        let (code, _) = b.fails(&[
            "run",
            "--name",
            "eats",
            "-m",
            "12m",
            "--memory-swap",
            "12m",
            "box",
            "sh",
            "-c",
            eat,
        ]);
        assert_eq!(code, 137);
        assert_eq!(
            b.inspect("eats", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
            "true 137"
        );
        let told = b.ok(&[
            "events",
            "--since",
            &since,
            "--until",
            &now(),
            "--filter",
            "container=eats",
            "--format",
            "{{.Action}}",
        ]);
        assert!(told.lines().any(|l| l == "oom"), "{told}");
    });
}

#[test]
fn a_namespace_is_shared_by_who_says_so_and_a_restart_is_told() {
    with_engine(|b| {
        b.ok(&["run", "-d", "--name", "own", "box", "sleep", "100"]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "open",
            "--ipc",
            "shareable",
            "box",
            "sleep",
            "100",
        ]);
        b.ok(&["exec", "open", "touch", "/dev/shm/seen"]);
        let join = |name: &str| format!("container:{name}");
        let listed = b.ok(&[
            "run",
            "--rm",
            "--ipc",
            &join("open"),
            "box",
            "ls",
            "/dev/shm",
        ]);
        assert_eq!(listed, "seen");
        let (_, said) = b.fails(&["run", "--rm", "--ipc", &join("own"), "box", "true"]);
        assert!(said.contains("non-shareable IPC"), "{said}");
        let since = now();
        b.ok(&["pause", "own"]);
        b.ok(&["restart", "-t", "0", "own"]);
        b.until("all is told", |b| {
            let told = b.ok(&[
                "events",
                "--since",
                &since,
                "--until",
                &now(),
                "--filter",
                "container=own",
                "--filter",
                "type=container",
                "--format",
                "{{.Action}}",
            ]);
            let told: Vec<&str> = told.lines().filter(|l| *l != "kill").collect();
            told == ["pause", "unpause", "die", "stop", "start", "restart"]
        });
        b.ok(&["rm", "-f", "own", "open"]);
    });
}

/// Seconds, with their fraction.
fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:.6}", now.unwrap().as_secs_f64())
}
