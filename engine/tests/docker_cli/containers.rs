//! Creating, limiting, listing, changing and confining containers.

use crate::bench::with_engine;

#[test]
fn what_makes_no_sense_is_refused_in_dockers_words() {
    with_engine(|b| {
        b.ok(&["create", "--name", "taken", "box", "true"]);
        for (options, words) in [
            (
                &["--name", "x"][..],
                "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            ),
            (
                &["--name", "taken"],
                "Conflict. The container name \"/taken\" is already in use by container",
            ),
            (&["-m", "5m"], "Minimum memory limit allowed is 6MB"),
            (&["--cpus", "9999"], "range of CPUs is from 0.01 to"),
            (&["--cpuset-cpus", "9000"], "for cpuset cpus"),
            (
                &["--cpuset-mems", "77"],
                "Requested memory nodes are not available - requested 77",
            ),
            (
                &["-w", "x"],
                "the working directory 'x' is invalid, it needs to be an absolute path",
            ),
            (
                &["--restart", "on-failure:-1"],
                "maximum retry count cannot be negative",
            ),
            (&["--rm", "--restart", "always"], "conflicting options"),
            (
                &["--cap-add", "fly"],
                "invalid CapAdd: unknown capability: \"CAP_FLY\"",
            ),
            (
                &["--security-opt", "nosuch=1"],
                "invalid --security-opt 2: \"nosuch=1\"",
            ),
            (
                &["--network", "host", "--sysctl", "net.core.somaxconn=1"],
                "sysctl \"net.core.somaxconn\" not allowed in host network namespace",
            ),
            (
                &["--runtime", "nosuch"],
                "unknown or invalid runtime name: nosuch",
            ),
            (
                &["--gpus", "all"],
                "could not select device driver \"\" with capabilities: [[gpu]]",
            ),
            (
                &["--platform", "linux/s390x", "--pull", "never"],
                "does not match the specified platform (linux/s390x)",
            ),
            (&["--ipc", "container:nosuch"], "No such container: nosuch"),
            (
                &["--storage-opt", "size=1G"],
                "--storage-opt is supported only",
            ),
            (&["--network", "nosuch"], "nosuch not found"),
        ] {
            let (code, said) = b.fails(&[&["run"], options, &["box", "true"]].concat());
            assert_eq!(code, 125, "{options:?}: {said}");
            assert!(said.contains(words), "{options:?}: {said}");
        }
        let (_, said) = b.fails(&["run", "--entrypoint", "", "box"]);
        assert!(said.contains("no command specified"), "{said}");
        let warned = b.docker(&["create", "--oom-kill-disable", "box", "true"]);
        assert!(
            String::from_utf8_lossy(&warned.stderr).contains("WARNING: "),
            "{warned:?}"
        );
    });
}

#[test]
fn limits_change_while_it_runs() {
    with_engine(|b| {
        b.ok(&[
            "run",
            "-d",
            "--name",
            "cc",
            "-m",
            "64m",
            "--pids-limit",
            "50",
            "box",
            "sleep",
            "100",
        ]);
        let read = |v1: &str, v2: &str| {
            let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
            b.ok(&["exec", "cc", "sh", "-c", &script])
        };
        let memory = || read("memory/memory.limit_in_bytes", "memory.max");
        assert_eq!(memory(), (64 << 20).to_string());
        let (_, said) = b.fails(&["update", "-m", "512m", "cc"]);
        assert!(
            said.contains("update the memoryswap at the same time"),
            "{said}"
        );
        b.ok(&[
            "update",
            "-m",
            "512m",
            "--memory-swap",
            "1g",
            "--pids-limit",
            "70",
            "--cpu-shares",
            "77",
            "cc",
        ]);
        assert_eq!(memory(), (512 << 20).to_string());
        assert_eq!(read("pids/pids.max", "pids.max"), "70");
        b.ok(&[
            "update",
            "-m",
            "32m",
            "--memory-swap",
            "64m",
            "--restart",
            "always",
            "cc",
        ]);
        assert_eq!(memory(), (32 << 20).to_string());
        let shown = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}} {{.HostConfig.RestartPolicy.Name}}";
        assert_eq!(b.inspect("cc", shown), format!("{} 70 77 always", 32 << 20));
        b.ok(&["update", "--pids-limit", "-1", "cc"]);
        assert_eq!(read("pids/pids.max", "pids.max"), "max");
        let (_, said) = b.fails(&["update", "-m", "1m", "cc"]);
        assert!(
            said.contains("Minimum memory limit allowed is 6MB"),
            "{said}"
        );
        b.ok(&["rm", "-f", "cc"]);
    });
}

