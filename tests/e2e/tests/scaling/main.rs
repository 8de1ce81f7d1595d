//! A fleet that follows its load, and a client that is always there and sees no failure.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use windlass_e2e::page;
use windlass_fixtures::{Windlass, program};
use windlass_load::{Pressure, Steady, Target, closed_loop};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/fleet/windlass.yaml"
);
const GROWS_WITHIN: Duration = Duration::from_secs(150);
const SHRINKS_WITHIN: Duration = Duration::from_secs(180);

#[test]
#[ignore = "needs root, WINDLASS_BINARIES and `cargo xtask fixtures hello`"]
fn the_fleet_grows_and_shrinks_without_a_failure() -> Result<()> {
    let windlass = Windlass::from_environment()?;
    let done = scale(&windlass);
    let down = windlass.ok(&["down", "-v", "-f", FILE]);
    done?;
    down.map(drop)
}

fn scale(windlass: &Windlass) -> Result<()> {
    windlass.ok(&["up", "-f", FILE, "--driver", "local"])?;
    let address = first_address(windlass)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let url = format!("http://{address}:8080/");
    let target = Target::new(&url, None)?;
    let steady = runtime.block_on(async {
        Steady::start(target, Duration::from_millis(50), Duration::from_secs(30))
    });
    let mut autoscale = windlass.start(&["autoscale", "-f", FILE])?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let busy = Target::new(&format!("{url}work?ms=25"), None)?;
    let load = runtime.spawn(async move {
        closed_loop(&busy, Pressure::full(8), async { drop(stopped.await) }).await
    });
    let grown = wait_for_count(windlass, &url, 3, GROWS_WITHIN);
    // The load's task waits for it or has ended; both are well.
    let _ = stop.send(());
    let load = runtime.block_on(load)?;
    grown.with_context(|| format!("it did not grow:\n{}", autoscale.printed()))?;
    wait_for_count(windlass, &url, 2, SHRINKS_WITHIN)
        .with_context(|| format!("it did not shrink:\n{}", autoscale.printed()))?;
    autoscale.signal(nix::sys::signal::Signal::SIGINT)?;
    autoscale.wait(Duration::from_secs(60))?;
    println!("{}", autoscale.printed());
    let seen = runtime.block_on(steady.stop());
    println!("the load: {load}\nthe client: {seen}");
    ensure!(seen.requests > 100, "{seen}");
    ensure!(
        seen.failures == 0 && load.failures == 0,
        "the client: {seen}\nthe load: {load}"
    );
    Ok(())
}

fn first_address(windlass: &Windlass) -> Result<String> {
    let machines = windlass.json(&["ls", "--filter", "fleet=web", "--format", "json"])?;
    machines
        .as_array()
        .into_iter()
        .flatten()
        .find(|machine| machine["ordinal"] == 1)
        .and_then(|machine| machine["address"].as_str())
        .map(str::to_owned)
        .with_context(|| format!("no first machine: {machines}"))
}

/// So many machines, and as many different replicas that answer through the ingress.
fn wait_for_count(windlass: &Windlass, url: &str, count: usize, limit: Duration) -> Result<()> {
    let what = format!("{count} machines serve");
    let (_, took) = program::wait_for(&what, limit, || {
        let machines = windlass
            .json(&["ls", "--filter", "fleet=web", "--format", "json"])
            .ok()?;
        let answers = (0..2 * count)
            .map(|_| page(url))
            .collect::<Result<BTreeSet<_>>>();
        (machines.as_array()?.len() == count && answers.ok()?.len() == count).then_some(())
    })?;
    println!("{what} after {:.0} s", took.as_secs_f64());
    Ok(())
}
