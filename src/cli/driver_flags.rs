//! The flags of every driver, `--<driver>-<option>`, made from the drivers' own declarations.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use windlass_provider::{Driver, OptionSpec, OptionValues, fill_from_environment};

use crate::environment;
use crate::error::{CommandError, Result};
use crate::registry::DRIVERS;

/// What was given, by driver.
#[derive(Clone, Debug, Default)]
pub struct DriverFlags(BTreeMap<&'static str, OptionValues>);

impl DriverFlags {
    /// The values for `driver`: flags, else the environment. A flag of another driver is an error.
    pub fn into_values(mut self, driver: &Driver) -> Result<OptionValues> {
        let mut values = self.0.remove(driver.name).unwrap_or_default();
        if let Some((other, name)) = self
            .0
            .iter()
            .find_map(|(other, values)| Some((other, values.keys().next()?)))
        {
            return Err(CommandError::input(format!(
                "--{other}-{name} is a flag of driver `{other}`, and the driver is `{}`",
                driver.name
            ))
            .hint(format!("give `--driver {other}`, or leave the flag out")));
        }
        fill_from_environment(driver.options, &mut values, environment::variable);
        Ok(values)
    }
}

fn id(driver: &Driver, option: &OptionSpec) -> String {
    format!("{}-{}", driver.name, option.name)
}

fn help(option: &OptionSpec) -> String {
    let mut help = option.help.to_owned();
    if let Some(default) = option.default {
        help.push_str(&format!(" [default: {default}]"));
    }
    if let Some(variable) = option.env {
        help.push_str(&format!(" [env: {variable}]"));
    }
    if option.required {
        help.push_str(" (needed)");
    }
    help
}

impl clap::Args for DriverFlags {
    fn augment_args(command: Command) -> Command {
        DRIVERS.iter().fold(command, |command, driver| {
            let heading = format!("Driver {}: {}", driver.name, driver.summary);
            driver.options.iter().fold(command, |command, option| {
                let name = if option.file { "FILE" } else { "VALUE" };
                let flag = Arg::new(id(driver, option))
                    .long(id(driver, option))
                    .value_name(name)
                    .help(help(option));
                command.arg(flag.help_heading(heading.clone()))
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for DriverFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for driver in DRIVERS {
            for option in driver.options {
                let id = id(driver, option);
                let given = matches.value_source(&id) == Some(ValueSource::CommandLine);
                if let Some(value) = matches.get_one::<String>(&id).filter(|_| given) {
                    let values = self.0.entry(driver.name).or_default();
                    values.insert(option.name.to_owned(), value.clone());
                }
            }
        }
        Ok(())
    }
}
