//! Many containers at once: starting, stopping, and taking them up again after the engine was killed.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::engine::Scene;
use super::sample::{Sample, take_turns};
use super::table::{Row, Table};
use crate::daemon::Engine;

/// A service that ends when it is asked to, as they should.
const SERVICE: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];

/// Starts many, and stops them.
pub fn measure(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let count = scene.options.containers();
    let image = scene.image("busybox");
    let (ours, docker) = (
        create(&scene.ours, &image, count)?,
        create(&scene.docker, &image, count)?,
    );
    let (mut our_stops, mut their_stops) = (Vec::new(), Vec::new());
    let (a, b) = take_turns(
        scene.options.rounds(),
        || round_of(&scene.ours, &ours, &mut our_stops),
        || round_of(&scene.docker, &docker, &mut their_stops),
    )?;
    table.add(Row::both(&format!("start of {count} containers"), &a, &b, "s").at_most_times(0.35));
    let (a, b) = (Sample::from(our_stops), Sample::from(their_stops));
    table.add(Row::both(&format!("stop of {count} containers"), &a, &b, "s").at_most_times(0.35));
    remove(&scene.ours, &ours)?;
    remove(&scene.docker, &docker)
}

/// From the start of the engine's program to an answer that has all containers running.
pub fn adoption(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let count = scene.options.containers();
    let image = scene.image("busybox");
    let ids = create(&scene.ours, &image, count)?;
    timed(&scene.ours, "start", &ids)?;
    let before = pids(&scene.ours, &ids)?;
    let took = Sample::of(scene.options.rounds(), || {
        scene.ours.kill()?;
        let begun = Instant::now();
        scene.ours.start_again()?;
        let running = scene.ours.ok(&["ps", "--quiet"])?.lines().count();
        ensure!(
            running == count,
            "{running} of {count} containers were taken up"
        );
        Ok(begun.elapsed().as_secs_f64())
    })?;
    ensure!(
        pids(&scene.ours, &ids)? == before,
        "containers were started anew"
    );
    table.add(
        Row::alone(
            &format!("engine start with {count} containers to adopt"),
            &took,
            "s",
        )
        .at_most(1.0),
    );
    remove(&scene.ours, &ids)
}

fn round_of(engine: &Engine, ids: &[String], stops: &mut Vec<f64>) -> Result<f64> {
    let took = timed(engine, "start", ids)?;
    stops.push(timed(engine, "stop", ids)?);
    Ok(took)
}

fn create(engine: &Engine, image: &str, count: usize) -> Result<Vec<String>> {
    let create = || {
        let id = engine.ok(&[&["create", image], &SERVICE[..]].concat())?;
        Ok(id.trim().to_owned())
    };
    (0..count).map(|_| create()).collect()
}

/// Seconds of one command for all of them.
fn timed(engine: &Engine, command: &str, ids: &[String]) -> Result<f64> {
    let begun = Instant::now();
    engine.ok(&with(&[command], ids))?;
    Ok(begun.elapsed().as_secs_f64())
}

fn pids(engine: &Engine, ids: &[String]) -> Result<String> {
    engine.ok(&with(&["inspect", "--format", "{{.State.Pid}}"], ids))
}

fn remove(engine: &Engine, ids: &[String]) -> Result<()> {
    engine.ok(&with(&["rm", "--force"], ids)).map(drop)
}

fn with<'a>(words: &[&'a str], ids: &'a [String]) -> Vec<&'a str> {
    words
        .iter()
        .copied()
        .chain(ids.iter().map(String::as_str))
        .collect()
}
