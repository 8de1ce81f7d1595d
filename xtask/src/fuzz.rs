//! `cargo xtask fuzz`: the engine's readers of what strangers write, each under libFuzzer for a while.
//!
//! Built by the stable toolchain: the compiler's coverage passes are asked for by its stable flags, and no sanitizer is,
//! since the engine's own code is safe Rust with few exceptions. The corpus in the repository is read; what is new goes to
//! a folder beside the build, and what fails to `engine/fuzz/artifacts`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::binaries;
use crate::run::{run, run_with};

/// The coverage that libFuzzer is led by.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Coverflow-checks";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const CRATE: &str = "engine/fuzz";

/// What reads bytes of strangers.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Layers into their folder
    Layer,
    /// Image references
    Reference,
    /// Dockerfiles
    Dockerfile,
    /// Bodies and filters of requests
    Body,
    /// Log files
    Log,
}

/// What to run.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// One only [default: all, one after the other]
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// For each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Replace the corpus in the repository by the smallest one that covers as much
    #[arg(long)]
    minimize: bool,
}

impl Options {
    /// All targets, for a check.
    pub fn short() -> Self {
        Self {
            target: None,
            seconds: 10,
            minimize: false,
        }
    }
}

/// Builds and runs them; the first failure ends it.
pub fn fuzz(options: &Options) -> Result<()> {
    let build = binaries::target_folder()?.join("fuzz");
    let environment = [
        ("CARGO_TARGET_DIR", build.clone()),
        ("RUSTFLAGS", PathBuf::from(FLAGS)),
    ];
    let manifest = format!("{CRATE}/Cargo.toml");
    let argv = [
        "cargo",
        "build",
        "--quiet",
        "--manifest-path",
        &manifest,
        "--target",
        TRIPLE,
    ];
    run_with(&argv, &environment)?;
    for target in Target::value_variants() {
        if options.target.is_some_and(|wanted| wanted != *target) {
            continue;
        }
        let named = target.to_possible_value();
        let name = named.as_ref().map_or("", |value| value.get_name());
        fuzz_one(&build, name, options).with_context(|| format!("fuzz target `{name}`"))?;
    }
    Ok(())
}

fn fuzz_one(build: &Path, name: &str, options: &Options) -> Result<()> {
    let program = build.join(TRIPLE).join("debug").join(name);
    let seeds = Path::new(CRATE).join("corpus").join(name);
    let found = build.join("corpus").join(name);
    let artifacts = Path::new(CRATE).join("artifacts").join(name);
    for folder in [&found, &artifacts, &seeds] {
        fs_err::create_dir_all(folder)?;
    }
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("a path is not text")
    };
    if options.minimize {
        let smallest = tempfile::tempdir()?;
        let (into, program) = (text(smallest.path())?, text(&program)?);
        let (found, seeds_text) = (text(&found)?, text(&seeds)?);
        run(&[&program, "-merge=1", &into, &found, &seeds_text])?;
        fs_err::remove_dir_all(&seeds)?;
        fs_err::create_dir_all(&seeds)?;
        for file in fs_err::read_dir(smallest.path())? {
            let file = file?;
            fs_err::copy(file.path(), seeds.join(file.file_name()))?;
        }
        return Ok(());
    }
    ensure!(
        fs_err::read_dir(&seeds)?.next().is_some(),
        "no corpus in {}",
        seeds.display()
    );
    let artifacts = format!("-artifact_prefix={}/", text(&artifacts)?);
    let seconds = format!("-max_total_time={}", options.seconds);
    run(&[
        &text(&program)?,
        &artifacts,
        &seconds,
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        "-verbosity=0",
        &text(&found)?,
        &text(&seeds)?,
    ])
}
