//! The commands: what clap is told, and one dispatch.
//!
//! Deliberately absent: what the commands do, a file each; how the crates are wired together, see `world.rs`.

mod addresses;
mod autoscale;
mod completion;
mod create;
mod down;
mod driver_flags;
mod env;
mod exit_codes;
mod file;
mod forward;
mod inspect;
mod ip;
mod logs;
mod ls;
mod output;
mod power;
mod ps;
mod rm;
mod ssh;
mod status;
mod up;
mod upgrade;
mod version;

pub use file::Loaded;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{
    Arg, ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
};
use windlass_machine::PowerAction;

use crate::error::Result;
use crate::interrupt::{self, Interrupted};
use crate::progress::Progress;
use crate::trace;
use crate::world::World;

/// Provisions hosts, installs its own container engine on them over SSH, deploys Compose files and scales fleets by load
#[derive(Parser, Debug)]
#[command(
    name = "windlass",
    version,
    max_term_width = 100,
    propagate_version = false,
    after_help = "State: $WINDLASS_HOME, else $XDG_DATA_HOME/windlass, else ~/.local/share/windlass.\nExit codes: `windlass help exit-codes`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Create(create::Args),
    Ls(ls::Args),
    Status(status::Args),
    Ip(ip::Args),
    Inspect(inspect::Args),
    Ssh(ssh::Args),
    /// Starts machines, and waits until they answer
    Start(power::Args),
    /// Shuts machines down in order
    Stop(power::Args),
    /// Shuts machines down and starts them
    Restart(power::Args),
    /// Cuts the power of machines
    Kill(power::Args),
    Upgrade(upgrade::Args),
    Rm(rm::Args),
    Env(env::Args),
    Up(up::Args),
    Down(down::Args),
    Ps(ps::Args),
    Logs(logs::Args),
    Autoscale(autoscale::Args),
    Version(version::Args),
    Completion(completion::Args),
    /// What the exit codes mean
    #[command(name = "exit-codes", long_about = exit_codes::table(), hide = true)]
    ExitCodes,
    #[command(hide = true)]
    Forward(forward::Args),
}

/// Everything that clap is told. `-v` is for the trace everywhere but in `down`, where it is Compose's; `-f` names the file
/// everywhere but in `logs`, where it follows.
pub fn command() -> clap::Command {
    let verbose = || {
        Arg::new("verbose")
            .long("verbose")
            .action(ArgAction::Count)
            .help("Tell more on standard error; twice for the trace of the libraries")
    };
    Cli::command()
        .arg(verbose().short('v'))
        .mut_subcommands(|command| match command.get_name() {
            "down" => command.arg(verbose()),
            _ => command.arg(verbose().short('v')),
        })
        .mut_subcommand("logs", |logs| logs.mut_arg("files", |arg| arg.short(None)))
}

fn verbosity(matches: &ArgMatches) -> u8 {
    let inner = matches
        .subcommand()
        .map_or(0, |(_, m)| m.get_count("verbose"));
    matches.get_count("verbose") + inner
}

/// Parses, does it, prints what went wrong, and gives the exit code.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let progress = Arc::new(Progress::new());
    trace::init(verbosity(&matches), &progress);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&progress, &error.into()),
    };
    let done = runtime.block_on(run(cli.command, &progress));
    // A read of standard input that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => fail(&progress, &error),
    }
}

fn fail(progress: &Progress, error: &crate::error::CommandError) -> ExitCode {
    progress.abandon();
    progress.line(&error.to_string());
    ExitCode::from(error.code())
}

async fn run(command: Command, progress: &Arc<Progress>) -> Result<ExitCode> {
    match command {
        Command::Version(args) => version::run(&args, progress)?,
        Command::Completion(args) => completion::run(&args, progress)?,
        Command::ExitCodes => {
            progress.print(&exit_codes::table());
        }
        // These end by themselves when they are interrupted, or hand the signal on.
        Command::Ssh(args) => return ssh::run(args, &World::open(progress)?).await,
        Command::Autoscale(args) => return autoscale::run(args, &World::open(progress)?).await,
        Command::Forward(args) => forward::run(args, &World::open(progress)?).await?,
        other => {
            let world = World::open(progress)?;
            match interrupt::unless(dispatch(other, &world)).await {
                Ok(done) => done?,
                Err(Interrupted { code }) => {
                    interrupt::explain(&world).await;
                    return Ok(ExitCode::from(code));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(command: Command, world: &World) -> Result<()> {
    match command {
        Command::Create(args) => create::run(args, world).await,
        Command::Ls(args) => ls::run(args, world).await,
        Command::Status(args) => status::run(args, world).await,
        Command::Ip(args) => ip::run(args, world).await,
        Command::Inspect(args) => inspect::run(args, world).await,
        Command::Start(args) => power::run(args, PowerAction::Start, world).await,
        Command::Stop(args) => power::run(args, PowerAction::Stop, world).await,
        Command::Restart(args) => power::run(args, PowerAction::Restart, world).await,
        Command::Kill(args) => power::run(args, PowerAction::Kill, world).await,
        Command::Upgrade(args) => upgrade::run(args, world).await,
        Command::Rm(args) => rm::run(args, world).await,
        Command::Env(args) => env::run(args, world).await,
        Command::Up(args) => up::run(args, world).await,
        Command::Down(args) => down::run(args, world).await,
        Command::Ps(args) => ps::run(args, world).await,
        Command::Logs(args) => logs::run(args, world).await,
        // Handled before a world is opened.
        Command::Ssh(_)
        | Command::Autoscale(_)
        | Command::Forward(_)
        | Command::Version(_)
        | Command::Completion(_)
        | Command::ExitCodes => Ok(()),
    }
}
