//! `windlass inspect`.

use windlass_machine::MachineName;

use super::output::{Format, json};
use crate::error::{CommandError, Result};
use crate::survey;
use crate::world::World;

/// Prints everything known of machines, as JSON
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only `json`: Go templates are not there, `jq` picks fields
    #[arg(short, long, default_value = "json")]
    format: Format,
    /// Machines; none: the active one
    names: Vec<MachineName>,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    if args.format != Format::Json {
        return Err(
            CommandError::input("`inspect` prints JSON only").hint("`windlass ls` prints a table")
        );
    }
    let mut all = Vec::new();
    for name in world.named_or_active(args.names).await? {
        let machine = world.machine(&name).await?;
        all.push(survey::look(world, machine).await?.describe());
    }
    match all.as_slice() {
        [one] => world.print(&json(one)?),
        several => world.print(&json(&several)?),
    };
    Ok(())
}
