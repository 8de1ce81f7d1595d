//! `cargo xtask binaries` and `cargo xtask engine`: the binaries for hosts, static, each built alone, and compressed where the command line finds them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::packages;
use crate::run::{output, run};

/// Package, which is the binary's name too, and features.
const BINARIES: [(&str, &[&str]); 3] = [
    ("windlassd", &[]),
    ("windlass-ingress", &["--features", "proxy"]),
    ("windlass-local-init", &[]),
];

/// What to build.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Architectures
    #[arg(long, value_delimiter = ',', default_value = "x86_64")]
    pub arch: Vec<String>,
    /// The cargo profile: `engine` is small and takes minutes, `engine-dev` is for tests
    #[arg(long, default_value = "engine")]
    pub profile: String,
    /// Some of the binaries only
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
}

/// The engine alone.
#[derive(clap::Args, Clone, Debug)]
pub struct EngineOptions {
    /// The architecture
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// The cargo profile: `engine` is small and takes minutes, `engine-dev` is for tests
    #[arg(long, default_value = "engine")]
    profile: String,
}

/// Builds the engine alone; the path of the program.
pub fn engine(options: &EngineOptions) -> Result<PathBuf> {
    let options = Options {
        arch: vec![options.arch.clone()],
        profile: options.profile.clone(),
        only: vec!["windlassd".to_owned()],
    };
    build(&options)?;
    program(&options, "windlassd")
}

/// Builds, compresses, and prints the sizes; the folder to give as `WINDLASS_BINARIES`.
pub fn build(options: &Options) -> Result<PathBuf> {
    packages::install(packages::BUILD)?;
    let folder = folder(options)?;
    for arch in &options.arch {
        let target = match arch.as_str() {
            "x86_64" => "x86_64-unknown-linux-musl",
            "aarch64" => "aarch64-unknown-linux-musl",
            other => bail!("unknown architecture `{other}`: x86_64 or aarch64"),
        };
        add_target(target)?;
        for (package, features) in BINARIES {
            if options.only.is_empty() || options.only.iter().any(|name| name == package) {
                build_one(
                    package,
                    features,
                    target,
                    &options.profile,
                    &folder.join(arch),
                )?;
            }
        }
    }
    Ok(folder)
}

/// Where they are put.
pub fn folder(options: &Options) -> Result<PathBuf> {
    Ok(target_folder()?.join("binaries").join(&options.profile))
}

/// A program as built for the first architecture, not compressed.
pub fn program(options: &Options, package: &str) -> Result<PathBuf> {
    let arch = options.arch.first().context("no architecture")?;
    let target = format!("{arch}-unknown-linux-musl");
    Ok(target_folder()?
        .join(target)
        .join(&options.profile)
        .join(package))
}

fn build_one(
    package: &str,
    features: &[&str],
    target: &str,
    profile: &str,
    folder: &Path,
) -> Result<()> {
    let began = Instant::now();
    let mut argv = vec![
        "cargo",
        "build",
        "--quiet",
        "--profile",
        profile,
        "--target",
        target,
        "--package",
        package,
        "--bin",
        package,
    ];
    argv.extend(features);
    run(&argv)?;
    let built = target_folder()?.join(target).join(profile).join(package);
    fs_err::create_dir_all(folder)?;
    let compressed = folder.join(format!("{package}.gz"));
    compress(&built, &compressed)?;
    println!(
        "{package:<20} {target:<28} {:>6.2} MB, compressed {:>6.2} MB ({:.0} s)",
        fs_err::metadata(&built)?.len() as f64 / 1e6,
        fs_err::metadata(&compressed)?.len() as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// gzip, since every host can unpack it; without the time, so that the same binary gives the same file.
fn compress(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("gz.new");
    let status = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .arg(from)
        .stdout(Stdio::from(
            fs_err::File::create(&temporary)?.into_parts().0,
        ))
        .status()
        .context("cannot start `gzip`")?;
    if !status.success() {
        bail!("`gzip {}` failed ({status})", from.display());
    }
    Ok(fs_err::rename(&temporary, to)?)
}

/// Has rustup add a target where it is missing.
pub fn add_target(target: &str) -> Result<()> {
    let installed = output(&["rustup", "target", "list", "--installed"])?;
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    run(&["rustup", "target", "add", target])
}

/// Cargo's target folder.
pub fn target_folder() -> Result<PathBuf> {
    let metadata = output(&["cargo", "metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("`cargo metadata` names no target folder")
}
