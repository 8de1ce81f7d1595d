//! Peers without a daemon: podman through its command, and crun on a ready bundle beside the engine's own part of a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_engine_api::types::CreateContainer;
use windlass_engine_api::{Client, RemoveContainer, UnixDial, WaitCondition};
use windlass_fixtures::program;

use super::cost;
use super::engine::Scene;
use super::sample::take_turns;
use super::table::{Row, Table};

const LIMIT: Duration = Duration::from_secs(120);

/// `run --rm` beside podman, and the calls behind it beside crun.
pub fn measure(scene: &Scene, table: &mut Table) -> Result<()> {
    let (image, runs) = (scene.image("busybox"), scene.options.runs());
    let podman = Podman::new(&image)?;
    let (ours, theirs) = take_turns(
        runs,
        || cost::run_once(&scene.ours, &image),
        || podman.run_once(),
    )?;
    table.add(Row::both("… beside podman", &ours, &theirs, "s"));
    let bundle = Bundle::new()?;
    let client = Client::new(Arc::new(UnixDial::new(scene.ours.socket())));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (ours, theirs) = take_turns(
        runs,
        || runtime.block_on(engines_part(&client, &image)),
        || bundle.run_once(),
    )?;
    table.add(
        Row::both(
            "… create, start, wait, remove beside `crun run`",
            &ours,
            &theirs,
            "s",
        )
        .at_most_times(1.5),
    );
    Ok(())
}

/// What `run --rm` asks of the engine, without the client's program.
async fn engines_part(client: &Client, image: &str) -> Result<f64> {
    let mut spec = CreateContainer::default();
    spec.config.image = image.to_owned();
    spec.config.cmd = Some(vec!["true".to_owned()]);
    // A bundle has no network either.
    spec.host_config.network_mode = "none".to_owned();
    let begun = Instant::now();
    let id = client.create_container(None, &spec).await?.id;
    let ended = client.wait_container(&id, WaitCondition::NextExit);
    let (started, ended) = tokio::join!(client.start_container(&id), ended);
    started?;
    ensure!(ended?.status_code == 0, "`true` failed");
    client
        .remove_container(&id, RemoveContainer::default())
        .await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// podman with a storage of its own, and limits that this computer grants.
struct Podman {
    folder: tempfile::TempDir,
    image: String,
}

impl Podman {
    fn new(image: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in("/var/tmp")?;
        let podman = Self {
            folder,
            image: image.to_owned(),
        };
        podman.ok(&["pull", "--quiet", "--tls-verify=false", image])?;
        Ok(podman)
    }

    fn ok(&self, arguments: &[&str]) -> Result<String> {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(at("root"))
            .arg("--runroot")
            .arg(at("run"));
        command.args([
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
            "--runtime",
            "crun",
        ]);
        program::checked(command.args(arguments), LIMIT)
    }

    fn run_once(&self) -> Result<f64> {
        let begun = Instant::now();
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        self.ok(&[&["run", "--rm"], &limits[..], &[&self.image, "true"]].concat())?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Its overlay is mounted for as long as its storage knows of it.
        let _ = self.ok(&["system", "reset", "--force"]);
    }
}

/// A bundle as `crun spec` makes it, that runs `true`.
struct Bundle {
    folder: tempfile::TempDir,
}

impl Bundle {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let bin = folder.path().join("rootfs/bin");
        fs_err::create_dir_all(&bin)?;
        fs_err::copy("/bin/busybox", bin.join("busybox"))?;
        fs_err::os::unix::fs::symlink("busybox", bin.join("true"))?;
        program::checked(
            Command::new("crun").arg("spec").current_dir(folder.path()),
            LIMIT,
        )?;
        change(&folder.path().join("config.json"))?;
        Ok(Self { folder })
    }

    fn run_once(&self) -> Result<f64> {
        let mut command = Command::new("crun");
        let state: PathBuf = self.folder.path().join("state");
        command
            .arg("--root")
            .arg(state)
            .args(["run", "windlass-bench"]);
        let begun = Instant::now();
        program::checked(command.current_dir(self.folder.path()), LIMIT)?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// No terminal, `true`, and no limits that a computer might not grant.
fn change(path: &Path) -> Result<()> {
    let mut spec: serde_json::Value = serde_json::from_slice(&fs_err::read(path)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["true"]);
    spec["process"]["rlimits"] = json!([]);
    Ok(fs_err::write(path, spec.to_string())?)
}
