//! An engine on a machine: started, with a container of its own, whose published port is reached from this computer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use windlass_provider::{Instance, Power as _, Provider as _};

use crate::scene::{Scene, WHY, until};

const ENGINE: &str = "/usr/local/lib/windlass/windlassd";
const SOCKET: &str = "/run/windlass/engine.sock";
/// The container's process.
const WEB: &str = "/bin/busybox httpd -f -p 80 -h /www";
/// Docker's API by hand: the machine has no client.
const CURL: &str =
    "curl -sS --fail-with-body --max-time 60 --unix-socket /run/windlass/engine.sock";

#[tokio::test]
#[ignore = "needs root and WINDLASS_BINARIES"]
async fn an_engine_on_a_machine_runs_containers() {
    let scene = Scene::new(WHY);
    let provider = scene.provider();
    let machine = provider.create(&scene.request("n")).await.unwrap();
    upload(&scene, &machine);
    service(&scene, &machine, "no");
    wait_for_engine(&scene, &machine);
    run_web(&scene, &machine);
    serves(&machine);
    belongs_to_the_machine(&scene, &machine);
    // Both an engine that an installation has started, and one that init has.
    comes_back_when_killed(&scene, &machine);
    comes_back_when_killed(&scene, &machine);
    is_left_to_an_installation(&scene, &machine);

    // The machine goes off and on: its engine starts by itself, and its container with it.
    provider.restart(&machine.id).await.unwrap();
    let machine = provider.get(&machine.id).await.unwrap();
    wait_for_engine(&scene, &machine);
    serves(&machine);
    provider.delete(&machine.id).await.unwrap();
    scene.assert_nothing_is_left().await;
}

/// As an installation does it: `no` starts it where it does not run, `yes` restarts it, `stop` stops it.
fn service(scene: &Scene, machine: &Instance, restart: &str) {
    let log = "/var/log/windlass/windlassd.log";
    let arguments =
        format!("none {ENGINE} /var/lib/windlass /run/windlass {SOCKET} {log} '' '' {restart}");
    let mut ssh = scene
        .ssh_command(machine, &format!("sh -s -- {arguments}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let script = include_bytes!("../../../../templates/service.sh");
    ssh.stdin.take().unwrap().write_all(script).unwrap();
    assert!(ssh.wait().unwrap().success());
}

/// The processes of the engine, one a line.
fn engines(scene: &Scene, machine: &Instance) -> String {
    scene.say(
        machine,
        "pgrep -f -- '^[^ ]*windlassd --root.*--socket' || :",
    )
}

fn web_pid(scene: &Scene, machine: &Instance) -> String {
    scene.say(machine, &format!("pgrep -x -f '{WEB}'"))
}

/// Init starts it again, it answers, and its container has gone on.
fn comes_back_when_killed(scene: &Scene, machine: &Instance) {
    let (engine, web) = (engines(scene, machine), web_pid(scene, machine));
    scene.say(machine, &format!("kill -9 {engine}"));
    serves(machine);
    wait_for_engine(scene, machine);
    let next = engines(scene, machine);
    assert!(next.parse::<u32>().is_ok(), "one engine: {next}");
    assert_ne!(next, engine);
    assert_eq!(web_pid(scene, machine), web, "the container went on");
    assert_eq!(scene.say(machine, "cat /run/windlass/windlassd.pid"), next);
}

/// What an installation restarts or stops is not started once more.
fn is_left_to_an_installation(scene: &Scene, machine: &Instance) {
    // Longer than init waits before it starts one again.
    let longer = Duration::from_secs(5);
    let before = engines(scene, machine);
    service(scene, machine, "yes");
    let restarted = scene.say(machine, "cat /run/windlass/windlassd.pid");
    assert_ne!(restarted, before);
    std::thread::sleep(longer);
    assert_eq!(engines(scene, machine), restarted);
    service(scene, machine, "stop");
    std::thread::sleep(longer);
    assert_eq!(engines(scene, machine), "");
    service(scene, machine, "no");
    wait_for_engine(scene, machine);
}

fn upload(scene: &Scene, machine: &Instance) {
    let packed = std::fs::read(scene.binary("windlassd")).unwrap();
    let command =
        format!("mkdir -p /usr/local/lib/windlass && gzip -dc > {ENGINE} && chmod 755 {ENGINE}");
    let mut ssh = scene
        .ssh_command(machine, &command)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    ssh.stdin.take().unwrap().write_all(&packed).unwrap();
    assert!(ssh.wait().unwrap().success());
}

fn wait_for_engine(scene: &Scene, machine: &Instance) {
    until("the engine on the machine", || {
        scene
            .ssh(
                machine,
                &format!("test -S {SOCKET} && {CURL} http://d/_ping"),
            )
            .stdout
            == b"OK"
    });
}

/// A container of one static program of the host's that serves a page.
fn run_web(scene: &Scene, machine: &Instance) {
    let script = format!(
        r#"set -e
mkdir -p /tmp/root/bin /tmp/root/www
cp "$(command -v busybox)" /tmp/root/bin/busybox
echo from-the-container > /tmp/root/www/index.html
tar -C /tmp/root -c . | {CURL} -X POST --data-binary @- -H 'content-type: application/x-tar' 'http://d/images/create?fromSrc=-&repo=web&tag=1'
cat > /tmp/create <<'END'
{{"Image": "web:1", "Cmd": ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"],
 "HostConfig": {{"PortBindings": {{"80/tcp": [{{"HostPort": "8080"}}]}}, "RestartPolicy": {{"Name": "always"}}, "Memory": 67108864}}}}
END
{CURL} -X POST -H 'content-type: application/json' -d @/tmp/create 'http://d/containers/create?name=web'
{CURL} -X POST http://d/containers/web/start"#
    );
    scene.say(machine, &script);
}

/// Its processes are the machine's, and so are its control groups: the machine's limits hold for it.
fn belongs_to_the_machine(scene: &Scene, machine: &Instance) {
    let pid = web_pid(scene, machine);
    let group = scene.say(machine, &format!("cat /proc/{pid}/cgroup"));
    assert!(
        group.lines().all(|line| !line.contains(&machine.id)),
        "{group}"
    );
    let outside = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let group = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
            let ours = line.starts_with(b"/bin/busybox\0httpd") && group.contains(&machine.id);
            ours.then_some(group)
        });
    assert!(
        outside.is_some(),
        "no such process below the machine's control group"
    );
}

fn serves(machine: &Instance) {
    let address = (machine.address.as_deref().unwrap().to_owned(), 8080);
    let get = || {
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    until("the page", || {
        get().is_ok_and(|text| text.contains("from-the-container"))
    });
}
