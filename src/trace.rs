//! `-v`: the trace on standard error. Without it only warnings are shown.
//!
//! Deliberately absent: secrets; types that hold one do not print it.

use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::environment;
use crate::progress::{Progress, TraceWriter};

/// `WINDLASS_LOG` (as `RUST_LOG` elsewhere) overrides the level.
pub fn init(verbose: u8, progress: &Arc<Progress>) {
    let level = match verbose {
        0 => "windlass=warn,error",
        1 => {
            "info,windlass=debug,windlass_machine=debug,windlass_ssh=debug,windlass_install=debug,windlass_deploy=debug,windlass_autoscale=debug,russh=warn"
        }
        _ => "debug,hyper=info,russh=info",
    };
    let filter = environment::variable("WINDLASS_LOG")
        .and_then(|given| EnvFilter::try_new(given).ok())
        .unwrap_or_else(|| EnvFilter::new(level));
    let writer = TraceWriter(progress.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(uptime())
        .with_ansi(false)
        .with_writer(move || writer.clone());
    // A second subscriber in one process would be a test's.
    let _ = subscriber.try_init();
}
