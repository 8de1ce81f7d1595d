//! `cargo xtask bench`: the figures, beside those of Debian's `docker.io`, measured in one run on this computer.
//!
//! Times on a shared computer vary: each comes with its spread, the two engines take turns, and ratios say more than seconds.

mod cost;
mod engine;
mod fleet;
mod images;
mod peers;
mod sample;
mod served;
mod table;
mod vps;

use anyhow::{Result, ensure};
use nix::sched::{CloneFlags, unshare};
use windlass_fixtures::{Access, Cache, Registry, layers};

use crate::run::run;
use crate::{binaries, daemon, packages};
use sample::Sample;
use table::{Row, Table};

/// What to measure, and how often.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How often `run --rm` is measured on each engine
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// How often the pull is measured on each engine
    #[arg(long, default_value_t = 5)]
    pulls: usize,
    /// Containers that the memory is measured with
    #[arg(long, default_value_t = 10)]
    containers: usize,
    /// The cargo profile of the binaries for hosts; the figures are those of `engine`
    #[arg(long, default_value = "engine")]
    profile: String,
    /// Leave out the virtual machines
    #[arg(long)]
    skip_vps: bool,
    #[command(subcommand)]
    what: Option<What>,
}

/// Other things to measure.
#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// The engine alone, in depth, beside dockerd, podman and crun
    Engine(engine::Options),
}

/// Measures everything and prints one table.
pub fn bench(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "engines need root: `sudo -E cargo xtask bench`"
    );
    match &options.what {
        Some(What::Engine(options)) => engine::bench(options),
        None => overview(options),
    }
}

fn overview(options: &Options) -> Result<()> {
    packages::install(packages::TESTS)?;
    packages::install(packages::BENCH)?;
    packages::install_docker_client()?;
    let built = binaries::Options {
        arch: vec!["x86_64".to_owned()],
        profile: options.profile.clone(),
        only: Vec::new(),
    };
    let binaries = binaries::build(&built)?;
    let cache = Cache::standard();
    let mut table = Table::default();
    sizes(&mut table, &built)?;
    if !options.skip_vps {
        run(&["cargo", "build", "--quiet", "--package", "windlass"])?;
        let program = binaries::target_folder()?.join("debug/windlass");
        vps::measure(&cache, &program, &binaries, &mut table)?;
    }
    // Their networks, and whatever Docker does to the packet filter, go away with this namespace.
    unshare(CloneFlags::CLONE_NEWNET)?;
    run(&["ip", "link", "set", "lo", "up"])?;
    beside_docker(
        options,
        &cache,
        &binaries::program(&built, "windlassd")?,
        &mut table,
    )?;
    println!("\n{table}");
    Ok(())
}

fn sizes(table: &mut Table, built: &binaries::Options) -> Result<()> {
    let size =
        |path: &std::path::Path| -> Result<f64> { Ok(fs_err::metadata(path)?.len() as f64 / 1e6) };
    let raw = size(&binaries::program(built, "windlassd")?)?;
    let packed = size(&binaries::folder(built)?.join("x86_64/windlassd.gz"))?;
    table.add(Row::ours("engine, binary", raw, "MB").at_most(10.0));
    table.add(Row::ours("engine, compressed", packed, "MB").at_most(4.0));
    Ok(())
}

fn beside_docker(
    options: &Options,
    cache: &Cache,
    windlassd: &std::path::Path,
    table: &mut Table,
) -> Result<()> {
    let registry = Registry::start(Access::Anonymous)?;
    let busybox = tempfile::tempdir()?;
    cost::busybox_image(busybox.path())?;
    registry.push(busybox.path(), "bench/busybox", "1")?;
    registry.push(&layers::image(cache, layers::USUAL)?, "bench/layers", "1")?;
    let image = |name: &str| format!("{}/bench/{name}:1", registry.address());
    let bridge = ["--bridge", "wlbench0", "--bridge-subnet", "172.31.0.0/20"];
    let ours = daemon::windlassd(windlassd, &bridge)?;
    let docker = daemon::dockerd()?;
    println!("measuring memory …");
    cost::memory(&ours, &docker, &image("busybox"), options.containers, table)?;
    println!("measuring `run --rm` …");
    let (a, b) = sample::take_turns(
        options.runs,
        || cost::run_once(&ours, &image("busybox")),
        || cost::run_once(&docker, &image("busybox")),
    )?;
    table.add(Row::both("run --rm … true", &a, &b, "s").at_most_times(0.5));
    println!("measuring the pull of 350 MB …");
    let (a, b) = sample::take_turns(
        options.pulls,
        || cost::pull_once(&ours, &image("layers")),
        || cost::pull_once(&docker, &image("layers")),
    )?;
    table.add(Row::both("pull of 350 MB in 6 layers", &a, &b, "s").at_most_times(1.0));
    let tar = Sample::of(options.pulls, || {
        cost::unpack_once(&layers::image(cache, layers::USUAL)?)
    })?;
    table.add(Row::note(
        "… the same layers by `tar -xz`, one by one",
        &tar,
        "s",
    ));
    Ok(())
}
