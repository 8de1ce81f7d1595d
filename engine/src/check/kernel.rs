//! What is in the kernel: mounts, network namespaces, interfaces, rules, processes, control groups.
//!
//! Seen from the mount and network namespace that this runs in, which must be the engine's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::scene::{Scene, entries, name};
use super::{Engine, Finding, Mend};
use crate::container::record::{Record, Status};
use crate::runtime::SHIM;
use crate::volume::DATA;

/// Nothing is mounted for who does not run.
pub fn mounts(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    for point in &scene.mounts {
        if let Some(owner) = leaked(scene, point) {
            let what = format!("{} is mounted, but {owner}", point.display());
            findings.push(Finding::new(what, Mend::Unmount(point.clone())));
        }
    }
    let seen: BTreeSet<&PathBuf> = scene.mounts.iter().collect();
    for path in entries(&scene.run.join("netns"))? {
        let id = name(&path);
        if !scene.runs(&id) && !seen.contains(&path) {
            let what = format!("network namespace {id} is left of a container that does not run");
            findings.push(Finding::new(what, Mend::RemoveFile(path)));
        }
    }
    Ok(())
}

/// Why a mount should not be there.
fn leaked(scene: &Scene, point: &Path) -> Option<String> {
    let owner = if let Ok(inside) = point.strip_prefix(scene.root.join("rootfs")) {
        let layer = inside.iter().next()?.to_string_lossy().into_owned();
        layer.split('-').next()?.to_owned()
    } else if let Ok(inside) = point.strip_prefix(scene.root.join("volumes")) {
        let mut parts = inside.iter();
        let volume = parts.next()?.to_string_lossy().into_owned();
        // Below it the user may mount what he likes.
        if parts.next()? != DATA || parts.next().is_some() {
            return None;
        }
        let uses = |r: &Record| r.mounts.iter().any(|m| m.name == volume);
        let used = scene
            .containers
            .values()
            .any(|r| uses(r) && scene.runs(&r.id));
        return (!used).then(|| format!("no container that runs uses the volume {volume}"));
    } else if let Ok(inside) = point.strip_prefix(scene.run.join("netns")) {
        inside.iter().next()?.to_string_lossy().into_owned()
    } else {
        return None;
    };
    let runs = scene.runs(&owner) || scene.is_being_built(&owner);
    (!runs).then(|| format!("{owner} does not run"))
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(default)]
    bridge: String,
    /// Beside an interface of the host there is nothing of its own.
    #[serde(default)]
    driver: String,
}

/// On the bridges hang only interfaces of containers that run; without an engine and containers there are no rules.
pub fn networks(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let run_now = scene.containers.keys().any(|id| scene.runs(id));
    let tables = crate::network::tables().unwrap_or_default();
    for path in entries(&scene.root.join("networks"))? {
        let text = std::fs::read(&path).unwrap_or_default();
        let Ok(network) = serde_json::from_slice::<Network>(&text) else {
            continue;
        };
        let bridge = network.bridge;
        if bridge.is_empty() || !matches!(network.driver.as_str(), "" | "bridge") {
            continue;
        }
        let device = Path::new("/sys/class/net").join(&bridge);
        if run_now || scene.engine == Engine::Runs {
            let ports = entries(&device.join("brif")).unwrap_or_default();
            for port in ports.iter().map(|p| name(p)).filter(|_| !run_now) {
                let what = format!("interface {port} hangs on {bridge}, but no container runs");
                findings.push(Finding::new(what, Mend::Nothing));
            }
            continue;
        }
        let table = crate::network::table_of(&bridge);
        if tables.contains(&table) {
            let what =
                format!("nftables table {table} is there, but neither engine nor containers");
            findings.push(Finding::new(what, Mend::Nothing));
        }
        if device.exists() {
            let what = format!("bridge {bridge} is there, but neither engine nor containers");
            findings.push(Finding::new(what, Mend::Nothing));
        }
    }
    Ok(())
}

/// A shim has a container that runs, and the other way round.
pub fn processes(scene: &Scene, findings: &mut Vec<Finding>) {
    let shims = scene.run.join(SHIM);
    for (folder, pid) in &scene.shims {
        let inside = folder.strip_prefix(&shims).unwrap_or(folder);
        let id = inside.iter().next().unwrap_or_default();
        let id = id.to_string_lossy().into_owned();
        let is_exec = inside.iter().count() > 1;
        let known = scene.containers.contains_key(&id) || scene.is_being_built(&id);
        let what = if !known {
            format!("process {pid} is the shim of {id}, which is not there")
        } else if is_exec && !scene.runs(&id) {
            format!("process {pid} is the shim of an exec of {id}, which does not run")
        } else if !is_exec && !is_meant_to_run(scene, &id) {
            format!("process {pid} is the shim of {id}, which is not meant to run")
        } else {
            continue;
        };
        findings.push(Finding::new(what, Mend::Kill(*pid)));
    }
    for folder in entries(&shims).unwrap_or_default() {
        let id = name(&folder);
        // How it ended is in there until an engine has read it.
        let awaited = scene.engine == Engine::Stopped && is_meant_to_run(scene, &id);
        if !scene.runs(&id) && !awaited && !scene.is_being_built(&id) {
            let what = format!("{} is left of processes that have ended", folder.display());
            findings.push(Finding::new(what, Mend::RemoveFolder(folder)));
        }
    }
    if scene.engine == Engine::Runs {
        for (id, record) in &scene.containers {
            if record.state.status.has_process() && !scene.runs(id) {
                let what = format!("container {id} is said to run, but does not");
                findings.push(Finding::new(what, Mend::Nothing));
            }
        }
    }
}

fn is_meant_to_run(scene: &Scene, id: &str) -> bool {
    let status = scene.containers.get(id).map(|r| r.state.status);
    let runs = |s: Status| s.has_process();
    status.is_some_and(runs) || scene.is_being_built(id)
}

/// A container that does not run has no control group. Those of containers that are not known may be another engine's.
pub fn control_groups(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    for id in scene.containers.keys().filter(|id| !scene.runs(id)) {
        for folder in crate::runtime::control_groups(id)? {
            let what = format!(
                "control group {} is left of a container that does not run",
                folder.display()
            );
            findings.push(Finding::new(what, Mend::Nothing));
        }
    }
    Ok(())
}
