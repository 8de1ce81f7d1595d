//! Machines on this computer, made for real. Needs root, and the binaries for hosts in the folder that
//! `WINDLASS_BINARIES` names (`cargo xtask binaries` builds them and prints it).

mod nested;
mod scene;

use std::time::{Duration, Instant};

use scene::{Scene, WHY, kill};
use windlass_provider::{ErrorKind, Instance, Power as _, PowerState, Provider, conformance};
use windlass_provider_local::Local;

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn conforms() {
    let scene = Scene::new(WHY);
    let factory = || async { Box::new(scene.provider()) as Box<dyn Provider> };
    conformance::run(factory, &conformance::Settings::default()).await;
    scene.assert_nothing_is_left().await;
}

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn three_at_once_see_nothing_of_each_other_nor_of_the_host() {
    let scene = Scene::new(WHY);
    let provider = scene.provider();
    let requests = ["a", "b", "c"].map(|name| scene.request(name));
    let (a, b, c) = tokio::join!(
        provider.create(&requests[0]),
        provider.create(&requests[1]),
        provider.create(&requests[2]),
    );
    let machines = [a.unwrap(), b.unwrap(), c.unwrap()];
    let mut addresses: Vec<_> = machines
        .iter()
        .map(|m| m.address.clone().unwrap())
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "each has its own address");
    for machine in &machines {
        is_a_machine(&scene, machine);
        sees_nothing_of_the_host(&scene, machine);
    }
    see_nothing_of_each_other(&scene, &machines);
    for machine in &machines {
        provider.delete(&machine.id).await.unwrap();
    }
    scene.assert_nothing_is_left().await;
}

fn is_a_machine(scene: &Scene, machine: &Instance) {
    assert_eq!(scene.say(machine, "hostname"), machine.name);
    assert_eq!(scene.say(machine, "cat /proc/1/comm"), "init");
    assert_eq!(scene.say(machine, "whoami; pwd"), "root\n/root");
    let address = machine.address.as_deref().unwrap();
    assert!(
        scene
            .say(machine, "hostname -I || ip -4 addr")
            .contains(address)
    );
    assert_eq!(scene.say(machine, "cat /etc/machine-id | wc -c"), "33");
    // Programs of the host, their libraries, and places to write to.
    scene.say(machine, "bash -c 'tar --version' && ls /bin/sh /lib64");
    scene.say(
        machine,
        "touch /tmp/t /run/t /var/lib/t /etc/t /root/t /usr/local/bin/t",
    );
    let refused = scene.ssh(machine, "touch /usr/bin/t");
    assert!(!refused.status.success(), "the host's /usr is read-only");
    assert_eq!(
        scene.say(machine, "cut -d: -f2 /etc/shadow | sort -u"),
        "*",
        "no passwords"
    );
}

fn sees_nothing_of_the_host(scene: &Scene, machine: &Instance) {
    assert_eq!(scene.say(machine, "ls -A /home"), "");
    let secret = scene.path("secret-of-the-host");
    std::fs::write(&secret, "secret").unwrap();
    let found = scene.ssh(machine, &format!("ls {}", secret.display()));
    assert!(!found.status.success(), "a file of the host");
    for path in [
        "/root/.bashrc",
        "/etc/ssh",
        "/etc/ssl/private",
        "/var/lib/dpkg",
        "/boot/*",
    ] {
        let found = scene.ssh(machine, &format!("ls -d {path}"));
        assert!(!found.status.success(), "{path}");
    }
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    assert_ne!(scene.say(machine, "cat /etc/machine-id"), id.trim());
    let own = std::fs::read_to_string("/proc/self/cmdline").unwrap();
    let own = own.split('\0').next().unwrap();
    let processes = scene.say(machine, "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'");
    assert!(
        !processes.contains(own) && !processes.contains("windlassd"),
        "{processes}"
    );
    let links = scene.say(machine, "ls /sys/class/net");
    assert!(!links.contains("wl-") && links.contains("lo"), "{links}");
}

