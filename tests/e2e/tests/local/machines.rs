//! Three machines at once, each by itself; two Apaches on one of them; an engine that is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Docker, PAGE, broken_binaries, newer_binaries, page, tells};
use windlass_fixtures::{Cache, Running, Windlass, httpd, program};

const NAMES: [&str; 3] = ["one", "two", "three"];
const LIMIT: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs root and WINDLASS_BINARIES"]
fn three_machines_know_nothing_of_each_other() -> Result<()> {
    let mut windlass = Windlass::from_environment()?;
    let done = use_three(&mut windlass);
    let removed = windlass.ok(&["rm", "-y", "one", "two", "three"]);
    done?;
    removed?;
    ensure!(windlass.ok(&["ls", "--quiet"])?.is_empty());
    Ok(())
}

fn use_three(windlass: &mut Windlass) -> Result<()> {
    let creates: Vec<Running> = NAMES
        .iter()
        .map(|name| windlass.start(&["create", "--driver", "local", name]))
        .collect::<Result<_>>()?;
    for mut create in creates {
        let status = create.wait(LIMIT)?;
        ensure!(status.success(), "{}", create.printed());
    }
    apart(windlass)?;
    two_apaches(windlass)?;
    killed_engine(windlass)?;
    upgraded_engines(windlass)
}

fn inside(windlass: &Windlass, name: &str, line: &str) -> Result<String> {
    windlass.ok(&["ssh", name, line])
}

fn apart(windlass: &Windlass) -> Result<()> {
    let addresses: BTreeSet<String> = NAMES
        .iter()
        .map(|name| Ok(windlass.ok(&["ip", name])?.trim().to_owned()))
        .collect::<Result<_>>()?;
    ensure!(addresses.len() == 3, "addresses are shared: {addresses:?}");
    inside(
        windlass,
        "one",
        "echo mine > /var/mine; sleep 1234.5 </dev/null >/dev/null 2>&1 &",
    )?;
    ensure!(inside(windlass, "one", "cat /var/mine; pgrep -f 'sleep 1234[.]5'")?.contains("mine"));
    for other in ["two", "three"] {
        let seen = inside(
            windlass,
            other,
            "ls /var/mine 2>&1; pgrep -f 'sleep 1234[.]5'; true",
        )?;
        ensure!(
            seen.contains("No such file"),
            "{other} sees a file of one: {seen}"
        );
        ensure!(
            seen.lines().count() == 1,
            "{other} sees a process of one: {seen}"
        );
    }
    let host = inside(
        windlass,
        "one",
        "ls -A /home /root/.ssh 2>/dev/null | wc -l; hostname",
    )?;
    ensure!(host.split_whitespace().last() == Some("one"), "{host}");
    let networks: BTreeSet<String> = NAMES
        .iter()
        .map(|name| {
            inside(
                windlass,
                name,
                "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc",
            )
        })
        .collect::<Result<_>>()?;
    ensure!(networks.len() == 3, "namespaces are shared: {networks:?}");
    Ok(())
}

/// The same port in both containers, different ones on the machine.
fn two_apaches(windlass: &Windlass) -> Result<()> {
    let archive = windlass.home().join("httpd.tar");
    let layout = httpd::image(&Cache::standard())?;
    program::output(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        &format!("oci:{}:2.4", layout.display()),
        &format!("docker-archive:{}:httpd:2.4", archive.display()),
    ])?;
    let docker = Docker::on(windlass, "one")?;
    docker.ok(&["load", "--quiet", "--input", &archive.to_string_lossy()])?;
    let address = windlass.ok(&["ip", "one"])?;
    for port in ["8081", "8082"] {
        docker.ok(&[
            "run",
            "--detach",
            "--name",
            &format!("web{port}"),
            "--publish",
            &format!("{port}:80"),
            "httpd:2.4",
        ])?;
        ensure!(page(&format!("http://{}:{port}/", address.trim()))?.contains(PAGE));
    }
    ensure!(docker.ok(&["ps", "--quiet"])?.lines().count() == 2);
    ensure!(
        Docker::on(windlass, "two")?
            .ok(&["ps", "--all", "--quiet"])?
            .is_empty()
    );
    Ok(())
}

/// Nothing stops when the engine dies, and the next one, which the machine's init starts, takes up what runs.
fn killed_engine(windlass: &Windlass) -> Result<()> {
    let docker = Docker::on(windlass, "one")?;
    let pids = [docker.pid("web8081")?, docker.pid("web8082")?];
    let before = inside(windlass, "one", "pgrep -xo windlassd")?;
    inside(windlass, "one", &format!("kill -9 {}", before.trim()))?;
    let address = windlass.ok(&["ip", "one"])?;
    ensure!(page(&format!("http://{}:8081/", address.trim()))?.contains(PAGE));
    let (after, took) = program::wait_for("another engine answers", LIMIT, || {
        let docker = Docker::on(windlass, "one").ok()?;
        Some([docker.pid("web8081").ok()?, docker.pid("web8082").ok()?])
    })?;
    println!("another engine answered after {:.1} s", took.as_secs_f64());
    ensure!(
        after == pids,
        "containers were restarted: {pids:?}, then {after:?}"
    );
    for port in [8081, 8082] {
        ensure!(page(&format!("http://{}:{port}/", address.trim()))?.contains(PAGE));
    }
    Ok(())
}

/// An engine that does not run is replaced by the former one; one that does is there on all machines, and its containers have gone on.
fn upgraded_engines(windlass: &mut Windlass) -> Result<()> {
    let docker = Docker::on(windlass, "one")?;
    let pids = [docker.pid("web8081")?, docker.pid("web8082")?];
    let folder = tempfile::tempdir()?;
    for name in ["broken", "newer"] {
        fs_err::create_dir(folder.path().join(name))?;
    }
    broken_binaries(&folder.path().join("broken"))?;
    windlass.set("WINDLASS_BINARIES", folder.path().join("broken"));
    let message = windlass.fails(&["upgrade", "two"])?;
    tells(&message, &["two", "ended at once"])?;
    ensure!(
        Docker::on(windlass, "two")?
            .ok(&["ps", "--quiet"])?
            .is_empty()
    );
    newer_binaries(&folder.path().join("newer"))?;
    windlass.set("WINDLASS_BINARIES", folder.path().join("newer"));
    let told = windlass.ok(&["upgrade", "--all"])?;
    ensure!(told.matches('→').count() == 3, "{told}");
    let again = windlass.ok(&["upgrade", "--all"])?;
    ensure!(again.matches("unchanged").count() == 3, "{again}");
    windlass.set("WINDLASS_BINARIES", windlass_e2e::binaries()?);
    let docker = Docker::on(windlass, "one")?;
    let after = [docker.pid("web8081")?, docker.pid("web8082")?];
    ensure!(
        after == pids,
        "containers were restarted: {pids:?}, then {after:?}"
    );
    Ok(())
}
