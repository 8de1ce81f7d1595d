//! From "SSH answers" to "httpd answers" on a fresh VPS: ours, and by `apt-get install docker.io` on a copy of it.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use windlass_fixtures::{Access, Cache, Registry, Vm, VmImage, Windlass, httpd, program};

use super::table::{Row, Table};

const LIMIT: Duration = Duration::from_secs(900);
/// What an administrator would type. AppArmor's tools are not among its dependencies, and it starts no container without them.
const BY_APT: &str = "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && \
                      apt-get install -y -qq --no-install-recommends docker.io apparmor >/dev/null && \
                      docker run --detach --publish 80:80 httpd:2.4 >/dev/null";
const FILE: &str = "examples/httpd/windlass.yaml";
const RECEIVED: &str = "cat /sys/class/net/eth0/statistics/rx_bytes";

/// Measures both, one after the other: two machines at once would share this computer's processors.
pub fn measure(cache: &Cache, program: &Path, binaries: &Path, table: &mut Table) -> Result<()> {
    let registry = Registry::start(Access::Anonymous)?;
    registry.push(&httpd::image(cache)?, "library/httpd", "2.4")?;
    let image = VmImage::prepare(cache)?;
    let windlass = Windlass::new(program, binaries)?;
    println!("a fresh VPS, windlass …");
    let ours = ours(&boot(&image, &registry)?, &windlass)?;
    println!("a copy of it, apt-get install docker.io …");
    let theirs = by_apt(&boot(&image, &registry)?)?;
    table.add(
        Row::once(
            "VPS: SSH answers → httpd answers",
            ours.seconds,
            theirs,
            "s",
        )
        .at_most_times(0.1),
    );
    table.add(Row::ours(
        "VPS: … of which create (install)",
        ours.create_seconds,
        "s",
    ));
    table.add(Row::ours(
        "VPS: received during create",
        ours.received_megabytes,
        "MB",
    ));
    table.add(Row::ours("VPS: engine idle, resident", ours.idle_megabytes, "MB").at_most(15.0));
    Ok(())
}

/// Both take the registry for a mirror of Docker Hub.
fn boot(image: &VmImage, registry: &Registry) -> Result<Vm> {
    let vm = Vm::boot(image, &[80])?;
    let mirror = format!("http://{}", Vm::host_address(registry.address().port()));
    let settings = serde_json::json!({"registry-mirrors": [mirror]}).to_string();
    vm.shell("mkdir -p /etc/windlass /etc/docker")?;
    for path in ["/etc/windlass/engine.json", "/etc/docker/daemon.json"] {
        vm.login("root").write(path, &settings)?;
    }
    settle(&vm)?;
    Ok(vm)
}

/// The boot itself is neither's.
fn settle(vm: &Vm) -> Result<()> {
    vm.shell("systemctl is-system-running --wait || true")
        .map(drop)
}

struct Ours {
    seconds: f64,
    create_seconds: f64,
    received_megabytes: f64,
    idle_megabytes: f64,
}

fn ours(vm: &Vm, windlass: &Windlass) -> Result<Ours> {
    let before = number(&vm.shell(RECEIVED)?)?;
    let begun = Instant::now();
    let port = vm.port(22)?.to_string();
    let key = vm.key().to_string_lossy().into_owned();
    windlass.ok(&[
        "create",
        "--driver",
        "generic",
        "--generic-ip-address",
        "127.0.0.1",
        "--generic-ssh-port",
        &port,
        "--generic-ssh-key",
        &key,
        "vps",
    ])?;
    let created = begun.elapsed();
    let after = number(&vm.shell(RECEIVED)?)?;
    let idle = vm.shell("awk '/^VmRSS/ {print $2}' /proc/$(pgrep -xo windlassd)/status")?;
    // Looking at it is not counted.
    let resumed = Instant::now();
    let answered = first_answer(vm.port(80)?);
    windlass.ok(&["up", "-f", FILE])?;
    let answered = answered
        .recv_timeout(LIMIT)
        .context("httpd does not answer")?;
    Ok(Ours {
        seconds: (created + answered.duration_since(resumed)).as_secs_f64(),
        create_seconds: created.as_secs_f64(),
        received_megabytes: (after - before) / 1e6,
        idle_megabytes: number(&idle)? * 1.024 / 1000.0,
    })
}

fn by_apt(vm: &Vm) -> Result<f64> {
    let begun = Instant::now();
    let answered = first_answer(vm.port(80)?);
    let output = vm.login("root").try_shell(BY_APT, LIMIT)?;
    ensure!(
        output.status.success(),
        "docker.io does not work there: {}",
        output.stderr
    );
    let answered = answered
        .recv_timeout(LIMIT)
        .context("httpd does not answer")?;
    Ok(answered.duration_since(begun).as_secs_f64())
}

/// Asks all along from beside, until there is an answer.
fn first_answer(port: u16) -> mpsc::Receiver<Instant> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let url = format!("http://127.0.0.1:{port}/");
        let found = program::wait_for("httpd answers", LIMIT, || {
            let mut curl = Command::new("curl");
            curl.args([
                "-s",
                "--fail",
                "--max-time",
                "5",
                "--output",
                "/dev/null",
                &url,
            ]);
            let output = program::run(&mut curl, Duration::from_secs(10)).ok()?;
            output.status.success().then(Instant::now)
        });
        if let Ok((instant, _)) = found {
            // Whoever asked may have given up.
            let _ = sender.send(instant);
        }
    });
    receiver
}

fn number(text: &str) -> Result<f64> {
    text.trim()
        .parse()
        .with_context(|| format!("no number: {text}"))
}
