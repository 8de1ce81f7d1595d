//! `windlass start`, `stop`, `restart` and `kill`: several machines at once.

use windlass_machine::{MachineName, PowerAction};

use crate::error::Result;
use crate::world::World;

/// Which machines
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Machines; none: the active one
    names: Vec<MachineName>,
}

pub async fn run(args: Args, action: PowerAction, world: &World) -> Result<()> {
    let names = world.named_or_active(args.names).await?;
    world
        .each(&names, async |name| {
            let machine = world.machine(name).await?;
            let provider = world.provider_of(&machine)?;
            world
                .lifecycle
                .power(provider.as_ref(), name, action)
                .await?;
            Ok(())
        })
        .await
}
