//! The engine's process: options, the order of the start, the end.

use std::future::Future;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use fs_err as fs;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::container::{Engine, Parts, Settings};
use crate::http;

/// Where everything is.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder of images, containers and volumes
    #[arg(long, default_value = "/var/lib/windlass")]
    pub root: PathBuf,
    /// The API's socket
    #[arg(long, default_value = "/run/windlass/engine.sock")]
    pub socket: PathBuf,
    /// Folder of what lasts until the next boot
    #[arg(long, default_value = "/run/windlass")]
    pub run: PathBuf,
    /// Registries, mirrors and defaults (JSON); need not exist
    #[arg(long, default_value = "/etc/windlass/engine.json")]
    pub config: PathBuf,
    /// Name of the default network's bridge
    #[arg(long, default_value = "windlass0")]
    pub bridge: String,
    /// Subnet of the default network
    #[arg(long, default_value = "172.29.0.0/16")]
    pub bridge_subnet: String,
}

/// Runs the engine until SIGTERM or SIGINT. Containers go on.
pub async fn run<F, Fut>(options: Options, build_id: String, assemble: F) -> anyhow::Result<()>
where
    F: FnOnce(Options) -> Fut,
    Fut: Future<Output = anyhow::Result<Parts>>,
{
    fs::create_dir_all(&options.root)?;
    fs::create_dir_all(&options.run)?;
    // The socket first: it tells whether another engine works with the same files.
    let listener = http::bind(&options.socket)?;
    let _lock = lock(&options.root)?;
    let settings = settings(&options, build_id)?;
    let parts = assemble(options.clone()).await?;
    let engine = Engine::new(settings, parts)?;
    let networks = engine.networks.clone();
    engine.adopt().await.context("take up the containers")?;
    tracing::info!(socket = %options.socket.display(), "ready");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = http::serve(listener, engine) => {}
        _ = terminate.recv() => tracing::info!("ends; containers go on"),
        _ = interrupt.recv() => tracing::info!("ends; containers go on"),
    }
    fs::remove_file(&options.socket).ok();
    if let Err(error) = networks.rest().await {
        tracing::warn!(%error, "networks could not be taken back");
    }
    Ok(())
}

/// One engine a root.
fn lock(root: &Path) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    let path = root.join("engine.lock");
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    nix::fcntl::Flock::lock(
        file.into_parts().0,
        nix::fcntl::FlockArg::LockExclusiveNonblock,
    )
    .map_err(|_| {
        anyhow::anyhow!(
            "another engine works in {}; stop it first, or choose another --root",
            root.display()
        )
    })
}

fn settings(options: &Options, build_id: String) -> anyhow::Result<Settings> {
    let config = Config::read(&options.config)?;
    Ok(Settings {
        root: options.root.clone(),
        run: options.run.clone(),
        engine_id: engine_id(&options.root)?,
        build_id,
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        log: config.log(),
        config,
    })
}

/// Made at the first start.
fn engine_id(root: &Path) -> anyhow::Result<String> {
    let path = root.join("engine-id");
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?
                .trim()
                .to_owned();
            fs::write(&path, format!("{id}\n"))?;
            Ok(id)
        }
        Err(e) => Err(e.into()),
    }
}
