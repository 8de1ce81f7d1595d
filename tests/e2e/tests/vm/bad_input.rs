//! What goes wrong on hosts: each gives one clear error that names the machine and says what, and nothing is lost.

use anyhow::{Result, ensure};
use windlass_e2e::{PAGE, Vps, broken_binaries, tells};
use windlass_fixtures::{Access, layers};

#[test]
#[ignore = "needs root, QEMU and WINDLASS_BINARIES"]
fn a_host_that_fails_is_told_and_loses_nothing() -> Result<()> {
    let mut vps = Vps::boot(Access::Anonymous)?;
    wrong_key(&vps)?;
    broken_engine(&mut vps)?;
    // Given again, it goes on where it failed.
    vps.windlass.ok(&vps.create("web1", "root")?)?;
    port_taken(&vps)?;
    image_not_found(&vps)?;
    disk_full(&vps)?;
    changed_host_key(&vps)?;
    host_down(&mut vps)
}

fn wrong_key(vps: &Vps) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("other");
    windlass_fixtures::program::output(&[
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-f",
        &key.to_string_lossy(),
    ])?;
    let mut arguments = vps.create("stranger", "root")?;
    let place = arguments
        .iter()
        .position(|it| it == "--generic-ssh-key")
        .unwrap_or_default();
    arguments[place + 1] = key.into();
    let message = vps.windlass.fails(&arguments)?;
    tells(&message, &["stranger"])?;
    vps.windlass.ok(&["rm", "-y", "stranger"])?;
    Ok(())
}

fn broken_engine(vps: &mut Vps) -> Result<()> {
    let broken = tempfile::tempdir()?;
    broken_binaries(broken.path())?;
    vps.windlass.set("WINDLASS_BINARIES", broken.path());
    let message = vps.windlass.fails(&vps.create("web1", "root")?)?;
    vps.windlass
        .set("WINDLASS_BINARIES", windlass_e2e::binaries()?);
    tells(&message, &["web1"])
}

fn project(vps: &Vps, name: &str, image: &str, port: u16) -> Result<String> {
    let file = vps.windlass.home().join(format!("{name}.yaml"));
    fs_err::write(
        &file,
        format!(
            "name: {name}\nservices:\n  web:\n    image: {image}\n    ports: [\"{port}:80\"]\n"
        ),
    )?;
    Ok(file.to_string_lossy().into_owned())
}

fn port_taken(vps: &Vps) -> Result<()> {
    let file = project(vps, "taken", "httpd:2.4", 22)?;
    let message = vps.windlass.fails(&["up", "-f", &file])?;
    tells(&message, &["web1", "22"])?;
    vps.windlass.ok(&["down", "-f", &file])?;
    Ok(())
}

fn image_not_found(vps: &Vps) -> Result<()> {
    let image = format!("{}/library/nothing:1", vps.registry_for_host());
    let file = project(vps, "nothing", &image, 8081)?;
    let message = vps.windlass.fails(&["up", "-f", &file])?;
    tells(&message, &["web1", &image])?;
    vps.windlass.ok(&["down", "-f", &file])?;
    Ok(())
}

/// A running service goes on while the disk is full, and the failed `up` succeeds once there is room.
fn disk_full(vps: &Vps) -> Result<()> {
    let first = project(vps, "first", "httpd:2.4", 80)?;
    vps.windlass.ok(&["up", "-f", &first])?;
    let second = project(
        vps,
        "second",
        &format!("{}/library/httpd:2.4", vps.registry_for_host()),
        8080,
    )?;
    let layout = tempfile::tempdir()?;
    layers::incompressible(layout.path(), 20_000_000)?;
    vps.registry.push(layout.path(), "library/other", "1")?;
    let other = project(
        vps,
        "other",
        &format!("{}/library/other:1", vps.registry_for_host()),
        8081,
    )?;
    // Without the blocks that ext4 keeps for root.
    vps.vm
        .shell("tune2fs -m 0 /dev/vda && fallocate -l $(($(df --output=avail -B1 / | tail -1) - 3000000)) /filler")?;
    let message = vps.windlass.fails(&["up", "-f", &other])?;
    tells(&message, &["web1", "no space left on device"])?;
    ensure!(
        vps.page(80)?.contains(PAGE),
        "a full disk stopped a running service"
    );
    vps.vm.shell("rm /filler")?;
    vps.windlass.ok(&["up", "-f", &second])?;
    ensure!(vps.page(8080)?.contains(PAGE));
    vps.windlass.ok(&["down", "-f", &other])?;
    Ok(())
}

fn changed_host_key(vps: &Vps) -> Result<()> {
    vps.vm.shell(
        "mkdir /root/keys && mv /etc/ssh/ssh_host_* /root/keys/ && ssh-keygen -qA && systemctl restart ssh",
    )?;
    let message = vps.windlass.run(&["ps", "-p", "first"])?;
    let ssh = vps.windlass.run(&["ssh", "web1", "--", "true"])?;
    tells(&ssh.stderr, &["web1", "host key"])?;
    ensure!(ssh.status.code() == Some(255), "{}", ssh.status);
    ensure!(message.stderr.contains("web1"), "{}", message.stderr);
    vps.vm
        .shell("rm /etc/ssh/ssh_host_* && mv /root/keys/* /etc/ssh/ && systemctl restart ssh")?;
    vps.windlass.ok(&["ssh", "web1", "--", "true"])?;
    Ok(())
}

fn host_down(vps: &mut Vps) -> Result<()> {
    vps.vm.kill()?;
    let ssh = vps.windlass.run(&["ssh", "web1", "--", "true"])?;
    tells(&ssh.stderr, &["web1"])?;
    ensure!(ssh.status.code() == Some(255), "{}", ssh.status);
    // It is still known: a host that is down is not a host that is gone.
    ensure!(vps.windlass.ok(&["ls", "--quiet"])?.trim() == "web1");
    vps.windlass.ok(&["rm", "-y", "web1"])?;
    Ok(())
}
