//! `windlass up`.

use std::time::{Duration, Instant};

use windlass_deploy::{Outcome, Plan, Pull, UpOptions};

use super::addresses;
use super::file::{FileArgs, Loaded};
use super::output::{Format, json};
use crate::credentials;
use crate::error::Result;
use crate::projects;
use crate::world::World;

/// Brings a project to what its file declares: machines, images, containers, ingress
///
/// Given again with no change it does nothing; after a failure or Ctrl-C it goes on where it stopped.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// What makes the machines of fleets that do not say so
    #[arg(long, env = "WINDLASS_DRIVER", value_name = "DRIVER")]
    driver: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Pull images that are there too, so that a moved tag is noticed
    #[arg(long)]
    pull: bool,
    /// `table` or `json`
    #[arg(long, default_value = "table")]
    format: Format,
    /// How many seconds another windlass may hold the project
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lock_wait: u64,
    /// Accepted for Compose's sake: it always detaches
    #[arg(short, long, hide = true)]
    detach: bool,
}

pub async fn run(args: Args, world: &World) -> Result<()> {
    let began = Instant::now();
    let loaded = args.file.load(world, args.driver.as_deref()).await?;
    let mut options = options(world, &loaded)?;
    options.lock_wait = Duration::from_secs(args.lock_wait);
    if args.pull {
        options.pull = Pull::Always;
    }
    let deployer = world.deployer();
    if args.dry_run {
        let plan = deployer.plan_up(&loaded.project, &options).await?;
        return print_plan(&plan, args.format, world);
    }
    projects::note(world, &loaded.project.name)?;
    let outcome = deployer.up(&loaded.project, &options).await?;
    let machines = world.store.machines().await?;
    let replicas = deployer.ps(&loaded.project.name).await?.replicas;
    let done = Done {
        project: &loaded.project.name,
        addresses: addresses::of(&loaded.project, &machines, &replicas),
        outcome,
        took: began.elapsed(),
    };
    done.tell(args.format, world)
}

/// What is told in the end.
struct Done<'a> {
    project: &'a str,
    addresses: Vec<(String, String)>,
    outcome: Outcome,
    took: Duration,
}

/// The options of every command that applies a project.
pub fn options(world: &World, loaded: &Loaded) -> Result<UpOptions> {
    let mut options = UpOptions::new(&loaded.folder);
    options.credentials = credentials::for_project(&loaded.project, &world.progress)?;
    Ok(options)
}

/// What `--dry-run` prints, here and in `down`.
pub fn print_plan(plan: &Plan, format: Format, world: &World) -> Result<()> {
    let text = match format {
        Format::Json => json(plan)?,
        Format::Table if plan.is_empty() => format!("nothing to do\n{plan}"),
        Format::Table => plan.to_string(),
    };
    world.print(&text);
    Ok(())
}

impl Done<'_> {
    fn tell(&self, format: Format, world: &World) -> Result<()> {
        let addresses = self.addresses.iter();
        match format {
            Format::Json => {
                let addresses: Vec<_> = addresses
                    .map(|(service, address)| serde_json::json!({"service": service, "address": address}))
                    .collect();
                world.print(&json(&serde_json::json!({
                    "project": self.project,
                    "steps": self.outcome.steps,
                    "notes": self.outcome.notes,
                    "release": self.outcome.release,
                    "addresses": addresses,
                }))?);
            }
            Format::Table => {
                let lines = addresses.map(|(service, address)| format!("{service}  {address}\n"));
                world.print(&lines.collect::<String>());
            }
        }
        let steps = match self.outcome.steps {
            0 => "nothing to do".to_owned(),
            1 => "1 step".to_owned(),
            steps => format!("{steps} steps"),
        };
        world.progress.line(&format!(
            "project `{}` is as declared: {steps} in {:.1} s; `windlass ps` shows it",
            self.project,
            self.took.as_secs_f64()
        ));
        Ok(())
    }
}
