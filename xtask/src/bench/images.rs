//! What images cost: pulls beside dockerd and beside `tar`, and builds.

use std::time::Instant;

use anyhow::Result;
use windlass_fixtures::layers::{self, Size};
use windlass_fixtures::{Cache, program};

use super::cost;
use super::engine::Scene;
use super::sample::{Sample, take_turns};
use super::table::{Row, Table};
use crate::daemon::Engine;

/// A project as people have them: a base, packages that change seldom, sources that change often, and a smaller stage to run from.
const DOCKERFILE: &str = "\
FROM BASE AS build
WORKDIR /src
COPY packages /src/packages
RUN mkdir -p /out && cp -r /src/packages /out/
COPY sources /src/sources
RUN cat /src/sources/* > /out/program
FROM BASE
ENV MODE=production
COPY --from=build /out /app
RUN sh -c 'echo made > /app/made'
CMD [\"sh\"]
";

/// A pull of everything, and `tar` on the same layers one after the other.
pub fn pull(scene: &Scene, name: &str, size: Size, table: &mut Table) -> Result<()> {
    let image = scene.image(name);
    let rounds = scene.options.rounds();
    let (ours, docker) = take_turns(
        rounds,
        || cost::pull_once(&scene.ours, &image),
        || cost::pull_once(&scene.docker, &image),
    )?;
    let layout = layers::image(&Cache::standard(), size)?;
    let tar = Sample::of(rounds, || cost::unpack_once(&layout))?;
    let what = format!(
        "pull of {} MB in {} layers",
        size.bytes / 1_000_000,
        size.layers
    );
    table
        .add(Row::both(&format!("{what}, beside dockerd"), &ours, &docker, "s").at_most_times(0.8));
    table.add(
        Row::both("… beside `tar -xz` of the layers in turn", &ours, &tar, "s").at_most_times(1.0),
    );
    Ok(())
}

/// A pull of an image of which all but the last layer is there.
pub fn pull_of_the_last_layer(scene: &Scene, table: &mut Table) -> Result<()> {
    let base = scene.image("usual");
    let next = scene.image("usual-next");
    let context = tempfile::tempdir()?;
    fs_err::write(context.path().join("news"), "a small layer\n".repeat(1000))?;
    fs_err::write(
        context.path().join("Dockerfile"),
        format!("FROM {base}\nCOPY news /news\n"),
    )?;
    let folder = context.path().to_string_lossy();
    for engine in scene.both() {
        engine.ok(&["pull", "--quiet", &base])?;
    }
    scene
        .docker
        .ok(&["build", "--quiet", "--tag", &next, &folder])?;
    scene.docker.ok(&["push", "--quiet", &next])?;
    scene.docker.ok(&["rmi", &next])?;
    let (ours, docker) = take_turns(
        scene.options.runs(),
        || cost::pull_once(&scene.ours, &next),
        || cost::pull_once(&scene.docker, &next),
    )?;
    table.add(Row::both("pull of the last, small layer", &ours, &docker, "s").at_most_times(0.5));
    Ok(())
}

/// Builds of a sample project.
pub fn builds(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let context = tempfile::tempdir()?;
    let at = |name: &str| context.path().join(name);
    fs_err::write(
        at("Dockerfile"),
        DOCKERFILE.replace("BASE", &scene.image("busybox")),
    )?;
    for (folder, count, bytes) in [("packages", 200, 40_000), ("sources", 50, 4_000)] {
        fs_err::create_dir(at(folder))?;
        for number in 0..count {
            let line = format!("{folder} {number}\n");
            fs_err::write(
                at(folder).join(number.to_string()),
                line.repeat(bytes / line.len()),
            )?;
        }
    }
    let folder = context.path().to_string_lossy().into_owned();
    let cold = |engine: &Engine| build(engine, &["--no-cache", &folder]);
    let (ours, docker) = take_turns(
        scene.options.rounds(),
        || cold(&scene.ours),
        || cold(&scene.docker),
    )?;
    table.add(
        Row::both("build of the sample project, cold", &ours, &docker, "s").at_most_times(0.6),
    );
    let cached = |engine: &Engine| build(engine, &[&folder]);
    let (ours, docker) = take_turns(
        scene.options.runs(),
        || cached(&scene.ours),
        || cached(&scene.docker),
    )?;
    table.add(
        Row::both(
            "build of the sample project, all cached",
            &ours,
            &docker,
            "s",
        )
        .at_most_times(0.3),
    );
    Ok(())
}

fn build(engine: &Engine, arguments: &[&str]) -> Result<f64> {
    let mut command =
        engine.docker(&[&["build", "--quiet", "--tag", "bench-built"], arguments].concat());
    command.env("DOCKER_BUILDKIT", "0");
    let begun = Instant::now();
    program::checked(&mut command, std::time::Duration::from_secs(300))?;
    Ok(begun.elapsed().as_secs_f64())
}
