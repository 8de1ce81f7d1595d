//! `windlass ls`.

use std::str::FromStr;

use super::output::{Format, json, table};
use crate::error::Result;
use crate::survey::{self, Seen};
use crate::world::World;

/// Lists the machines, unfinished and lost ones too
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// Only machines with KEY=VALUE: name, driver, state, fleet, project, label (as label=KEY[=VALUE])
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Clone, Debug)]
enum Filter {
    Name(String),
    Driver(String),
    State(String),
    Fleet(String),
    Project(String),
    Label(String, Option<String>),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("a filter is KEY=VALUE")?;
        let value = value.to_owned();
        Ok(match key {
            "name" => Self::Name(value),
            "driver" => Self::Driver(value),
            "state" => Self::State(value),
            "fleet" => Self::Fleet(value),
            "project" => Self::Project(value),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value, None),
            },
            _ => {
                return Err("the keys are name, driver, state, fleet, project, label".to_owned());
            }
        })
    }
}

impl Filter {
    fn passes(&self, seen: &Seen) -> bool {
        let machine = &seen.machine;
        match self {
            Self::Name(part) => machine.name.as_str().contains(part.as_str()),
            Self::Driver(driver) => machine.driver == *driver,
            Self::State(state) => seen.state.eq_ignore_ascii_case(state),
            Self::Fleet(fleet) => machine.slot.as_ref().is_some_and(|s| s.fleet == *fleet),
            Self::Project(project) => machine.project.as_ref() == Some(project),
            Self::Label(key, value) => machine
                .labels
                .get(key)
                .is_some_and(|found| value.as_ref().is_none_or(|value| found == value)),
        }
    }
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    if args.quiet && !args.filters.iter().any(|f| matches!(f, Filter::State(_))) {
        // Names need no look at the providers.
        let machines = world.store.machines().await?;
        let seen = machines.into_iter().map(Seen::unseen).collect();
        return print(&args, seen, world);
    }
    let seen = survey::all(world).await?;
    print(&args, seen, world)?;
    for orphan in survey::orphans(world).await {
        world.progress.line(&orphan);
    }
    Ok(())
}

fn print(args: &Args, mut seen: Vec<Seen>, world: &World) -> Result<()> {
    seen.retain(|seen| args.filters.iter().all(|filter| filter.passes(seen)));
    let text = match args.format {
        _ if args.quiet => seen
            .iter()
            .map(|s| format!("{}\n", s.machine.name))
            .collect(),
        Format::Json => json(&seen.iter().map(Seen::describe).collect::<Vec<_>>())?,
        Format::Table => {
            let rows: Vec<_> = seen.iter().map(row).collect();
            table(
                [
                    "NAME", "DRIVER", "STATE", "ADDRESS", "ENGINE", "FLEET", "NOTE",
                ],
                &rows,
            )
        }
    };
    world.print(&text);
    Ok(())
}

fn row(seen: &Seen) -> [String; 7] {
    let machine = &seen.machine;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let fleet = match (&machine.project, &machine.slot) {
        (Some(project), Some(slot)) => Some(format!("{project}/{}", slot.fleet)),
        (None, Some(slot)) => Some(slot.fleet.clone()),
        (project, None) => project.clone(),
    };
    [
        machine.name.to_string(),
        machine.driver.clone(),
        seen.state.clone(),
        or_dash(machine.address.clone()),
        or_dash(machine.engine.as_ref().map(|engine| engine.version.clone())),
        or_dash(fleet),
        or_dash(seen.note.clone()),
    ]
}
