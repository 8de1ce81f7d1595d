//! The developers' commands: `cargo xtask <command>`.

mod bench;
mod binaries;
mod budget;
mod ci;
mod conformance;
mod daemon;
mod demo;
mod dependencies;
mod fixtures;
mod fuzz;
mod interrupt;
mod packages;
mod run;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developers' commands")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, clippy, tests, layer guards and budgets; installs what it needs.
    Ci(ci::Options),
    /// The binaries for hosts, static, compressed; prints their folder last.
    Binaries(binaries::Options),
    /// The engine alone, static; prints the program's path last.
    Engine(binaries::EngineOptions),
    /// What the tests, the demo and the bench run against, made ahead of time.
    Fixtures(fixtures::Options),
    /// A fleet on this computer, from nothing: grown by load, shrunk again, and cleaned up.
    Demo(demo::Options),
    /// Licences, sources and bans of the dependencies alone.
    Deny,
    /// The figures, beside those of Debian's docker.io.
    Bench(bench::Options),
    /// What Docker's clients see of the engine, beside what they see of Debian's docker.io.
    Conformance(conformance::Options),
    /// The engine's readers of what strangers write, each under libFuzzer for a while.
    Fuzz(fuzz::Options),
    /// The size budgets alone.
    Budget,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ci(options) => ci::run_all(&options),
        Command::Binaries(options) => {
            println!("{}", binaries::build(&options)?.display());
            Ok(())
        }
        Command::Engine(options) => {
            println!("{}", binaries::engine(&options)?.display());
            Ok(())
        }
        Command::Fixtures(options) => {
            packages::install(packages::TESTS)?;
            interrupt::catch()?;
            fixtures::make(&options)
        }
        Command::Demo(options) => demo::demo(&options),
        Command::Deny => dependencies::check(),
        Command::Bench(options) => {
            interrupt::catch()?;
            bench::bench(&options)
        }
        Command::Conformance(options) => {
            interrupt::catch()?;
            conformance::conformance(&options)
        }
        Command::Fuzz(options) => fuzz::fuzz(&options),
        Command::Budget => budget::check(),
    }
}
