//! What a container sees and may do.

use windlass_engine_api::types::Ulimit;
use windlassd::container::MountRecord;
use windlassd::container::parts::{MountSpec, Netns, Runtime as _};

use crate::lab::{Lab, collect, eventually, process, until, within};

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.unwrap_or_default().trim()
}

#[tokio::test]
async fn defaults_are_dockers() {
    let lab = Lab::new();
    let (output, _) = lab.script("cat /proc/self/status").await;
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(&output.stdout, name), "00000000a80425fb", "{name}");
    }
    for name in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(&output.stdout, name), "0000000000000000", "{name}");
    }
    assert_eq!(field(&output.stdout, "Seccomp:"), "2");
    assert_eq!(field(&output.stdout, "NoNewPrivs:"), "0");
    let script = "unshare -m true || echo no unshare; mount -t tmpfs x /tmp 2>/dev/null || echo no mount; \
        chroot / /bin/true && echo chroot; head -c1 /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
        echo x 2>/dev/null > /proc/sysrq-trigger || echo no sysrq; touch /sys/x 2>/dev/null || echo no sys; \
        mknod /tmp/mem c 1 1 && head -c1 /tmp/mem 2>/dev/null | wc -c";
    let (output, _) = lab.script(script).await;
    let expected = "no unshare\nno mount\nchroot\n0\n0\nno sysrq\nno sys\n0\n";
    assert_eq!(output.stdout, expected, "{output:?}");
}

#[tokio::test]
async fn privileged_is_all_that_the_engine_has() {
    let lab = Lab::new();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut spec = lab.spec(&["sh", "-c", "cat /proc/self/status; mount -t tmpfs x /tmp && touch /tmp/y && echo mounted; mkdir /sys/fs/cgroup/*/inner || mkdir /sys/fs/cgroup/inner; ls /dev | wc -l"]);
    spec.host.privileged = true;
    spec.process.privileged = true;
    let (output, exit) = lab.complete(&spec).await;
    assert_eq!(field(&output.stdout, "CapEff:"), field(&own, "CapBnd:"));
    assert_eq!(field(&output.stdout, "Seccomp:"), field(&own, "Seccomp:"));
    assert!(
        output.stdout.contains("mounted") && exit.code == 0,
        "{output:?}"
    );
    assert_eq!(
        Lab::groups(&spec.id),
        Vec::<std::path::PathBuf>::new(),
        "inner groups too"
    );
}

#[tokio::test]
async fn own_processes_name_and_network() {
    let lab = Lab::new();
    let script = "echo $$; ps | wc -l; hostname; cat /proc/net/dev | grep -c :; ip addr show lo | grep -c 127.0.0.1; cat /proc/1/cgroup | head -n1 | cut -d: -f3";
    let (output, _) = lab.script(script).await;
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].parse::<u32>().unwrap() <= 5, "{lines:?}");
    assert_eq!(lines[2..], ["boat", "1", "1", "/"]);
    // Two containers do not see each other; one that joins does.
    let mut first = lab.spec(&["sh", "-c", "echo up; sleep 100"]);
    first.hostname = "one".to_owned();
    let mut attachment = lab.run(&first).await;
    until(&mut attachment, "up").await;
    let pid = lab.runtime.alive(&first.id).await.unwrap();
    let (output, _) = lab.script("ps").await;
    assert!(!output.stdout.contains("sleep 100"), "{output:?}");
    let mut joined = lab.spec(&["sh", "-c", "ps; sleep 0.1 & exit 0"]);
    joined.pid_of = Some(pid);
    joined.ipc_of = Some(pid);
    joined.netns = Netns::Path(format!("/proc/{pid}/ns/net").into());
    let (output, _) = lab.complete(&joined).await;
    assert!(output.stdout.contains("sleep 100"), "{output:?}");
    assert!(
        lab.runtime.alive(&first.id).await.is_some(),
        "the joined one is not ended"
    );
    let mut on_host = lab.spec(&["cat", "/proc/net/route", "/proc/sys/kernel/hostname"]);
    on_host.netns = Netns::Host;
    on_host.hostname = String::new();
    let (output, _) = lab.complete(&on_host).await;
    let host = nix::unistd::gethostname()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    assert!(output.stdout.contains(&host), "{output:?}");
}

