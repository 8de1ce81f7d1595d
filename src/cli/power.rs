//! `windlass start`, `stop`, `restart` and `kill`: several machines at once.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use windlass_engine_api::Client;
use windlass_machine::{Machine, MachineName, PowerAction};

use crate::error::{CommandError, Result};
use crate::world::World;

/// How long the engine of a started machine may take to answer.
const ENGINE_WITHIN: Duration = Duration::from_secs(60);
/// Between two questions.
const POLL: Duration = Duration::from_millis(200);

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
            let power = world.lifecycle.power(provider.as_ref(), name, action);
            let machine = power.await?;
            match action {
                PowerAction::Start | PowerAction::Restart => engine_answers(world, &machine).await,
                PowerAction::Stop | PowerAction::Kill => Ok(()),
            }
        })
        .await
}

/// A started machine is of use when its engine answers.
async fn engine_answers(world: &World, machine: &Machine) -> Result<()> {
    if machine.engine.is_none() {
        return Ok(());
    }
    // The former session leads to the host as it was before.
    world.sessions.close(&machine.name);
    let name = machine.name.as_str();
    world.progress.begin(name, "engine");
    let deadline = Instant::now() + ENGINE_WITHIN;
    loop {
        let ping = async {
            let engine = Client::new(world.sessions.engine(machine).await?);
            Ok::<_, CommandError>(engine.ping().await?)
        };
        let error = match timeout_at(deadline, ping).await {
            Ok(Ok(_)) => {
                world.progress.end(name, "engine", "answers");
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(_) => CommandError::failed("it is silent"),
        };
        if Instant::now() + POLL >= deadline {
            world.progress.end(name, "engine", "failed");
            return Err(CommandError::failed(format!(
                "machine `{name}` is up, but its engine does not answer: {}",
                error.summary()
            ))
            .hint(format!("look at it with `windlass ssh {name}`")));
        }
        sleep(POLL).await;
    }
}
