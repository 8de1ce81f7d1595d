//! The command line of `windlassd`, and the engine put together from its parts.
//!
//! Deliberately absent: the parts themselves, and the order of the start (`serve`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use fs_err as fs;

use crate::build::LocalBuilder;
use crate::config::Config;
use crate::container::Parts;
use crate::image::LocalImages;
use crate::network::LocalNetworks;
use crate::runtime::LocalRuntime;
use crate::serve::{self, Options};
use crate::userns::Remap;
use crate::volume::LocalVolumes;

/// The container engine of windlass: the Docker Engine API on a unix socket
#[derive(Debug, clap::Parser)]
#[command(name = "windlassd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs the engine (the same as no command)
    Serve(Options),
    /// Takes back the bridge and the rules of an engine that is gone for good
    Clear {
        /// Name of its default network's bridge
        #[arg(long)]
        bridge: String,
    },
    /// Looks whether what an engine keeps fits together; a line a finding, exit code 1 if there are any
    Check(crate::check::Options),
    /// Joins stdin and stdout with a unix socket
    Dial {
        /// Its path
        socket: PathBuf,
    },
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = match cli.command {
        Some(Command::Serve(options)) => options,
        Some(Command::Dial { socket }) => return dial(&socket),
        Some(Command::Check(options)) => return crate::check::main(&options),
        Some(Command::Clear { bridge }) => return clear(&bridge),
        None => cli.options,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WINDLASSD_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlassd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Needs neither root nor a runtime.
fn dial(socket: &Path) -> ExitCode {
    match crate::dial::join(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlassd dial: {error}");
            ExitCode::FAILURE
        }
    }
}

fn clear(bridge: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let cleared = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(crate::network::clear(bridge)));
    match cleared {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlassd clear: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "windlassd must be run as root"
    );
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("TLS was set up twice"))?;
    // Modes are meant as they are given: a stricter mask of whoever starts us would shut containers' users out of their own root.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let build = crate::build_id::of(Path::new("/proc/self/exe"))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve::run(options, build, assemble))
}

/// The real parts.
async fn assemble(options: Options) -> anyhow::Result<Parts> {
    // Images bring programs that run as root and device files: other users of the host must not get at them.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&options.root, std::fs::Permissions::from_mode(0o700))?;
    let config = Config::read(&options.config)?;
    let images = LocalImages::open(&options.root, config.registries())?;
    let remap = Remap::open(config.userns_remap.as_deref())?.map(Arc::new);
    if let Some(remap) = &remap {
        images.overlays.try_shifted(remap).context(
            "'userns-remap': this kernel or file system cannot show files with other owners (Linux 5.19 and ext4, xfs or btrfs can)",
        )?;
    }
    let runtime = Arc::new(LocalRuntime::open(&options.run)?);
    let networks = Arc::new(
        LocalNetworks::open(crate::network::Settings {
            root: options.root.clone(),
            run: options.run.clone(),
            bridge: options.bridge.clone(),
            subnet: options.bridge_subnet.clone(),
        })
        .await?,
    );
    let builder = LocalBuilder::open(
        &options.root,
        images.clone(),
        runtime.clone(),
        networks.clone(),
    )
    .await?
    .remapped(remap.clone());
    Ok(Parts {
        images: Arc::new(images),
        runtime,
        networks,
        volumes: Arc::new(
            LocalVolumes::open(&options.root)?.owned_by(remap.as_ref().map(|r| r.maps.root())),
        ),
        builder: Arc::new(builder),
        remap,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let read = |words: &[&str]| Cli::try_parse_from(words);
        let plain = read(&["windlassd", "--bridge", "wl1"]).unwrap();
        assert_eq!(plain.options.bridge, "wl1");
        let named = read(&["windlassd", "serve", "--bridge", "wl2"]).unwrap();
        let Some(Command::Serve(options)) = named.command else {
            panic!("no serve")
        };
        assert_eq!(options.bridge, "wl2");
        assert!(read(&["windlassd", "--nonsense"]).is_err());
    }
}