#[test]
fn a_list_is_filtered_and_counts_bytes() {
    with_engine(|b| {
        b.ok(&[
            "run",
            "-d",
            "--name",
            "web-1",
            "--label",
            "tier=front",
            "box",
            "sleep",
            "100",
        ]);
        b.ok(&["create", "--name", "idle", "box", "true"]);
        let _ = b.docker(&[
            "run",
            "--name",
            "job-1",
            "box",
            "sh",
            "-c",
            "echo 123456789 > /file; exit 3",
        ]);
        let names = |filters: &[&str]| {
            let mut arguments = vec!["ps", "-a", "--format", "{{.Names}}"];
            for filter in filters {
                arguments.extend(["--filter", filter]);
            }
            let mut names: Vec<String> = b.ok(&arguments).lines().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        for (filters, wanted) in [
            (&["name=^web-[0-9]$"][..], "web-1"),
            (&["name=-1"], "job-1 web-1"),
            (&["exited=3"], "job-1"),
            (&["status=created"], "idle"),
            (&["status=created", "status=exited"], "idle job-1"),
            (&["ancestor=box"], "idle job-1 web-1"),
            (&["ancestor=nosuch"], ""),
            (&["label=tier=front"], "web-1"),
            (&["before=job-1"], "idle web-1"),
            (&["since=web-1"], "idle job-1"),
            (&["is-task=true"], ""),
            (&["network=bridge", "status=running"], "web-1"),
        ] {
            assert_eq!(names(filters), wanted, "{filters:?}");
        }
        assert_eq!(
            b.ok(&["ps", "-ql", "--no-trunc"]),
            b.inspect("job-1", "{{.Id}}")
        );
        let (_, said) = b.fails(&["ps", "--filter", "status=y"]);
        assert!(said.contains("invalid filter 'status=y'"), "{said}");
        let size = b.ok(&["inspect", "-s", "-f", "{{.SizeRw}}", "job-1"]);
        assert_eq!(size, "10");
        assert!(
            b.ok(&["ps", "-as", "--filter", "name=job-1"])
                .contains("10B (virtual")
        );
        assert!(
            b.inspect("job-1", "{{.GraphDriver.Data.UpperDir}}")
                .ends_with("/upper")
        );
        let kept = b.ok(&["container", "prune", "-f", "--filter", "until=1h"]);
        assert!(kept.contains("Total reclaimed space: 0B"), "{kept}");
        let gone = b.ok(&["container", "prune", "-f", "--filter", "label!=keep"]);
        assert!(gone.contains("Total reclaimed space: 10B"), "{gone}");
        assert_eq!(names(&[]), "web-1");
    });
}

#[test]
fn a_profile_says_which_calls_there_are() {
    with_engine(|b| {
        let profile = b.path("profile.json");
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN"]}}]}"#;
        std::fs::write(&profile, text).unwrap();
        let option = format!("seccomp={}", profile.display());
        let run = ["run", "--rm", "--security-opt", &option, "box"];
        let (_, said) = b.fails(&[&run[..], &["mkdir", "/x"]].concat());
        assert!(said.contains("quota exceeded"), "{said}");
        assert_eq!(b.ok(&[&run[..], &["echo", "fine"]].concat()), "fine");
        let strict = [
            "run",
            "--rm",
            "--security-opt",
            "no-new-privileges",
            "--security-opt",
            &option,
            "box",
        ];
        let (_, said) = b.fails(&[&strict[..], &["mkdir", "/x"]].concat());
        assert!(said.contains("quota exceeded"), "{said}");
        std::fs::write(&profile, r#"{"defaultAction": "SCMP_ACT_NONSENSE"}"#).unwrap();
        let (code, said) = b.fails(&[&run[..], &["true"]].concat());
        assert!(code == 125 && said.contains("unknown action"), "{said}");
        let status = b.ok(&[
            "run",
            "--rm",
            "--security-opt",
            "seccomp=unconfined",
            "box",
            "cat",
            "/proc/self/status",
        ]);
        assert!(status.contains("Seccomp:\t0"), "{status}");
        let masked = [
            "run",
            "--rm",
            "--security-opt",
            "systempaths=unconfined",
            "box",
            "touch",
            "/proc/sys/net/core/somaxconn",
        ];
        b.ok(&masked);
    });
}

#[test]
fn programs_of_32_bits_run_under_the_default_filter() {
    use std::os::unix::fs::PermissionsExt as _;
    with_engine(|b| {
        // The smallest program for 32-bit x86: `exit(42)`.
        let program = hex(
            "7f454c460101010000000000000000000200030001000000548004083400000000000000000000003400200001000000\
             000000000100000000000000008004080080040860000000600000000500000000100000b801000000bb2a000000cd80",
        );
        let path = b.path("narrow");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // A kernel that cannot do it tells nothing.
        if std::process::Command::new(&path)
            .status()
            .is_ok_and(|s| s.code() == Some(42))
        {
            let mount = format!("{}:/narrow:ro", path.display());
            let (code, said) = b.fails(&["run", "--rm", "-v", &mount, "box", "/narrow"]);
            assert_eq!(code, 42, "{said}");
        }
    });
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect()
}

#[test]
fn a_start_outlives_the_engine_though_its_record_cannot_be_written() {
    with_engine(|b| {
        let id = b.ok(&["create", "--name", "cc", "box", "sleep", "100"]);
        // In the way of every new record, as a full disk is.
        let folder = b.path("root").join("containers").join(&id);
        std::fs::create_dir(folder.join("config.json.new")).unwrap();
        b.ok(&["start", "cc"]);
        let pid = b.inspect("cc", "{{.State.Pid}}");
        b.kill_engine();
        b.start();
        assert_eq!(
            b.inspect("cc", "{{.State.Status}} {{.State.Pid}}"),
            format!("running {pid}")
        );
        std::fs::remove_dir(folder.join("config.json.new")).unwrap();
        b.ok(&["pause", "cc"]);
        b.kill_engine();
        b.start();
        assert_eq!(
            b.inspect("cc", "{{.State.Status}} {{.State.Pid}}"),
            format!("paused {pid}")
        );
        b.ok(&["rm", "-f", "cc"]);
        let spares = std::fs::read_dir(b.path("run").join("records")).unwrap();
        assert_eq!(spares.count(), 0);
    });
}

#[test]
fn the_surroundings_of_a_program() {
    with_engine(|b| {
        let run = |options: &[&str], command: &[&str]| {
            b.ok(&[&["run", "--rm"], options, &["box"], command].concat())
        };
        let file = b.path("variables");
        std::fs::write(&file, "# none\nFROM_FILE=1\n").unwrap();
        let options = [
            "-h",
            "boat",
            "-e",
            "A=1",
            "--env-file",
            file.to_str().unwrap(),
        ];
        let shown = run(&options, &["env"]);
        let wanted = [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=boat",
            "FROM_FILE=1",
            "A=1",
            "HOME=/root",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), wanted);
        assert_eq!(run(&["-w", "/new/place"], &["pwd"]), "/new/place");
        let who = run(&["-u", "sailor", "--group-add", "7"], &["id"]);
        assert!(who == "uid=1000(sailor) gid=1000 groups=7,1000", "{who}");
        // Low ports and echo requests are for everybody in a network of its own.
        let low = run(
            &["-u", "sailor"],
            &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"],
        );
        assert_eq!(low, "0");
        let first = run(&["--init"], &["cat", "/proc/1/cmdline"]);
        assert!(
            first.starts_with("/sbin/docker-init\0--\0cat\0"),
            "{first:?}"
        );
        let reaped = "sh -c 'sleep 0.1 &'; sleep 0.5; ps -o stat,comm";
        assert!(!run(&["--init"], &["sh", "-c", reaped]).contains('Z'));
        assert_eq!(
            b.fails(&["run", "--rm", "--init", "box", "sh", "-c", "kill -9 $$"])
                .0,
            137
        );
        let limits = run(
            &["--ulimit", "nofile=100:200"],
            &["cat", "/proc/self/limits"],
        );
        let files = limits
            .lines()
            .find(|l| l.starts_with("Max open files"))
            .unwrap();
        assert_eq!(
            files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(),
            ["100", "200"]
        );
        let (code, said) = b.fails(&["run", "--rm", "-u", "nosuch", "box", "true"]);
        assert_eq!(code, 125);
        assert!(
            said.contains("daemon: unable to find user nosuch: no matching entries"),
            "{said}"
        );
        let own = ["--cap-add", "NET_ADMIN", "--cap-drop", "ALL"];
        let status = run(&own, &["cat", "/proc/self/status"]);
        assert!(status.contains("CapEff:\t0000000000001000\n"), "{status}");
        let shm = run(&["--shm-size", "1m"], &["cat", "/proc/mounts"]);
        assert!(
            shm.lines()
                .any(|l| l.starts_with("shm /dev/shm ") && l.contains("size=1024k"))
        );
    });
}
