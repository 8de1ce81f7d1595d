//! `windlass ps`.

use windlass_deploy::ReplicaView;

use super::file::FileArgs;
use super::output::{Format, json, table};
use crate::error::Result;
use crate::world::World;

/// Lists the containers of a project
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// Container ids only
    #[arg(short, long)]
    quiet: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    format: Format,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let project = args.file.project_name(world)?;
    let ps = world.deployer().ps(&project).await?;
    let text = match args.format {
        _ if args.quiet => ps
            .replicas
            .iter()
            .map(|r| format!("{}\n", r.container))
            .collect(),
        Format::Json => json(&ps.replicas)?,
        Format::Table => {
            let rows: Vec<_> = ps.replicas.iter().map(row).collect();
            table(
                ["NAME", "MACHINE", "IMAGE", "STATE", "HEALTH", "PORTS"],
                &rows,
            )
        }
    };
    world.print(&text);
    for note in &ps.notes {
        world.progress.line(&format!("note: {note}"));
    }
    Ok(())
}

fn row(replica: &ReplicaView) -> [String; 6] {
    [
        replica.name.clone(),
        replica.machine.to_string(),
        replica.image.clone(),
        replica.state.clone(),
        replica.health.clone(),
        replica.ports.join(", "),
    ]
}
