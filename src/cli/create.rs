//! `windlass create`.

use clap::builder::PossibleValuesParser;
use windlass_machine::{CreateSpec, IntentKind, Machine, MachineName};
use windlass_provider::{LoginKey, OptionValues, Provider, resolve, storable};

use super::driver_flags::DriverFlags;
use crate::error::{CommandError, Result};
use crate::registry;
use crate::world::World;

/// Makes a machine: a host, reached over SSH, with the engine on it
///
/// An interrupted create is finished by giving the same command again, and undone by `windlass rm`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What makes the host
    #[arg(short, long, env = "WINDLASS_DRIVER", default_value = registry::DRIVERS[0].name,
          value_parser = PossibleValuesParser::new(registry::names()))]
    driver: String,
    /// A label for placement, KEY=VALUE
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    flags: DriverFlags,
    /// Name of the new machine: letters, digits and hyphens
    name: MachineName,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let driver = registry::driver(&args.driver)?;
    let mut given = args.flags.into_values(driver)?;
    let begun = add_recorded(world, &args.name, driver.name, &mut given).await?;
    let provider = driver.build(&given, &world.context())?;
    if begun == Begun::Before {
        take_key(world, &args.name, provider.as_ref()).await?;
    }
    let resolved = resolve(driver.name, driver.options, &given)?;
    let mut spec = CreateSpec::new(args.name.clone(), storable(driver.options, &resolved));
    spec.labels = args.labels.into_iter().collect();
    let created = world.lifecycle.create(provider.as_ref(), spec).await;
    let machine = match created {
        Ok(machine) => machine,
        Err(error) => return Err(unfinished(world, &args.name, error.into()).await),
    };
    let address = machine.address.as_deref().unwrap_or("an unknown address");
    world.progress.line(&format!(
        "machine `{}` is ready at {address}; for docker clients: eval \"$(windlass env {})\"",
        machine.name, machine.name
    ));
    Ok(())
}

/// Says how to go on, where something is left behind.
async fn unfinished(world: &World, name: &MachineName, error: CommandError) -> CommandError {
    match world.store.intent(name).await {
        Ok(Some(intent)) if intent.kind == IntentKind::Create => error.hint(format!(
            "give the same command again to go on from there, or `windlass rm {name}` to undo it"
        )),
        _ => error,
    }
}

/// Whether a create of that name has begun and not ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begun {
    Now,
    Before,
}

/// What an interrupted create was given, where it is not given again.
async fn add_recorded(
    world: &World,
    name: &MachineName,
    driver: &str,
    given: &mut OptionValues,
) -> Result<Begun> {
    let intent = world.store.intent(name).await?;
    if intent.is_none_or(|intent| intent.kind != IntentKind::Create) {
        return Ok(Begun::Now);
    }
    let Some(machine) = world.store.machine(name).await? else {
        return Ok(Begun::Now);
    };
    if machine.driver != driver {
        return Err(CommandError::input(format!(
            "machine `{name}` was begun with driver `{}`, not `{driver}`",
            machine.driver
        ))
        .hint(format!(
            "give `--driver {}` to finish it, or undo it with `windlass rm {name}`",
            machine.driver
        )));
    }
    for (option, value) in machine.options {
        given.entry(option).or_insert(value);
    }
    Ok(Begun::Before)
}

/// A create that failed for its key goes on with the key that is given now.
async fn take_key(world: &World, name: &MachineName, provider: &dyn Provider) -> Result<()> {
    let key = provider.login_key();
    if !matches!(key, LoginKey::File(_)) {
        return Ok(());
    }
    let prepared = world.lifecycle.access.prepare(name, &key).await;
    let keys = prepared.map_err(|error| {
        CommandError::failed(format!("machine `{name}`: cannot use its key")).because(&error)
    })?;
    let take = |machine: &mut Machine| machine.key_file.clone_from(&keys.key_file);
    world.lifecycle.amend(name, take).await?;
    Ok(())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}
