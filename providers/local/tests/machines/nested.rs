//! An engine on a machine: started, with a container of its own, whose published port is reached from this computer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use windlass_provider::{Instance, Power as _, Provider as _};

use crate::scene::{Scene, WHY, until};

const ENGINE: &str = "/usr/local/lib/windlass/windlassd";
const SOCKET: &str = "/run/windlass/engine.sock";
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
    scene.say(&machine, &format!("mkdir -p /var/log/windlass; setsid {ENGINE} >/var/log/windlass/windlassd.log 2>&1 </dev/null & :"));
    wait_for_engine(&scene, &machine);
    run_web(&scene, &machine);
    serves(&machine);
    belongs_to_the_machine(&scene, &machine);

    // The machine goes off and on: its engine starts by itself, and its container with it.
    provider.restart(&machine.id).await.unwrap();
    let machine = provider.get(&machine.id).await.unwrap();
    wait_for_engine(&scene, &machine);
    serves(&machine);
    provider.delete(&machine.id).await.unwrap();
    scene.assert_nothing_is_left().await;
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
    let pid = scene.say(machine, "pgrep -x -f '/bin/busybox httpd -f -p 80 -h /www'");
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
