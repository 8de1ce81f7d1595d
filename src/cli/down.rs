//! `windlass down`.

use std::time::Duration;

use windlass_deploy::Volumes;

use super::file::FileArgs;
use super::output::Format;
use super::up::print_plan;
use crate::error::Result;
use crate::projects;
use crate::world::World;

/// Removes what `up` made: containers, ingress, networks, and the machines of the project's fleets
///
/// Volumes stay unless `-v` is given; so do machines made by `windlass create`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// Remove the volumes too, with their data
    #[arg(short = 'v', long)]
    volumes: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// `table` or `json`, for `--dry-run`
    #[arg(long, default_value = "table")]
    format: Format,
    /// How many seconds another windlass may hold the project
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lock_wait: u64,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let project = args.file.project_name(world)?;
    let volumes = if args.volumes {
        Volumes::Remove
    } else {
        Volumes::Keep
    };
    let deployer = world.deployer();
    if args.dry_run {
        let plan = deployer.plan_down(&project, volumes).await?;
        return print_plan(&plan, args.format, world);
    }
    let wait = Duration::from_secs(args.lock_wait);
    let outcome = deployer.down(&project, volumes, wait).await?;
    // What could not be reached was told as a note, and is still to be removed.
    if outcome.notes.is_empty() {
        projects::forget(world, &project)?;
    }
    let what = if outcome.steps == 0 {
        "there was nothing to remove"
    } else {
        "is down"
    };
    world.progress.line(&format!("project `{project}`: {what}"));
    Ok(())
}
