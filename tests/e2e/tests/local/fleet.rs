//! The example fleet behind its ingress.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::page;
use windlass_fixtures::Windlass;

/// Run from the examples' folder: the declared file builds from beside it.
pub const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/fleet/windlass.yaml"
);

#[test]
#[ignore = "needs root, WINDLASS_BINARIES and `cargo xtask fixtures hello`"]
fn the_ingress_spreads_over_the_fleet() -> Result<()> {
    let windlass = Windlass::from_environment()?;
    let done = up(&windlass);
    let down = windlass.ok(&["down", "-v", "-f", FILE]);
    done?;
    down?;
    ensure!(
        windlass.ok(&["ls", "--quiet"])?.is_empty(),
        "down left a machine"
    );
    Ok(())
}

/// These machines have one address, for everybody: past the proxies, it leads to no replica.
fn only_the_proxies_get_in(windlass: &Windlass) -> Result<()> {
    let replicas = windlass.json(&["ps", "-f", FILE, "--format", "json"])?;
    let ports: Vec<&str> = replicas
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|replica| replica["ports"][0].as_str()?.split("->").next())
        .collect();
    ensure!(ports.len() == 2, "{replicas}");
    for port in ports {
        let reached = TcpStream::connect_timeout(&port.parse()?, Duration::from_secs(5));
        let refused = reached.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
        ensure!(refused, "{port} answers to everybody");
    }
    Ok(())
}

fn up(windlass: &Windlass) -> Result<()> {
    windlass.ok(&["up", "-f", FILE, "--driver", "local"])?;
    let machines = windlass.json(&["ls", "--filter", "fleet=web", "--format", "json"])?;
    let addresses: Vec<&str> = machines
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|machine| machine["address"].as_str())
        .collect();
    ensure!(addresses.len() == 2, "{machines}");
    // An ingress on each machine of the lowest count, and each reaches the replicas of both.
    for address in addresses {
        let url = format!("http://{address}:8080/");
        let seen: BTreeSet<String> = (0..12).map(|_| page(&url)).collect::<Result<_>>()?;
        ensure!(seen.len() == 2, "{url} leads to one replica only: {seen:?}");
    }
    only_the_proxies_get_in(windlass)?;
    let again = windlass.run(&["up", "-f", FILE])?;
    ensure!(
        again.status.success() && again.stderr.contains("nothing to do"),
        "{}",
        again.stderr
    );
    let plan = windlass.ok(&["up", "-f", FILE, "--dry-run"])?;
    ensure!(plan.contains("nothing to do"), "{plan}");
    Ok(())
}
