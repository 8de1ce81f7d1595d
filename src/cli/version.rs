//! `windlass version`.

use super::output::{Format, json};
use crate::environment;
use crate::error::Result;
use crate::progress::Progress;

/// Prints the version of windlass, and where it finds the binaries for hosts
#[derive(clap::Args, Debug)]
pub struct Args {
    /// `table` or `json`
    #[arg(short, long, default_value = "table")]
    format: Format,
}

pub fn run(args: &Args, progress: &Progress) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let binaries = environment::binaries().map(|folder| folder.display().to_string());
    let text = match args.format {
        Format::Json => json(&serde_json::json!({
            "version": version,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "binaries": binaries,
        }))?,
        Format::Table => format!(
            "windlass {version} ({}/{})\nbinaries for hosts: {}\n",
            std::env::consts::OS,
            std::env::consts::ARCH,
            binaries
                .as_deref()
                .unwrap_or("none found; set WINDLASS_BINARIES"),
        ),
    };
    progress.print(&text);
    Ok(())
}
