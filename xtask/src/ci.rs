//! `cargo xtask ci`: every check, each a timed stage. It starts from a bare Debian with a Rust toolchain.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{output, run, run_with};
use crate::{binaries, budget, conformance, dependencies, fixtures, fuzz, packages};

/// Crates built and tested by themselves: a build together would unify the engine's features with the command line's.
const GROUPS: &[&[&str]] = &[
    &["windlassd"],
    &["windlass-local-init"],
    &[
        "windlass-engine-api",
        "windlass-provider",
        "windlass-provider-generic",
        "windlass-provider-local",
        "windlass-machine",
        "windlass-ssh",
        "windlass-install",
        "windlass-compose",
        "windlass-deploy",
        "windlass-autoscale",
        "windlass-ingress",
    ],
    &["windlass"],
    &[
        "xtask",
        "windlass-load",
        "windlass-fixtures",
        "windlass-e2e",
        "windlass-conformance",
    ],
];

/// End-to-end tests by target: they run the built programs against real hosts.
const END_TO_END: [&str; 3] = ["vm", "local", "scaling"];

/// Layers that must not see each other: (crate, what must be absent from its dependencies).
const FORBIDDEN: &[(&str, &str)] = &[
    ("windlass", "windlassd"),
    ("windlassd", "windlass-machine"),
    ("windlassd", "windlass-ssh"),
    ("windlassd", "windlass-deploy"),
    ("windlassd", "bollard"),
    ("windlass", "bollard"),
    ("windlass-deploy", "windlass-ssh"),
    ("windlass-deploy", "windlass-provider-local"),
    ("windlass-compose", "tokio"),
    ("windlass-machine", "windlass-ssh"),
    ("windlass-autoscale", "windlass-ssh"),
];

/// What to run.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Only stages whose name has this in it; the prerequisites always
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs the stages and stops at the first that fails.
pub fn run_all(options: &Options) -> Result<()> {
    let mut stages = Stages::new(options.only.clone());
    stages.run("prerequisites", prerequisites)?;
    stages.run("format", || run(&["cargo", "fmt", "--all", "--check"]))?;
    stages.run("budgets", budget::check)?;
    stages.run("layers", layers)?;
    stages.run("dependencies", dependencies::check)?;
    for group in GROUPS {
        stages.run(&format!("clippy {}", group[0]), || clippy(group))?;
    }
    for group in GROUPS {
        stages.run(&format!("test {}", group[0]), || test(group))?;
    }
    stages.run("fuzz", || fuzz::fuzz(&fuzz::Options::short()))?;
    end_to_end(&mut stages)?;
    stages.end();
    Ok(())
}

/// The binaries for hosts are built once, in the profile that builds fast.
fn end_to_end(stages: &mut Stages) -> Result<()> {
    stages.run("end-to-end: binaries", || {
        binaries::build(&binaries_for_tests()).map(drop)
    })?;
    stages.run("end-to-end: command line", || {
        run(&["cargo", "build", "--quiet", "--package", "windlass"])
    })?;
    stages.run("end-to-end: fixtures", || {
        fixtures::make(&fixtures::Options { only: Vec::new() })
    })?;
    stages.run("end-to-end: conformance", || {
        conformance::conformance(&conformance::Options {
            ours_only: true,
            quick: true,
            ..conformance::Options::default()
        })
    })?;
    stages.run("end-to-end: machines", || {
        test_end_to_end("windlass-provider-local", "machines")
    })?;
    for target in END_TO_END {
        stages.run(&format!("end-to-end: {target}"), || {
            test_end_to_end("windlass-e2e", target)
        })?;
    }
    stages.run("aarch64", aarch64)
}

/// The engine is built for the other architecture too, and runs there as far as an emulator of programs goes.
fn aarch64() -> Result<()> {
    let options = binaries::Options {
        arch: vec!["aarch64".to_owned()],
        only: vec!["windlassd".to_owned()],
        ..binaries_for_tests()
    };
    binaries::build(&options)?;
    let built = binaries::target_folder()?.join("aarch64-unknown-linux-musl/engine-dev/windlassd");
    let built = built
        .to_str()
        .context("the target folder's name is no text")?;
    let version = output(&["qemu-aarch64-static", built, "--version"])?;
    ensure!(
        version.starts_with("windlassd "),
        "`windlassd --version` on aarch64 printed `{version}`"
    );
    Ok(())
}

fn binaries_for_tests() -> binaries::Options {
    binaries::Options {
        arch: vec!["x86_64".to_owned()],
        profile: "engine-dev".to_owned(),
        only: Vec::new(),
    }
}

fn test_end_to_end(package: &str, target: &str) -> Result<()> {
    let folder = binaries::target_folder()?;
    let environment: [(&str, PathBuf); 2] = [
        (
            "WINDLASS_BINARIES",
            binaries::folder(&binaries_for_tests())?,
        ),
        ("WINDLASS_BIN", folder.join("debug/windlass")),
    ];
    let argv = [
        "cargo",
        "test",
        "--package",
        package,
        "--test",
        target,
        "--",
        "--include-ignored",
        "--nocapture",
    ];
    run_with(&argv, &environment)
}

/// Times each stage, and leaves out those that are not asked for.
struct Stages {
    only: Option<String>,
    begun: Instant,
    taken: Vec<(String, Duration)>,
}

impl Stages {
    fn new(only: Option<String>) -> Self {
        Self {
            only,
            begun: Instant::now(),
            taken: Vec::new(),
        }
    }

    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let wanted = self
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()));
        if !wanted && name != "prerequisites" {
            return Ok(());
        }
        println!("ci: {name} …");
        let begun = Instant::now();
        work().with_context(|| {
            format!(
                "stage `{name}` failed after {:.0} s",
                begun.elapsed().as_secs_f64()
            )
        })?;
        println!("ci: {name} ok ({:.0} s)", begun.elapsed().as_secs_f64());
        self.taken.push((name.to_owned(), begun.elapsed()));
        Ok(())
    }

    fn end(&self) {
        for (name, took) in &self.taken {
            println!("ci: {:>6.0} s  {name}", took.as_secs_f64());
        }
        println!(
            "ci: all stages passed in {:.0} s",
            self.begun.elapsed().as_secs_f64()
        );
    }
}

fn clippy(group: &[&str]) -> Result<()> {
    let mut argv = vec!["cargo", "clippy", "--quiet"];
    argv.extend(packages(group));
    argv.extend(["--all-targets", "--", "-D", "warnings"]);
    run(&argv)
}

fn test(group: &[&str]) -> Result<()> {
    let mut argv = vec!["cargo", "test"];
    argv.extend(packages(group));
    run(&argv)
}

fn packages<'a>(group: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    group.iter().flat_map(|package| ["--package", package])
}

fn prerequisites() -> Result<()> {
    packages::install(packages::BUILD)?;
    packages::install(packages::TESTS)?;
    packages::install_docker_client()?;
    binaries::add_target("x86_64-unknown-linux-musl")?;
    binaries::add_target("aarch64-unknown-linux-musl")
}

fn layers() -> Result<()> {
    for (package, absent) in FORBIDDEN {
        let argv = [
            "cargo",
            "tree",
            "--quiet",
            "--edges",
            "normal",
            "--package",
            package,
            "--invert",
            absent,
        ];
        // It fails for a crate that is nowhere, and prints nothing for one that only others use.
        if output(&argv).is_ok_and(|tree| !tree.trim().is_empty()) {
            bail!(
                "`{package}` must not depend on `{absent}`; `cargo tree -p {package} -i {absent}` shows the way"
            );
        }
    }
    Ok(())
}
