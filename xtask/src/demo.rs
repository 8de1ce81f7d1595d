//! `cargo demo`: a fleet of machines on this computer, from nothing to shrunk again, with the seconds of each step.
//!
//! Deliberately absent: anything that a user could not do with the command line and an HTTP client.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use windlass_fixtures::Windlass;
use windlass_load::{Pressure, Report, Steady, Target, closed_loop};

use crate::binaries::{self, target_folder};
use crate::run::run;
use crate::{fixtures, interrupt, packages};

const FILE: &str = "examples/fleet/windlass.yaml";
/// Each request of the load keeps a processor busy for so long.
const WORK: &str = "work?ms=25";
const LOAD_CONNECTIONS: usize = 8;
const GROWS_WITHIN: Duration = Duration::from_secs(120);
const SHRINKS_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(250);

/// How the demo runs.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Leave the fleet running at the end
    #[arg(long)]
    keep: bool,
    /// The cargo profile of the binaries for hosts: `engine-dev` is built in a fraction of the time of `engine`
    #[arg(long, default_value = "engine-dev")]
    profile: String,
}

/// Runs it, and cleans up whatever happens.
pub fn demo(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "machines on this computer are containers with their own networks, which needs root: `sudo -E cargo demo`"
    );
    interrupt::catch()?;
    packages::install(packages::DEMO)?;
    let mut steps = Steps::new();
    let mut windlass = build(options, &mut steps)?;
    let shown = show(&windlass, &mut steps);
    if options.keep && shown.is_ok() {
        windlass.keep_home();
        println!("\nThe fleet is left running. To look at it, and to end it:");
        println!("  export WINDLASS_HOME={}", windlass.home().display());
        println!("  {} ls", binary()?.display());
        println!("  {} down -v -f {FILE}", binary()?.display());
        return Ok(());
    }
    let cleaned = steps.time("clean up", || clean_up(&windlass));
    if cleaned.is_err() {
        windlass.keep_home();
        println!(
            "not everything was removed; its state is in {}",
            windlass.home().display()
        );
    }
    shown?;
    cleaned?;
    steps.end();
    Ok(())
}

/// Names each step when it begins and gives its seconds when it ends.
struct Steps {
    begun: Instant,
    taken: Vec<(String, Duration)>,
}

impl Steps {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            taken: Vec::new(),
        }
    }

    fn time<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let begun = Instant::now();
        let done = work().with_context(|| format!("the demo failed at: {name}"));
        println!("== {name}: {:.1} s", begun.elapsed().as_secs_f64());
        self.taken.push((name.to_owned(), begun.elapsed()));
        done
    }

    fn end(&self) {
        println!();
        for (name, took) in &self.taken {
            println!("{:>7.1} s  {name}", took.as_secs_f64());
        }
        println!("{:>7.1} s  in all", self.begun.elapsed().as_secs_f64());
    }
}

fn build(options: &Options, steps: &mut Steps) -> Result<Windlass> {
    steps.time("build the command line", || {
        run(&["cargo", "build", "--quiet", "--package", "windlass"])
    })?;
    let binaries = steps.time("build the binaries for hosts", || {
        binaries::build(&binaries::Options {
            arch: vec!["x86_64".to_owned()],
            profile: options.profile.clone(),
            only: Vec::new(),
        })
    })?;
    steps.time("build examples/hello", fixtures::hello)?;
    Windlass::new(binary()?, &binaries)
}

fn binary() -> Result<PathBuf> {
    Ok(target_folder()?.join("debug/windlass"))
}

fn show(windlass: &Windlass, steps: &mut Steps) -> Result<()> {
    steps.time("up: two machines, engine, image, replicas, ingress", || {
        watch(windlass.command(&["up", "-f", FILE, "--driver", "local"]))
    })?;
    let address = ingress(windlass)?;
    let url = format!("http://{address}:8080/");
    let answer = steps.time("a request to the ingress", || answer(&url))?;
    println!("{url} answers: {answer}\n");
    // Shown while it lives.
    watch(windlass.command(&["ls"]))?;
    watch(windlass.command(&["ps", "-f", FILE]))?;
    let runtime = Runtime::new()?;
    let steady = runtime.block_on(async { steady(&url) })?;
    let autoscale = Background::start(&mut windlass.command(&["autoscale", "-f", FILE]))?;
    let scaled = scale(windlass, &runtime, &url, steps);
    autoscale.end()?;
    let seen = runtime.block_on(steady.stop());
    scaled?;
    println!("\nThe client that asked all along, {url}:\n{seen}");
    ensure!(
        seen.failures == 0,
        "{} of its requests failed",
        seen.failures
    );
    Ok(())
}

