//! `windlass ip`.

use windlass_machine::MachineName;

use crate::error::{CommandError, Result};
use crate::world::World;

/// Prints the addresses of machines
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Machines; none: the active one
    names: Vec<MachineName>,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    for name in world.named_or_active(args.names).await? {
        let machine = world.machine(&name).await?;
        let Some(address) = machine.address else {
            return Err(
                CommandError::failed(format!("machine `{name}` has no address yet")).hint(format!(
                    "`windlass ls` shows how far it is, `windlass rm {name}` undoes it"
                )),
            );
        };
        world.print(&format!("{address}\n"));
    }
    Ok(())
}
