//! `windlass forward`, hidden: the background process behind `windlass env`.

use windlass_machine::MachineName;

use crate::error::Result;
use crate::forward;
use crate::world::World;

/// Holds the local socket of a machine's engine; started by `windlass env`
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Machine
    name: MachineName,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    forward::serve(world, &args.name).await
}
