//! `windlass autoscale`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use windlass_autoscale::{
    Autoscaler, Clock as _, Config, Decision, EngineMetrics, Failure, FileLeader, Metrics as _,
    Reporter, SystemClock, Target as _,
};
use windlass_compose::model::Scaling;

use super::file::{FileArgs, Loaded};
use super::output::Format;
use super::up;
use crate::error::{CommandError, Kind, Result};
use crate::fleet::{FleetMembers, FleetTarget};
use crate::interrupt;
use crate::progress::Progress;
use crate::projects;
use crate::world::World;

/// Between two looks, where the file does not say.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long one engine may take to tell its load.
const PATIENCE: Duration = Duration::from_secs(5);

/// Grows and shrinks the fleets of a project with their load, until it is interrupted
///
/// Brings the project up first, as `up` does. Prints every decision with its reason. Stopped and started again, it goes on.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// What makes the machines of fleets that do not say so
    #[arg(long, env = "WINDLASS_DRIVER", value_name = "DRIVER")]
    driver: Option<String>,
    /// Only this fleet
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Measure, decide and apply once, and end
    #[arg(long)]
    once: bool,
    /// `table`: a line for each decision; `json`: the same as one object a line
    #[arg(long, default_value = "table")]
    format: Format,
}

pub async fn run(args: Args, world: &World) -> Result<ExitCode> {
    let loaded = args.file.load(world, args.driver.as_deref()).await?;
    let loaded = Arc::new(loaded);
    let fleets = scaling_fleets(&loaded, args.fleet.as_deref())?;
    let _leaders = lead(world, &loaded.project.name, &fleets)?;
    projects::note(world, &loaded.project.name)?;
    // Everybody stops at the first signal.
    let (stop, stopped) = watch::channel(());
    let each = fleets.iter().map(|(name, config, interval)| {
        let job = Job {
            world,
            loaded: &loaded,
            fleet: name,
            config: config.clone(),
            interval: *interval,
            format: args.format,
        };
        let stopped = stopped.clone();
        async move {
            if args.once {
                job.once().await
            } else {
                job.run(stopped).await
            }
        }
    });
    let all = join_all(each);
    tokio::pin!(all);
    let mut requests = interrupt::Requests::listen();
    tokio::select! {
        done = &mut all => return finish(done),
        _ = requests.next() => drop(stop),
    }
    if args.once {
        world
            .progress
            .line("ends once that is done; a second Ctrl-C drops it");
    }
    let done = tokio::select! {
        done = &mut all => done,
        code = requests.next() => return Ok(dropped(world, code)),
    };
    world.progress.abandon();
    world.progress.line("autoscale has ended; the machines stay as they are, and `windlass autoscale` goes on from here");
    finish(done)
}

/// After a second signal.
fn dropped(world: &World, code: u8) -> ExitCode {
    let steps = world.progress.abandon();
    let middle = match steps.is_empty() {
        true => String::new(),
        false => format!(" in the middle of {}", steps.join(", ")),
    };
    world.progress.line(&format!(
        "interrupted{middle}; what was begun is recorded, and the same command goes on with it"
    ));
    ExitCode::from(code)
}

