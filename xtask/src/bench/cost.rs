//! What containers cost: memory, a short run, a large pull.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_fixtures::{Image, Layer, program};

use super::table::{Row, Table};
use crate::daemon::Engine;

/// An image that has nothing but a static busybox.
pub fn busybox_image(folder: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    let bin = root.path().join("bin");
    fs_err::create_dir(&bin)?;
    fs_err::copy("/bin/busybox", bin.join("busybox"))?;
    for name in ["sh", "true", "sleep"] {
        fs_err::os::unix::fs::symlink("busybox", bin.join(name))?;
    }
    Image {
        config: json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]}),
        layers: vec![Layer::Folder(root.path().into())],
    }
    .write(folder, "1")
}

/// Seconds of one `run --rm`, client and all.
pub fn run_once(engine: &Engine, image: &str) -> Result<f64> {
    let begun = Instant::now();
    engine.ok(&["run", "--rm", image, "true"])?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds of one pull of an image that is not there, which it is not afterwards either.
pub fn pull_once(engine: &Engine, image: &str) -> Result<f64> {
    let begun = Instant::now();
    engine.ok(&["pull", "--quiet", image])?;
    let took = begun.elapsed().as_secs_f64();
    engine.ok(&["rmi", image])?;
    // The removal's writes are nobody's pull.
    nix::unistd::sync();
    Ok(took)
}

/// Seconds that `tar` takes for the layers of a layout, one after the other.
pub fn unpack_once(layout: &Path) -> Result<f64> {
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(layout.join("index.json"))?)?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(blob(layout, &index["manifests"][0])?)?)?;
    let layers = manifest["layers"]
        .as_array()
        .context("a manifest without layers")?;
    let root = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in("/var/tmp")?;
    let begun = Instant::now();
    for (number, layer) in layers.iter().enumerate() {
        let folder = root.path().join(number.to_string());
        fs_err::create_dir(&folder)?;
        let archive = blob(layout, layer)?;
        program::output(&[
            "tar",
            "-xzf",
            &archive.to_string_lossy(),
            "-C",
            &folder.to_string_lossy(),
        ])?;
    }
    let took = begun.elapsed().as_secs_f64();
    drop(root);
    nix::unistd::sync();
    Ok(took)
}

fn blob(layout: &Path, descriptor: &serde_json::Value) -> Result<PathBuf> {
    let digest = descriptor["digest"]
        .as_str()
        .context("a descriptor without digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

/// Memory of both engines: idle, and what each container adds beside its own process.
pub fn memory(
    ours: &Engine,
    docker: &Engine,
    image: &str,
    count: usize,
    table: &mut Table,
) -> Result<()> {
    ours.ok(&["pull", "--quiet", image])?;
    docker.ok(&["pull", "--quiet", image])?;
    let idle = (resident(&ours.pids())?, resident(&docker.pids())?);
    table.add(Row::once("engine idle, resident", idle.0, idle.1, "MB").at_most(12.0));
    let (a, b) = (
        with_containers(ours, image, count)?,
        with_containers(docker, image, count)?,
    );
    table.add(
        Row::once(
            "shim of a container, proportional share",
            a.shim,
            b.shim,
            "MB",
        )
        .at_most(1.5),
    );
    table.add(
        Row::once(
            &format!("engine with {count} containers, resident"),
            a.engine,
            b.engine,
            "MB",
        )
        .at_most(40.0),
    );
    let grown = (a.engine - idle.0, b.engine - idle.1);
    let each = count as f64;
    table.add(Row::once(
        &format!("engine, growth for each of {count} containers"),
        grown.0 / each,
        grown.1 / each,
        "MB",
    ));
    Ok(())
}

struct Load {
    engine: f64,
    shim: f64,
}

fn with_containers(engine: &Engine, image: &str, count: usize) -> Result<Load> {
    let ids: Vec<String> = (0..count)
        .map(|_| {
            Ok(engine
                .ok(&["run", "--detach", image, "sleep", "3600"])?
                .trim()
                .to_owned())
        })
        .collect::<Result<_>>()?;
    let measured = measure(engine, &ids);
    let mut remove = vec!["rm", "--force"];
    remove.extend(ids.iter().map(String::as_str));
    engine.ok(&remove)?;
    measured
}

fn measure(engine: &Engine, ids: &[String]) -> Result<Load> {
    // What start-up itself took is to be given back first; level, not time: two equal readings.
    settle(&engine.pids())?;
    let mut shims = Vec::new();
    for id in ids {
        let pid: u32 = engine
            .ok(&["inspect", "--format", "{{.State.Pid}}", id])?
            .trim()
            .parse()?;
        shims.push(parent(pid)?);
    }
    let total: f64 = shims
        .iter()
        .map(|pid| proportional(*pid))
        .sum::<Result<f64>>()?;
    ensure!(!shims.is_empty(), "no containers");
    Ok(Load {
        engine: resident(&engine.pids())?,
        shim: total / shims.len() as f64,
    })
}

fn settle(pids: &[u32]) -> Result<()> {
    let mut before = resident(pids)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(250));
        let now = resident(pids)?;
        if (now - before).abs() < 0.05 {
            break;
        }
        before = now;
    }
    Ok(())
}

/// The process that holds a container's.
fn parent(pid: u32) -> Result<u32> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(line.context("a process without parent")?.trim().parse()?)
}

/// Megabytes resident, of all together.
fn resident(pids: &[u32]) -> Result<f64> {
    pids.iter()
        .map(|pid| kilobytes(&format!("/proc/{pid}/status"), "VmRSS:"))
        .sum::<Result<f64>>()
        .map(|kilobytes| kilobytes / 1000.0)
}

/// Megabytes of which shared ones count in part: all shims are one program.
fn proportional(pid: u32) -> Result<f64> {
    Ok(kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? / 1000.0)
}

fn kilobytes(path: &str, key: &str) -> Result<f64> {
    let text = fs_err::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = value
        .with_context(|| format!("no {key} in {path}"))?
        .parse()?;
    Ok(kibibytes * 1.024)
}
