//! `windlass status`.

use windlass_machine::MachineName;

use crate::error::Result;
use crate::survey;
use crate::world::World;

/// Prints the state of machines: Running, Stopped, Error, …
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Machines; none: the active one
    names: Vec<MachineName>,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    for name in world.named_or_active(args.names).await? {
        let machine = world.machine(&name).await?;
        let seen = survey::look(world, machine).await?;
        world.print(&format!("{}\n", seen.state));
    }
    Ok(())
}
