//! Ctrl-C in the middle of `up`, `kill -9` in the middle of `create`: given again, the command goes on, and nothing is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use windlass_e2e::page;
use windlass_fixtures::{Windlass, program};

use crate::fleet::FILE;

const LIMIT: Duration = Duration::from_secs(120);
const NAME: &str = "survivor";

#[test]
#[ignore = "needs root, WINDLASS_BINARIES and `cargo xtask fixtures hello`"]
fn ctrl_c_in_the_middle_of_up() -> Result<()> {
    let windlass = Windlass::from_environment()?;
    let done = interrupt_up(&windlass);
    let down = windlass.ok(&["down", "-v", "-f", FILE]);
    done?;
    down?;
    ensure!(
        windlass.ok(&["ls", "--quiet"])?.is_empty(),
        "down left a machine"
    );
    Ok(())
}

fn interrupt_up(windlass: &Windlass) -> Result<()> {
    // The machines are being made: intents are there, hosts perhaps.
    let mut up = windlass.start(&["up", "-f", FILE, "--driver", "local"])?;
    program::wait_for("a machine is being made", LIMIT, || {
        windlass
            .ok(&["ls", "--quiet"])
            .is_ok_and(|names| !names.is_empty())
            .then_some(())
    })?;
    up.signal(Signal::SIGINT)?;
    let status = up.wait(LIMIT)?;
    ensure!(status.code() == Some(130), "{status}: {}", up.printed());
    ensure!(
        up.printed().contains("give the same command again"),
        "{}",
        up.printed()
    );
    windlass.ok(&["up", "-f", FILE, "--driver", "local"])?;
    let machines = windlass.json(&["ls", "--format", "json"])?;
    let machines = machines.as_array().cloned().unwrap_or_default();
    ensure!(machines.len() == 2, "{machines:?}");
    for machine in machines {
        let address = machine["address"].as_str().unwrap_or_default().to_owned();
        ensure!(!page(&format!("http://{address}:8080/"))?.is_empty());
    }
    Ok(())
}

/// At several points of a create, one after the other on the same name.
#[test]
#[ignore = "needs root and WINDLASS_BINARIES"]
fn kill_9_in_the_middle_of_create() -> Result<()> {
    let windlass = Windlass::from_environment()?;
    let done = kill_creates(&windlass);
    let removed = windlass.ok(&["rm", "-y", NAME]);
    done?;
    removed?;
    ensure!(windlass.ok(&["ls", "--quiet"])?.is_empty());
    Ok(())
}

fn kill_creates(windlass: &Windlass) -> Result<()> {
    let arguments = ["create", "--driver", "local", NAME];
    for milliseconds in [50, 300, 700, 1500, 2500] {
        let mut create = windlass.start(&arguments)?;
        // A moment that is as good as any other: the point is to be killed in the middle.
        let killed = create.wait(Duration::from_millis(milliseconds)).is_err();
        println!(
            "after {milliseconds} ms: {}",
            if killed { "killed" } else { "it had ended" }
        );
        let names = windlass.ok(&["ls", "--quiet"])?;
        ensure!(names.lines().count() <= 1, "{names}");
    }
    let last = windlass.run(&arguments)?;
    // It may have been finished by an earlier one.
    ensure!(
        last.status.success() || last.stderr.contains("already"),
        "{}",
        last.stderr
    );
    let machines = windlass.json(&["ls", "--format", "json"])?;
    ensure!(
        machines.as_array().is_some_and(|all| all.len() == 1),
        "{machines}"
    );
    ensure!(machines[0]["unfinished"] != true, "{machines}");
    ensure!(windlass.ok(&["ssh", NAME, "--", "hostname"])?.trim() == NAME);
    Ok(())
}
