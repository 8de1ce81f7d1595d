//! Entry point of the command line.

mod access;
mod cli;
mod credentials;
mod deploy_report;
mod environment;
mod error;
mod fleet;
mod forward;
mod hosts;
mod interrupt;
mod progress;
mod projects;
mod registry;
mod sessions;
mod survey;
mod trace;
mod world;

fn main() -> std::process::ExitCode {
    cli::main()
}
