//! What lies on disk: images and layers, containers, volumes.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;
use serde::Deserialize;
use sha2::Digest as _;

use super::scene::{Scene, entries, name};
use super::{Engine, Finding, Mend};
use crate::container::record::Status;
use crate::volume::{DATA, FILE};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Every image's layers are there and whole, every layer is of an image, every name means an image, nothing is half there.
pub fn images(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let mut ids = BTreeSet::new();
    let mut layers = BTreeSet::new();
    for path in entries(&scene.root.join("images"))? {
        let file = name(&path);
        // A removed image is hidden while a container is left that was made from it.
        let hidden = file.strip_suffix(".hidden");
        let whole = file.strip_suffix(".json").or(hidden);
        let Some(id) = whole.filter(|id| !id.contains('.')) else {
            let owner = file.split('.').next().unwrap_or_default();
            if file.ends_with(".new") || !path.with_file_name(format!("{owner}.json")).exists() {
                let what = format!("image file {} belongs to no image", path.display());
                findings.push(Finding::new(what, Mend::RemoveFile(path)));
            }
            continue;
        };
        let Ok(text) = fs::read(&path) else { continue };
        if hex::encode(sha2::Sha256::digest(&text)) != id {
            let what = format!("image {id}: its configuration has another digest");
            findings.push(Finding::new(what, Mend::RemoveFile(path)));
            continue;
        }
        if hidden.is_none() {
            ids.insert(format!("sha256:{id}"));
        }
        let config: Config = serde_json::from_slice(&text).unwrap_or_default();
        for diff_id in config.rootfs.diff_ids {
            let hex = diff_id.trim_start_matches("sha256:").to_owned();
            if !is_whole(&scene.root.join("layers").join(&hex), &diff_id) {
                let what = format!("image {id}: its layer {hex} is not there, or not whole");
                findings.push(Finding::new(what, Mend::Nothing));
            }
            layers.insert(hex);
        }
    }
    for path in entries(&scene.root.join("layers"))? {
        if !layers.contains(&name(&path)) {
            let what = format!("layer {} belongs to no image", name(&path));
            findings.push(Finding::new(what, Mend::RemoveFolder(path)));
        }
    }
    names(scene, &ids, findings);
    if scene.engine == Engine::Stopped {
        for (folder, kind) in [
            ("tmp", "an unfinished download or layer"),
            ("build", "a build"),
        ] {
            for path in entries(&scene.root.join(folder))? {
                let what = format!("{} is left of {kind}", path.display());
                findings.push(Finding::new(what, Mend::RemoveFolder(path)));
            }
        }
    }
    Ok(())
}

/// The mark of a layer is written last, and moved to its place with it.
fn is_whole(folder: &Path, diff_id: &str) -> bool {
    let mark = std::fs::read(folder.join("layer.json")).unwrap_or_default();
    let mark: serde_json::Value = serde_json::from_slice(&mark).unwrap_or_default();
    mark["diff_id"] == diff_id && folder.join("diff").is_dir()
}

fn names(scene: &Scene, ids: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let path = scene.root.join("repositories.json");
    let Ok(text) = std::fs::read(&path) else {
        return;
    };
    let Ok(kinds) = serde_json::from_slice::<serde_json::Value>(&text) else {
        let what = format!("{} cannot be read", path.display());
        return findings.push(Finding::new(what, Mend::Nothing));
    };
    for kind in ["tags", "digests"] {
        for (tag, id) in kinds[kind].as_object().into_iter().flatten() {
            if !id.as_str().is_some_and(|id| ids.contains(id)) {
                let what = format!("the name {tag} means an image that is not there");
                findings.push(Finding::new(what, Mend::Nothing));
            }
        }
    }
}

/// Every container has a record, its image and its volumes; every writable layer has a container.
pub fn containers(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    for (folder, why) in &scene.unreadable {
        let (what, mend) = match why.as_str() {
            "" => (
                "has no record".to_owned(),
                Mend::RemoveFolder(folder.clone()),
            ),
            why => (
                format!("has a record that cannot be read: {why}"),
                Mend::Nothing,
            ),
        };
        let what = format!("container {} {what}", name(folder));
        findings.push(Finding::new(what, mend));
    }
    for (id, record) in &scene.containers {
        let image = record.image_id.trim_start_matches("sha256:");
        let file = |ending: &str| scene.root.join("images").join(format!("{image}.{ending}"));
        if !file("json").exists() && !file("hidden").exists() {
            let what = format!("container {id}: its image {image} is not there");
            findings.push(Finding::new(what, Mend::Nothing));
        }
        for mount in record.mounts.iter().filter(|m| m.kind == "volume") {
            let folder = scene.root.join("volumes").join(&mount.name);
            // A container that is being removed takes its volumes along first.
            let going = matches!(record.state.status, Status::Removing);
            if !going && !folder.join(FILE).exists() {
                let what = format!("container {id}: its volume {} is not there", mount.name);
                findings.push(Finding::new(what, Mend::Nothing));
            }
        }
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            let what = format!("container {id} was not removed to the end");
            findings.push(Finding::new(what, Mend::Nothing));
        }
        let ran = record.state.started_at != crate::container::clock::NEVER;
        if ran && !scene.root.join("rootfs").join(id).join("upper").is_dir() {
            let what = format!("container {id}: its writable layer is not there");
            findings.push(Finding::new(what, Mend::Nothing));
        }
    }
    for path in entries(&scene.root.join("rootfs"))? {
        let id = name(&path);
        let owner = id.split('-').next().unwrap_or_default();
        if !scene.containers.contains_key(owner) && !scene.is_being_built(owner) {
            let what = format!("writable layer {id} belongs to no container");
            findings.push(Finding::new(what, Mend::RemoveFolder(path)));
        }
    }
    Ok(())
}

/// Every volume is there as a whole.
pub fn volumes(scene: &Scene, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    for path in entries(&scene.root.join("volumes"))? {
        let volume = name(&path);
        if volume.starts_with('.') {
            let what = format!("{} is left of a volume", path.display());
            findings.push(Finding::new(what, Mend::RemoveFolder(path)));
            continue;
        }
        if !path.join(FILE).exists() || !path.join(DATA).is_dir() {
            let what = format!("volume {volume} has no record, or no folder for its files");
            findings.push(Finding::new(what, Mend::Nothing));
        }
        let filling = path.join("_data.new");
        if filling.exists() {
            let what = format!("volume {volume}: the copy of an image's files was not finished");
            findings.push(Finding::new(what, Mend::RemoveFolder(filling)));
        }
    }
    Ok(())
}
