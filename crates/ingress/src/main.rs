//! The proxy process: arguments, signals, log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use windlass_ingress::proxy::{AccessLog, Config, Forwarded, run};

/// Spreads HTTP requests over replicas, by a table that it takes over a unix socket.
#[derive(Parser)]
#[command(name = "windlass-ingress", version)]
struct Args {
    /// Where requests come in; may be given several times
    #[arg(long, required = true, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// The unix socket that takes the table and tells the status
    #[arg(long, value_name = "PATH")]
    admin_socket: PathBuf,
    /// Keeps the last table, so that a restarted proxy serves at once
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// How long requests in progress may take after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// Trust X-Forwarded-* of clients, because another proxy is in front
    #[arg(long)]
    trust_forwarded: bool,
    /// Log each request
    #[arg(long)]
    access_log: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let mut config = Config::new(args.listen, args.admin_socket, args.state);
    config.grace = Duration::from_secs(args.grace);
    if args.trust_forwarded {
        config.forwarded = Forwarded::Trust;
    }
    if args.access_log {
        config.access_log = AccessLog::On;
    }
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let cause = e.source().map(|s| format!(": {s}")).unwrap_or_default();
            eprintln!("windlass-ingress: {e}{cause}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run(config, stop).await?;
    Ok(())
}
