//! `windlass upgrade`: several machines at once.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use windlass_machine::{Engine, MachineName, Upgraded};

use super::output::{Format, json, table};
use crate::error::Result;
use crate::world::World;

/// Puts the engine of this windlass onto machines that have another one; their containers go on
///
/// A new engine that does not answer is replaced by the former one.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Every machine
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    format: Format,
    /// Machines; none: the active one
    names: Vec<MachineName>,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let names = if args.all {
        let machines = world.store.machines().await?;
        machines.into_iter().map(|machine| machine.name).collect()
    } else {
        world.named_or_active(args.names).await?
    };
    // All of them are looked up first: a mistyped name upgrades nothing.
    for name in &names {
        world.machine(name).await?;
    }
    let done = Mutex::new(Vec::new());
    let failed = world
        .each(&names, async |name| {
            let provider = world.provider_of(&world.machine(name).await?)?;
            let upgraded = world.lifecycle.upgrade(provider.as_ref(), name).await?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((name.clone(), upgraded));
            Ok(())
        })
        .await;
    // What was done is told, whatever failed.
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by(|one, other| one.0.cmp(&other.0));
    let text = match args.format {
        Format::Json => json(&done.iter().map(Row::new).collect::<Vec<_>>())?,
        Format::Table if done.is_empty() => String::new(),
        Format::Table => {
            let rows: Vec<_> = done
                .iter()
                .map(|(name, upgraded)| [name.to_string(), words(upgraded)])
                .collect();
            table(["NAME", "ENGINE"], &rows)
        }
    };
    world.print(&text);
    failed
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a MachineName,
    changed: bool,
    before: Option<&'a Engine>,
    after: &'a Engine,
}

impl<'a> Row<'a> {
    fn new((name, upgraded): &'a (MachineName, Upgraded)) -> Self {
        Self {
            name,
            changed: upgraded.is_another(),
            before: upgraded.before.as_ref(),
            after: &upgraded.after,
        }
    }
}

fn words(upgraded: &Upgraded) -> String {
    if !upgraded.is_another() {
        return "unchanged".to_owned();
    }
    let before = upgraded.before.as_ref().map_or("none".to_owned(), short);
    format!("{before} → {}", short(&upgraded.after))
}

/// Version and the digest's beginning: two builds may have the same version.
fn short(engine: &Engine) -> String {
    match engine.digest.as_deref().and_then(|digest| digest.get(..12)) {
        Some(digest) => format!("{} ({digest})", engine.version),
        None => engine.version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_machine::EngineKind;

    fn engine(version: &str, digest: &str) -> Engine {
        Engine {
            kind: EngineKind::Bundled,
            version: version.to_owned(),
            digest: Some(digest.to_owned()),
            socket: "/run/windlass/engine.sock".to_owned(),
        }
    }

    #[test]
    fn two_builds_of_a_version_are_told_apart() {
        let mut upgraded = Upgraded {
            before: Some(engine("0.1.0", "aaaaaaaaaaaaaaaa")),
            after: engine("0.1.0", "bbbbbbbbbbbbbbbb"),
        };
        assert_eq!(
            words(&upgraded),
            "0.1.0 (aaaaaaaaaaaa) → 0.1.0 (bbbbbbbbbbbb)"
        );
        upgraded.before = Some(upgraded.after.clone());
        assert_eq!(words(&upgraded), "unchanged");
        upgraded.before = None;
        assert_eq!(words(&upgraded), "none → 0.1.0 (bbbbbbbbbbbb)");
    }
}
