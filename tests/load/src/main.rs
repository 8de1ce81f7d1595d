//! `windlass-load`: the library from a shell. Exit code 1 when a request failed.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use windlass_load::{Pressure, Report, Steady, Target, closed_loop};

/// Sends HTTP requests and says what came of them.
#[derive(Parser)]
#[command(name = "windlass-load")]
struct Args {
    /// What to ask for, with an IP address: http://127.0.0.1:8080/
    url: String,
    /// The Host header, when it is another than the URL's
    #[arg(long)]
    host: Option<String>,
    /// Connections that are kept busy
    #[arg(long, short, default_value_t = 8)]
    connections: usize,
    /// How long, in seconds; without it until Ctrl-C
    #[arg(long, short)]
    duration: Option<f64>,
    /// The pause of each connection between two requests, in milliseconds
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// One request at every so many milliseconds instead of full load
    #[arg(long, value_name = "MS")]
    steady: Option<u64>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let target = match Target::new(&args.url, args.host.as_deref()) {
        Ok(target) => target,
        Err(e) => {
            eprintln!("windlass-load: {e}");
            return ExitCode::from(2);
        }
    };
    let report = load(&args, target).await;
    if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(e) => eprintln!("windlass-load: {e}"),
        }
    } else {
        println!("{report}");
    }
    if report.failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn load(args: &Args, target: Target) -> Report {
    let stop = async {
        let end = async {
            match args.duration.map(Duration::try_from_secs_f64) {
                Some(Ok(duration)) => tokio::time::sleep(duration).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    if let Some(interval) = args.steady {
        let steady = Steady::start(
            target,
            Duration::from_millis(interval.max(1)),
            Duration::from_secs(30),
        );
        stop.await;
        return steady.stop().await;
    }
    let pause = Duration::from_millis(args.pause_ms);
    closed_loop(
        &target,
        Pressure {
            pause,
            ..Pressure::full(args.connections)
        },
        stop,
    )
    .await
}