fn see_nothing_of_each_other(scene: &Scene, machines: &[Instance; 3]) {
    let [a, b, c] = machines;
    scene.say(
        a,
        "echo mine > /root/of-a; echo mine > /var/lib/of-a; echo mine > /dev/shm/of-a",
    );
    scene.say(a, "setsid sleep 4321 >/dev/null 2>&1 </dev/null & :");
    scene.say(a, "pgrep -f 'sleep 4321'");
    for other in [b, c] {
        let seen = scene.ssh(
            other,
            "ls /root/of-a || ls /var/lib/of-a || ls /dev/shm/of-a",
        );
        assert!(!seen.status.success(), "files of a in {}", other.name);
        let seen = scene.ssh(other, "pgrep -x sleep");
        assert!(!seen.status.success(), "processes of a in {}", other.name);
        let ids =
            "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts";
        let (mine, theirs) = (scene.say(a, ids), scene.say(other, ids));
        assert!(
            mine.lines().zip(theirs.lines()).all(|(x, y)| x != y),
            "{mine} {theirs}"
        );
    }
    // What listens on a's loopback is not reached from b; what listens on its address is.
    let address = a.address.as_deref().unwrap();
    let reached = scene.ssh(
        b,
        &format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/22; head -c 4 <&3'"),
    );
    assert_eq!(
        reached.stdout, b"SSH-",
        "machines reach each other by address only"
    );
}

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn power_does_what_it_says() {
    let scene = Scene::new(WHY);
    let provider = scene.provider_with(&[("cpus", "0.5"), ("memory", "256m")]);
    let machine = provider.create(&scene.request("p")).await.unwrap();
    scene.say(
        &machine,
        "echo kept > /root/file; echo kept > /var/lib/file; echo gone > /run/file",
    );
    let script = "trap 'echo told > /root/told; exit 0' TERM; while :; do sleep 0.05; done";
    scene.say(
        &machine,
        &format!("setsid sh -c \"{script}\" >/dev/null 2>&1 </dev/null & :"),
    );
    let limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    assert_eq!(
        scene.say(&machine, limit),
        (256 << 20).to_string(),
        "its limits are its own root's"
    );
    let address = machine.address.clone().unwrap();
    let listens = || std::net::TcpStream::connect((address.as_str(), 22)).is_ok();
    assert!(listens());

    let began = Instant::now();
    provider.stop(&machine.id).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(7),
        "{:?}",
        began.elapsed()
    );
    let off = provider.get(&machine.id).await.unwrap();
    assert_eq!((off.state, off.address), (PowerState::Stopped, None));
    assert!(!listens(), "a stopped machine does not answer");

    provider.start(&machine.id).await.unwrap();
    let machine = provider.get(&machine.id).await.unwrap();
    assert_eq!(
        scene.say(&machine, "cat /root/file /var/lib/file /root/told"),
        "kept\nkept\ntold"
    );
    assert_eq!(
        scene.say(&machine, "ls /run/file 2>/dev/null || echo booted"),
        "booted"
    );

    provider.restart(&machine.id).await.unwrap();
    let machine = provider.get(&machine.id).await.unwrap();
    scene.say(&machine, "rm /root/told; cat /root/file");
    scene.say(
        &machine,
        &format!("setsid sh -c \"{script}\" >/dev/null 2>&1 </dev/null & :"),
    );
    provider.kill(&machine.id).await.unwrap();
    assert_eq!(
        provider.get(&machine.id).await.unwrap().state,
        PowerState::Stopped
    );
    provider.start(&machine.id).await.unwrap();
    let machine = provider.get(&machine.id).await.unwrap();
    let told = scene.say(&machine, "ls /root/told 2>/dev/null || echo untold");
    assert_eq!(told, "untold", "kill asks nobody");

    provider.delete(&machine.id).await.unwrap();
    assert_eq!(
        provider.get(&machine.id).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    let again = provider.create(&scene.request("p")).await.unwrap();
    assert_ne!(again.id, machine.id);
    assert!(
        !scene.ssh(&again, "ls /var/lib/file").status.success(),
        "a new volume"
    );
    provider.delete(&again.id).await.unwrap();
    scene.assert_nothing_is_left().await;
}

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn machines_outlive_their_engine_and_come_back_after_a_reboot() {
    let scene = Scene::new(WHY);
    let provider = scene.provider();
    let machine = provider.create(&scene.request("k")).await.unwrap();
    let boot = scene.say(&machine, "stat -c %Z /proc/1; readlink /proc/self/ns/pid");
    let engine = scene.engine();
    kill(engine);
    let namespace = scene.say(&machine, "readlink /proc/self/ns/pid");
    assert!(boot.ends_with(&namespace), "{boot} {namespace}");
    let found = provider.get(&machine.id).await.unwrap();
    assert_eq!(found, machine, "another engine has taken over");
    assert_eq!(
        scene.say(&machine, "stat -c %Z /proc/1; readlink /proc/self/ns/pid"),
        boot
    );

    // Another version of the binaries: the next create puts it in place.
    scene.another_engine();
    let second = provider.create(&scene.request("l")).await.unwrap();
    assert_ne!(scene.engine(), engine);
    assert_eq!(
        scene.say(&machine, "stat -c %Z /proc/1; readlink /proc/self/ns/pid"),
        boot
    );

    // As after a reboot of this computer: nothing runs any more, and a look brings it back.
    kill(scene.engine());
    scene.kill_shims();
    let found = provider.list().await.unwrap();
    assert_eq!(found.len(), 2);
    for machine in found {
        back(&provider, &machine.id).await;
    }
    provider.delete(&second.id).await.unwrap();
    provider.delete(&machine.id).await.unwrap();
    scene.assert_nothing_is_left().await;
}

async fn back(provider: &Local, id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = provider.get(id).await.unwrap();
        if let Some(address) = &found.address
            && std::net::TcpStream::connect((address.as_str(), 22)).is_ok()
        {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn names_and_tokens_are_taken_once() {
    let scene = Scene::new(WHY);
    let provider = scene.provider();
    let machine = provider.create(&scene.request("k")).await.unwrap();
    let mut other = scene.request("k");
    other.token = "another".to_owned();
    let error = provider.create(&other).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    assert!(error.message.contains("`k`"), "{error}");
    let twice = scene.request("twice");
    let second = scene.provider();
    let (one, two) = tokio::join!(provider.create(&twice), second.create(&twice));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id, two.id, "the same token at once");
    provider.delete(&one.id).await.unwrap();
    provider.delete(&machine.id).await.unwrap();
    scene.assert_nothing_is_left().await;
}
