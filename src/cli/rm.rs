//! `windlass rm`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use windlass_machine::{LifecycleError, MachineName, Remove};
use windlass_provider::Ownership;

use crate::error::{CommandError, Result};
use crate::world::World;

/// Removes machines: the host where a driver made it, and everything known of it
///
/// A host that existed before (driver generic) is left as it is, with its engine and containers.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Do not ask
    #[arg(short)]
    yes: bool,
    /// Do not ask, and forget the machine even when its host cannot be removed
    #[arg(short, long)]
    force: bool,
    /// Machines
    #[arg(required = true)]
    names: Vec<MachineName>,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    // All of them are looked up first: a mistyped name removes nothing.
    for name in &args.names {
        world.machine(name).await?;
    }
    if !args.yes && !args.force {
        // On a thread of its own: Ctrl-C must be heard while it waits.
        let names = args.names.clone();
        tokio::task::spawn_blocking(move || confirm(&names)).await??;
    }
    let what = if args.force {
        Remove::Record
    } else {
        Remove::Host
    };
    world
        .each(&args.names, async |name| remove(world, name, what).await)
        .await
}

async fn remove(world: &World, name: &MachineName, what: Remove) -> Result<()> {
    let machine = world.machine(name).await?;
    let provider = world.provider_of(&machine)?;
    let removed = world.lifecycle.remove(provider.as_ref(), name, what).await;
    removed.map_err(|error| match error {
        LifecycleError::Provider { .. } => CommandError::from(error).hint(format!(
            "try again, or forget it with `windlass rm -f {name}` and remove the host with the provider's own tools"
        )),
        other => other.into(),
    })?;
    if provider.ownership() == Ownership::Adopts && machine.engine.is_some() {
        world.progress.line(&format!(
            "machine `{name}` is forgotten; the host itself, its engine and its containers were left as they are"
        ));
    }
    Ok(())
}

fn confirm(names: &[MachineName]) -> Result<()> {
    let all: Vec<_> = names.iter().map(MachineName::as_str).collect();
    let all = all.join(", ");
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::input(format!(
            "`rm` asks before it removes {all}, and there is no terminal"
        ))
        .hint("give `-y` to remove without asking"));
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "Remove {all}, with everything on it? (y/n) ")?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::failed("nothing was removed")),
    }
}