fn finish(done: Vec<Result<()>>) -> Result<ExitCode> {
    match CommandError::several(done.into_iter().filter_map(Result::err)) {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

type ScalingFleet = (String, Config, Duration);

fn scaling_fleets(loaded: &Loaded, only: Option<&str>) -> Result<Vec<ScalingFleet>> {
    let fleets = &loaded.project.fleets;
    if let Some(name) = only
        && !fleets.contains_key(name)
    {
        let known: Vec<_> = fleets.keys().map(String::as_str).collect();
        return Err(CommandError::new(
            Kind::NotFound,
            format!("project `{}` has no fleet `{name}`", loaded.project.name),
        )
        .hint(format!("its fleets are: {}", known.join(", "))));
    }
    let mut found = Vec::new();
    for (name, fleet) in fleets {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        if let Some(scaling) = &fleet.scaling {
            let config = config(fleet.min, fleet.max, scaling);
            let config = config.map_err(|error| {
                CommandError::input(format!("fleet `{name}` cannot be scaled")).because(&error)
            })?;
            found.push((name.clone(), config, scaling.interval.unwrap_or(INTERVAL)));
        }
    }
    if found.is_empty() {
        return Err(CommandError::input(format!(
            "no fleet of project `{}` scales by load",
            loaded.project.name
        ))
        .hint("write `min`, `max` and `target: {cpu: 60}` under a fleet of `x-fleets`"));
    }
    Ok(found)
}

fn config(
    min: u32,
    max: u32,
    scaling: &Scaling,
) -> Result<Config, windlass_autoscale::ConfigError> {
    let mut config = Config::new(min, max, scaling.target_cpu_percent)?;
    let given = [
        (&mut config.warm_up, scaling.warm_up),
        (&mut config.scale_out_cooldown, scaling.scale_out_cooldown),
        (&mut config.scale_in_cooldown, scaling.scale_in_cooldown),
        (
            &mut config.stabilisation_window,
            scaling.stabilisation_window,
        ),
    ];
    for (setting, given) in given {
        *setting = given.unwrap_or(*setting);
    }
    let interval = scaling.interval.unwrap_or(INTERVAL);
    // A sample is as old as the interval when it is used at the latest.
    config.max_metrics_age = config.max_metrics_age.max(interval * 3);
    config.validate()?;
    Ok(config)
}

/// One lock a fleet, so that nobody else scales it meanwhile.
fn lead(world: &World, project: &str, fleets: &[ScalingFleet]) -> Result<Vec<FileLeader>> {
    let lock = |name: &str| {
        let file = format!("autoscale.{project}.{name}");
        FileLeader::acquire(&world.home.join("locks").join(file))
    };
    let mut leaders = Vec::new();
    for (name, ..) in fleets {
        let leader = lock(name)
            .map_err(|error| CommandError::from(error).within(&format!("fleet `{name}`")));
        leaders.push(leader?);
    }
    Ok(leaders)
}

/// The scaling of one fleet.
struct Job<'a> {
    world: &'a World,
    loaded: &'a Arc<Loaded>,
    fleet: &'a str,
    config: Config,
    interval: Duration,
    format: Format,
}

impl Job<'_> {
    fn target(&self) -> Result<FleetTarget> {
        Ok(FleetTarget {
            deployer: self.world.deployer(),
            loaded: self.loaded.clone(),
            fleet: self.fleet.to_owned(),
            options: up::options(self.world, self.loaded)?,
        })
    }

    fn metrics(&self) -> EngineMetrics<FleetMembers> {
        let project = self.loaded.project.name.clone();
        let members = FleetMembers::new(self.world.clone(), project, self.fleet.to_owned());
        EngineMetrics::new(members, PATIENCE)
    }

    fn printer(&self) -> Printer<'_> {
        Printer {
            fleet: self.fleet,
            format: self.format,
            progress: &self.world.progress,
        }
    }

    async fn run(self, mut stopped: watch::Receiver<()>) -> Result<()> {
        let (target, metrics, printer) = (self.target()?, self.metrics(), self.printer());
        let clock = SystemClock::default();
        let mut scaler = Autoscaler::new(self.config.clone(), &metrics, &target, &printer, &clock)?;
        // The channel carries nothing; it closes.
        let stop = async move { while stopped.changed().await.is_ok() {} };
        scaler.run(self.interval, stop).await;
        Ok(())
    }

    /// Load is a difference: the first look only takes the counters, once the machines are there.
    async fn once(self) -> Result<()> {
        let (target, metrics, printer) = (self.target()?, self.metrics(), self.printer());
        let clock = SystemClock::default();
        target.apply().await.map_err(CommandError::from_box)?;
        let first = metrics.sample(clock.now()).await;
        first.map_err(CommandError::from_box)?;
        tokio::time::sleep(self.interval).await;
        let mut scaler = Autoscaler::new(self.config.clone(), &metrics, &target, &printer, &clock)?;
        scaler.tick().await?;
        Ok(())
    }
}

/// Decisions on standard output, troubles on standard error.
struct Printer<'a> {
    fleet: &'a str,
    format: Format,
    progress: &'a Progress,
}

impl Printer<'_> {
    fn print(&self, event: &str, text: &str, decision: &Decision) {
        let now = OffsetDateTime::now_utc();
        let line = match self.format {
            Format::Json => serde_json::json!({
                "time": now.format(&Rfc3339).unwrap_or_default(),
                "fleet": self.fleet,
                "event": event,
                "current": decision.current,
                "desired": decision.desired,
                "recommended": decision.recommended,
                "mean_cpu_percent": decision.mean_cpu_percent,
                "text": text,
            })
            .to_string(),
            Format::Table => {
                let (h, m, s) = now.to_hms();
                format!("{h:02}:{m:02}:{s:02} {}: {text}", self.fleet)
            }
        };
        self.progress.print(&format!("{line}\n"));
    }
}

impl Reporter for Printer<'_> {
    fn decided(&self, decision: &Decision) {
        self.print("decided", &decision.to_string(), decision);
    }

    fn applied(&self, decision: &Decision, took: Duration) {
        let text = format!(
            "as declared with {} machines, after {:.1} s",
            decision.desired,
            took.as_secs_f64()
        );
        self.print("applied", &text, decision);
    }

    fn failed(&self, failure: &Failure) {
        let error = CommandError::from_ref(failure);
        self.progress.line(&format!(
            "{}\nfleet `{}` is looked at again in a moment",
            error, self.fleet
        ));
    }
}
