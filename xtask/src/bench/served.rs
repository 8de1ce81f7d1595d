//! A published port under load, by `wrk` from the host's side.

use anyhow::{Context as _, Result};
use windlass_fixtures::program;

use super::engine::Scene;
use super::sample::{Sample, take_turns};
use super::table::{Row, Table};
use crate::daemon::Engine;

/// The host's address that clients use; from the block for documentation, in a network namespace of the bench's own.
pub const HOST: &str = "192.0.2.1";
const SECONDS: &str = "3s";

/// Requests a second and latency of a small web server.
pub fn measure(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let mut latencies = (Vec::new(), Vec::new());
    for (engine, port) in [(&scene.ours, "8181"), (&scene.docker, "8182")] {
        engine.ok(&["build", "--quiet", "--tag", "bench-hello", "examples/hello"])?;
        let publish = format!("{HOST}:{port}:8080");
        engine.ok(&[
            "run",
            "--detach",
            "--name",
            "bench-hello",
            "--publish",
            &publish,
            "bench-hello",
        ])?;
    }
    let (ours, docker) = take_turns(
        scene.options.rounds(),
        || load(&mut latencies.0, "8181"),
        || load(&mut latencies.1, "8182"),
    )?;
    table.add(
        Row::both("published port, requests a second", &ours, &docker, "").at_least_times(1.0),
    );
    let (ours, docker) = (Sample::from(latencies.0), Sample::from(latencies.1));
    table.add(
        Row::both(
            "published port, 99th percentile of latency",
            &ours,
            &docker,
            "ms",
        )
        .at_most_times(1.0),
    );
    scene.both().into_iter().try_for_each(end)
}

fn end(engine: &Engine) -> Result<()> {
    engine.ok(&["rm", "--force", "bench-hello"]).map(drop)
}

/// Requests a second; the latency is noted, in milliseconds.
fn load(latencies: &mut Vec<f64>, port: &str) -> Result<f64> {
    let url = format!("http://{HOST}:{port}/");
    let said = program::output(&["wrk", "-t1", "-c16", "-d", SECONDS, "--latency", &url])?;
    let after = |key: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(str::trim)
            .with_context(|| format!("`wrk` printed no `{key}`: {said}"))
    };
    latencies.push(milliseconds(after("99%")?)?);
    Ok(after("Requests/sec:")?.parse()?)
}

/// As `wrk` prints a time: `812.00us`, `1.25ms`, `2.10s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    anyhow::bail!("`{text}` is no time of `wrk`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_wrk() {
        assert_eq!(milliseconds("812.00us").unwrap(), 0.812);
        assert_eq!(milliseconds("1.25ms").unwrap(), 1.25);
        assert_eq!(milliseconds("2.10s").unwrap(), 2100.0);
        assert!(milliseconds("2").is_err());
    }
}
