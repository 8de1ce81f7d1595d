//! The life of a service on a VPS, from nothing: create, up, upgrade of the engine, reboot, down, rm.

use anyhow::{Result, ensure};
use windlass_e2e::{Docker, PAGE, Vps, newer_binaries};
use windlass_fixtures::Access;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/httpd/windlass.yaml"
);

#[test]
#[ignore = "needs root, QEMU and WINDLASS_BINARIES"]
fn apache_outlives_an_engine_upgrade_and_a_reboot() -> Result<()> {
    let mut vps = Vps::boot(Access::Anonymous)?;
    vps.windlass.ok(&vps.create("web1", "root")?)?;
    vps.windlass.ok(&["up", "-f", FILE])?;
    ensure!(vps.page(80)?.contains(PAGE));
    ensure!(
        vps.registry
            .log()
            .contains("/v2/library/httpd/manifests/2.4"),
        "not pulled from the mirror"
    );
    told(&vps)?;
    upgrade(&mut vps)?;
    reboot(&mut vps)?;
    vps.windlass.ok(&["down", "-f", FILE])?;
    let docker = Docker::on(&vps.windlass, "web1")?;
    ensure!(
        docker.ok(&["ps", "--all", "--quiet"])?.is_empty(),
        "down left a container"
    );
    vps.windlass.ok(&["rm", "-y", "web1"])?;
    ensure!(vps.windlass.ok(&["ls", "--quiet"])?.is_empty());
    Ok(())
}

/// What the commands that look say of it; a second `up` has nothing to do.
fn told(vps: &Vps) -> Result<()> {
    let ps = vps.windlass.json(&["ps", "-f", FILE, "--format", "json"])?;
    ensure!(
        ps[0]["state"] == "running" && ps[0]["machine"] == "web1",
        "{ps}"
    );
    let logs = vps.windlass.ok(&["logs", "--file", FILE, "web"])?;
    ensure!(
        logs.contains("GET / HTTP/1.1"),
        "no request in the logs:\n{logs}"
    );
    let again = vps.windlass.run(&["up", "-f", FILE])?;
    ensure!(
        again.status.success() && again.stderr.contains("nothing to do"),
        "{}",
        again.stderr
    );
    let uname = vps.windlass.ok(&["ssh", "web1", "--", "uname", "-n"])?;
    ensure!(uname.trim() == "vps", "{uname}");
    let docker = Docker::on(&vps.windlass, "web1")?;
    let listed = docker.ok(&["ps", "--format", "{{.Image}} {{.Ports}}"])?;
    ensure!(
        listed.contains("httpd:2.4") && listed.contains("0.0.0.0:80->80/tcp"),
        "{listed}"
    );
    ensure!(
        docker
            .ok(&["version", "--format", "{{.Server.Version}}"])?
            .contains('.')
    );
    // The engine itself opens no TCP port: sshd and the container's are all that listen.
    let listening = vps
        .vm
        .shell("ss -Hltn | awk '{print $4}' | sed 's/.*://' | sort -un")?;
    ensure!(
        listening
            .split_whitespace()
            .all(|port| port == "22" || port == "80"),
        "{listening}"
    );
    Ok(())
}

/// Another build of the engine takes over, and the container does not notice.
fn upgrade(vps: &mut Vps) -> Result<()> {
    let container = container(vps)?;
    let docker = Docker::on(&vps.windlass, "web1")?;
    let before = docker.pid(&container)?;
    let engine = "sha256sum < /usr/local/lib/windlass/windlassd";
    let digest = vps.vm.shell(engine)?;
    let same = vps.windlass.ok(&["upgrade", "web1"])?;
    ensure!(same.contains("unchanged"), "{same}");
    let newer = tempfile::tempdir()?;
    newer_binaries(newer.path())?;
    vps.windlass.set("WINDLASS_BINARIES", newer.path());
    let told = vps
        .windlass
        .json(&["upgrade", "--all", "--format", "json"])?;
    let another = vps.vm.shell(engine)?;
    ensure!(another != digest, "the engine was not replaced");
    for (key, digest) in [("before", &digest), ("after", &another)] {
        let told = told[0][key]["digest"].as_str().unwrap_or_default();
        ensure!(digest.starts_with(told) && !told.is_empty(), "{told}");
    }
    let docker = Docker::on(&vps.windlass, "web1")?;
    ensure!(
        docker.pid(&container)? == before,
        "the upgrade restarted the container"
    );
    ensure!(vps.page(80)?.contains(PAGE));
    vps.windlass
        .set("WINDLASS_BINARIES", windlass_e2e::binaries()?);
    Ok(())
}

fn reboot(vps: &mut Vps) -> Result<()> {
    let took = vps.vm.reboot()?;
    println!("rebooted in {:.0} s", took.as_secs_f64());
    ensure!(vps.page(80)?.contains(PAGE), "not back after the reboot");
    let ps = vps.windlass.json(&["ps", "-f", FILE, "--format", "json"])?;
    ensure!(ps[0]["state"] == "running", "{ps}");
    Ok(())
}

fn container(vps: &Vps) -> Result<String> {
    let ids = vps.windlass.ok(&["ps", "-f", FILE, "--quiet"])?;
    ensure!(
        ids.lines().count() == 1,
        "one container was expected: {ids}"
    );
    Ok(ids.trim().to_owned())
}
