//! `cargo xtask bench engine`: the engine in depth beside dockerd, podman and crun, with the same images, in one run.
//!
//! Deliberately absent: virtual machines, which `cargo xtask bench` measures.

use std::path::Path;

use anyhow::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use windlass_fixtures::{Access, Cache, Registry, layers};

use super::table::{Row, Table};
use super::{cost, fleet, images, peers, sample, served, sizes};
use crate::daemon::{self, Engine};
use crate::run::run;
use crate::{binaries, packages};

/// How often to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How often each short thing is measured on each engine
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// How often each long thing is measured on each engine: pulls, builds, many containers
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// How many containers are many
    #[arg(long, default_value_t = 100)]
    containers: usize,
    /// The cargo profile of the engine; the figures are those of `engine`
    #[arg(long, default_value = "engine")]
    profile: String,
    /// Only rows of groups whose name has this in it: sizes, memory, run, fleet, pull, build, served, adopt
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// What the measurements share.
pub struct Scene {
    /// Ours.
    pub ours: Engine,
    /// Debian's.
    pub docker: Engine,
    /// Where both pull from.
    pub registry: Registry,
    /// How often.
    pub options: Options,
}

impl Scene {
    /// The name under which both engines know an image.
    pub fn image(&self, name: &str) -> String {
        format!("{}/bench/{name}:1", self.registry.address())
    }

    /// Both, ours first.
    pub fn both(&self) -> [&Engine; 2] {
        [&self.ours, &self.docker]
    }
}

impl Options {
    /// How often each short thing is measured.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// How often each long thing is measured.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// How many containers are many.
    pub fn containers(&self) -> usize {
        self.containers
    }
}

type Group = (&'static str, fn(&mut Scene, &mut Table) -> Result<()>);

/// In this order: what leaves an engine larger comes after its memory was read.
const GROUPS: [Group; 7] = [
    ("memory", memory),
    ("run", run_group),
    ("fleet", fleet::measure),
    ("served", served::measure),
    ("build", images::builds),
    ("pull", pull_group),
    ("adopt", fleet::adoption),
];

/// Measures everything and prints one table.
pub fn bench(options: &Options) -> Result<()> {
    packages::install(packages::TESTS)?;
    packages::install(packages::BENCH)?;
    packages::install(packages::BENCH_ENGINE)?;
    packages::install_docker_client()?;
    let built = binaries::Options {
        arch: vec!["x86_64".to_owned()],
        profile: options.profile.clone(),
        only: vec!["windlassd".to_owned()],
    };
    binaries::build(&built)?;
    let program = binaries::program(&built, "windlassd")?;
    crate::fixtures::hello()?;
    let wanted = |group: &str| {
        options
            .only
            .as_ref()
            .is_none_or(|only| group.contains(only.as_str()))
    };
    let mut table = Table::default();
    if wanted("sizes") {
        sizes(&mut table, &built)?;
    }
    isolate()?;
    let mut scene = scene(options, &program, wanted("pull"))?;
    for (name, measure) in GROUPS {
        if wanted(name) {
            println!("measuring: {name} …");
            measure(&mut scene, &mut table)?;
        }
    }
    println!("\n{table}");
    Ok(())
}

/// Their networks, their mounts and whatever they do to the packet filter go away with this process's namespaces.
fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    run(&["ip", "link", "set", "lo", "up"])?;
    // An address of the host that is not loopback: what clients of a published port use.
    run(&["ip", "link", "add", "wlhost0", "type", "bridge"])?;
    run(&[
        "ip",
        "address",
        "add",
        &format!("{}/24", served::HOST),
        "dev",
        "wlhost0",
    ])?;
    run(&["ip", "link", "set", "wlhost0", "up"])?;
    // crun refuses a computer that has the second hierarchy beside the first.
    let mounts = fs_err::read_to_string("/proc/self/mounts")?;
    let hybrid = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("cgroup"));
    let second = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    for path in second
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|_| hybrid)
    {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

fn scene(options: &Options, program: &Path, pulls: bool) -> Result<Scene> {
    let registry = Registry::start(Access::Anonymous)?;
    let busybox = tempfile::tempdir()?;
    cost::busybox_image(busybox.path())?;
    registry.push(busybox.path(), "bench/busybox", "1")?;
    if pulls {
        let cache = Cache::standard();
        registry.push(&layers::image(&cache, layers::USUAL)?, "bench/usual", "1")?;
        registry.push(&layers::image(&cache, layers::LARGE)?, "bench/large", "1")?;
    }
    let scene = Scene {
        ours: daemon::windlassd(
            program,
            &["--bridge", "wlbench0", "--bridge-subnet", "172.31.0.0/20"],
        )?,
        docker: daemon::dockerd()?,
        registry,
        options: options.clone(),
    };
    for engine in scene.both() {
        engine.ok(&["pull", "--quiet", &scene.image("busybox")])?;
    }
    Ok(scene)
}

fn memory(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let (image, count) = (scene.image("busybox"), scene.options.containers());
    cost::memory(&scene.ours, &scene.docker, &image, count, table)
}

fn run_group(scene: &mut Scene, table: &mut Table) -> Result<()> {
    let (image, runs) = (scene.image("busybox"), scene.options.runs());
    let (ours, docker) = sample::take_turns(
        runs,
        || cost::run_once(&scene.ours, &image),
        || cost::run_once(&scene.docker, &image),
    )?;
    table
        .add(Row::both("run --rm … true, beside dockerd", &ours, &docker, "s").at_most_times(0.35));
    peers::measure(scene, table)
}

fn pull_group(scene: &mut Scene, table: &mut Table) -> Result<()> {
    images::pull(scene, "usual", layers::USUAL, table)?;
    images::pull(scene, "large", layers::LARGE, table)?;
    images::pull_of_the_last_layer(scene, table)
}