fn scale(windlass: &Windlass, runtime: &Runtime, url: &str, steps: &mut Steps) -> Result<()> {
    let load = Load::start(runtime, &format!("{url}{WORK}"))?;
    let grown = steps.time("under load: until three machines serve", || {
        wait_for_machines(windlass, url, 3, GROWS_WITHIN)
    });
    let report = load.stop(runtime)?;
    grown?;
    println!("\nThe load:\n{report}");
    steps.time("without load: until there are two again", || {
        wait_for_machines(windlass, url, 2, SHRINKS_WITHIN)
    })
}

/// Requests that keep processors busy, until it is stopped.
struct Load {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Report>,
}

impl Load {
    fn start(runtime: &Runtime, url: &str) -> Result<Self> {
        let target = Target::new(url, None)?;
        let (stop, stopped) = oneshot::channel();
        let task = runtime.spawn(async move {
            let ended = async {
                // The sender going away means the same.
                let _ = stopped.await;
            };
            closed_loop(&target, Pressure::full(LOAD_CONNECTIONS), ended).await
        });
        Ok(Self { stop, task })
    }

    fn stop(self, runtime: &Runtime) -> Result<Report> {
        // A task that has ended by itself says so in the next line.
        let _ = self.stop.send(());
        Ok(runtime.block_on(self.task)?)
    }
}

fn steady(url: &str) -> Result<Steady> {
    let target = Target::new(url, None)?;
    Ok(Steady::start(
        target,
        Duration::from_millis(100),
        Duration::from_secs(30),
    ))
}

fn answer(url: &str) -> Result<String> {
    let text = crate::run::output(&["curl", "-sS", "--fail", "--max-time", "10", url])?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The address of the fleet's first machine, which scaling in never removes.
fn ingress(windlass: &Windlass) -> Result<String> {
    let machines = machines(windlass)?;
    machines
        .iter()
        .find(|machine| machine["ordinal"] == 1)
        .and_then(|machine| machine["address"].as_str())
        .map(str::to_owned)
        .context("`windlass ls` shows no first machine of the fleet")
}

fn machines(windlass: &Windlass) -> Result<Vec<serde_json::Value>> {
    let listed = windlass.json(&["ls", "--filter", "fleet=web", "--format", "json"])?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

/// As many machines, and as many different replicas that answer through the ingress.
fn wait_for_machines(windlass: &Windlass, url: &str, count: usize, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        let there = machines(windlass)?.len();
        let mut replicas = BTreeSet::new();
        for _ in 0..2 * count {
            replicas.insert(answer(url)?);
        }
        if there == count && replicas.len() == count {
            return Ok(());
        }
        if begun.elapsed() > limit {
            bail!(
                "after {:.0} s there are {there} machines, and {} replicas answer, not {count}",
                limit.as_secs_f64(),
                replicas.len()
            );
        }
        std::thread::sleep(POLL);
    }
}

/// Runs a command with its output shown. At Ctrl-C it gets one too, and has the time to end by itself.
fn watch(mut command: Command) -> Result<()> {
    let mut child = Background::start(&mut command)?;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt::check() {
            child.end()?;
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    interrupt::check()?;
    succeeded(status)
}

fn succeeded(status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "the command failed ({status})");
    Ok(())
}

fn clean_up(windlass: &Windlass) -> Result<()> {
    let file = Path::new(FILE);
    let mut down = windlass.command(&["down", "-v", "-f", &file.to_string_lossy()]);
    let mut child = Background::start(&mut down)?;
    // A second Ctrl-C does not reach it: what was made must go.
    let status = child.0.wait()?;
    succeeded(status)
}

/// A child in a process group of its own, so that only we decide when it is interrupted; it never outlives us.
struct Background(Child);

impl Background {
    fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let child = command.process_group(0).spawn();
        Ok(Self(child.context("cannot start the command line")?))
    }

    /// As Ctrl-C would, and waits.
    fn end(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?);
        if self.0.try_wait()?.is_none() {
            kill(pid, Signal::SIGINT)?;
            windlass_fixtures::program::wait(&mut self.0, Duration::from_secs(120))?;
        }
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