#[tokio::test]
async fn users_limits_and_files() {
    let lab = Lab::new();
    let mut spec = lab.spec(&["sh", "-c", "id -u; id -G; ulimit -n; grep CapEff /proc/self/status; echo x > /dev/stdout; touch /x 2>/dev/null || echo ro; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/oom_score_adj"]);
    spec.process.user = "33:40".to_owned();
    spec.process.groups = vec!["log".to_owned(), "77".to_owned()];
    spec.host.readonly_rootfs = true;
    spec.host.oom_score_adj = 300;
    spec.host.sysctls.insert(
        "net.ipv4.ip_unprivileged_port_start".to_owned(),
        "80".to_owned(),
    );
    spec.host.ulimits = vec![Ulimit {
        name: "nofile".to_owned(),
        soft: 99,
        hard: 100,
    }];
    let (output, _) = lab.complete(&spec).await;
    assert_eq!(
        output.stdout, "33\n40 77\n99\nCapEff:\t0000000000000000\nx\nro\n80\n300\n",
        "{output:?}"
    );
    let mut spec = lab.spec(&["true"]);
    // More than this machine may give is given as far as it goes.
    spec.host.oom_score_adj = -1000;
    spec.host.ulimits = vec![Ulimit {
        name: "memlock".to_owned(),
        soft: -1,
        hard: -1,
    }];
    assert_eq!(lab.complete(&spec).await.1.code, 0);
}

#[tokio::test]
async fn mounts_stay_inside() {
    let lab = Lab::new();
    let volume = lab.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "kept").unwrap();
    let outside = lab.dir.path().join("outside");
    std::os::unix::fs::symlink(&outside, lab.root().join("trap")).unwrap();
    std::fs::create_dir_all(lab.root().join(outside.strip_prefix("/").unwrap())).unwrap();
    let mount = |kind: &str, destination: &str, rw, source: std::path::PathBuf| MountSpec {
        record: MountRecord {
            kind: kind.to_owned(),
            destination: destination.to_owned(),
            rw,
            options: vec!["size=64k".to_owned()],
            ..MountRecord::default()
        },
        source,
    };
    let mut spec = lab.spec(&["sh", "-c", "cat /data/file; touch /data/x 2>/dev/null || echo ro; echo new > /rw/made; cat /one; grep ' /scratch ' /proc/mounts | cut -d' ' -f1; ls /trap/deep; cat /part/file"]);
    spec.mounts = vec![
        mount("volume", "/data", false, volume.clone()),
        mount("bind", "/rw", true, volume.clone()),
        mount("bind", "/one", true, volume.join("file")),
        mount("tmpfs", "/scratch", true, "".into()),
        mount("bind", "/trap/deep", true, volume.clone()),
    ];
    // A link that another container has put where a part of the volume was.
    std::os::unix::fs::symlink("/", volume.join("part")).unwrap();
    let mut part = mount("volume", "/part", true, volume.clone());
    part.record.subpath = "part".to_owned();
    spec.mounts.push(part);
    let (output, _) = lab.complete(&spec).await;
    assert_eq!(
        output.stdout, "keptro\nkepttmpfs\nfile\nmade\npart\nkept",
        "{output:?}"
    );
    assert_eq!(
        std::fs::read_to_string(volume.join("made")).unwrap(),
        "new\n"
    );
    assert!(
        !outside.exists(),
        "the link was followed in the container's root"
    );
}

/// Descriptors of the engine that were open in a container's first process would be ways out.
#[tokio::test]
async fn no_descriptor_leads_out() {
    let lab = Lab::new();
    for number in 3..24 {
        let mut spec = lab.spec(&["pwd"]);
        spec.process.cwd = format!("/proc/self/fd/{number}");
        assert!(lab.runtime.create(&spec).await.is_err(), "{number}");
    }
    let spec = lab.spec(&["sleep", "100"]);
    lab.run(&spec).await;
    for number in 3..24 {
        // By a link of the container's own, as a health check's folder may become one.
        let way = format!("way{number}");
        let link = lab.root().join("tmp").join(&way);
        std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), link).unwrap();
        let mut further = process(&["pwd"]);
        further.cwd = format!("/tmp/{way}");
        let launched = lab.runtime.exec(&spec.id, &way, &further).await;
        assert!(launched.is_err(), "{number}");
    }
}

#[tokio::test]
async fn the_empty_input_is_the_containers_own() {
    let lab = Lab::new();
    let script = "stat -L -c %d:%i /proc/self/fd/0 /dev/null; cat";
    let (output, _) = lab.script(script).await;
    let mut lines = output.stdout.lines();
    let (input, null) = (lines.next(), lines.next());
    assert!(input.is_some() && input == null, "{output:?}");
    let spec = lab.spec(&["sh", "-c", "rm /dev/null; mkdir /dev/null; sleep 100"]);
    lab.run(&spec).await;
    eventually("it is replaced", async || {
        let mut look = process(&["sh", "-c", "test -d /dev/null && cat && echo end"]);
        look.cwd = "/".to_owned();
        let (_, attachment) = lab.runtime.exec(&spec.id, "look", &look).await.unwrap();
        let output = collect(attachment).await;
        within(lab.runtime.wait_exec(&spec.id, "look"))
            .await
            .unwrap();
        output.stdout == "end\n"
    })
    .await;
}
