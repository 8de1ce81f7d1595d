//! `windlass completion`.

use clap_complete::Shell;

use crate::error::Result;
use crate::progress::Progress;

/// Prints the completion script of a shell: source <(windlass completion bash)
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &Args, progress: &Progress) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "windlass", &mut script);
    progress.print(&String::from_utf8_lossy(&script));
    Ok(())
}
