//! `docker commit`: an image made from a container, which stands still meanwhile.

use std::sync::Arc;

use windlass_engine_api::types::ContainerConfig;

use super::Engine;
use super::error::{Error, Result};
use super::parts::Commit;
use super::record::Status;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Name or id of the container.
    pub container: String,
    /// `repository[:tag]` of the image.
    pub name: Option<String>,
    /// Free text.
    pub comment: String,
    /// Free text.
    pub author: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Its processes stand still meanwhile.
    pub pause: bool,
    /// Instead of the container's own configuration, which fills its gaps.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes the image; its id.
    pub async fn commit(self: &Arc<Self>, wanted: CommitRequest) -> Result<String> {
        let container = self.containers.find(&wanted.container)?;
        let _one = container.operation.lock().await;
        let record = container.snapshot();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(Error::conflict(format!(
                "You cannot commit container {} which is being removed",
                record.id
            )));
        }
        let command = record.config.cmd.clone().unwrap_or_default().join(" ");
        let config = match wanted.config {
            Some(config) => merged(config, &record.config),
            None => record.config.clone(),
        };
        let commit = Commit {
            container: record.id.clone(),
            image: record.image_id.clone(),
            config,
            command,
            name: wanted.name.clone(),
            changes: wanted.changes,
            comment: wanted.comment.clone(),
            author: wanted.author,
        };
        // One that ends at this very moment stands still without our help.
        let pause = wanted.pause
            && record.state.status == Status::Running
            && self.runtime.pause(&record.id).await.is_ok();
        let made = self.images.commit(commit).await;
        if pause && let Err(error) = self.runtime.resume(&record.id).await {
            tracing::warn!(id = record.id, %error, "going on after a commit");
        }
        let id = made?;
        if let Some(name) = &wanted.name {
            self.tell_image("tag", &id, name);
        }
        let mut attributes = container.attributes();
        attributes.insert("comment".to_owned(), wanted.comment);
        attributes.insert("imageID".to_owned(), id.clone());
        attributes.insert("imageRef".to_owned(), wanted.name.unwrap_or_default());
        self.events
            .publish("container", "commit", &record.id, attributes);
        Ok(id)
    }

    /// Tells everybody what happened to an image, with its labels.
    pub fn tell_image(&self, action: &str, id: &str, name: &str) {
        let image = self.images.find(id).ok();
        let mut attributes = image.map(|image| image.config.labels).unwrap_or_default();
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.publish("image", action, id, attributes);
    }
}

/// The client's configuration, its gaps filled from the container's.
fn merged(mut ours: ContainerConfig, theirs: &ContainerConfig) -> ContainerConfig {
    let fill = |ours: &mut String, theirs: &String| {
        if ours.is_empty() {
            ours.clone_from(theirs);
        }
    };
    fill(&mut ours.image, &theirs.image);
    fill(&mut ours.user, &theirs.user);
    fill(&mut ours.working_dir, &theirs.working_dir);
    fill(&mut ours.stop_signal, &theirs.stop_signal);
    for (port, nothing) in &theirs.exposed_ports {
        let entry = ours.exposed_ports.entry(port.clone());
        entry.or_insert(*nothing);
    }
    for (path, nothing) in &theirs.volumes {
        let entry = ours.volumes.entry(path.clone());
        entry.or_insert(*nothing);
    }
    for (name, value) in &theirs.labels {
        let entry = ours.labels.entry(name.clone());
        entry.or_insert_with(|| value.clone());
    }
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    for line in &theirs.env {
        if !ours.env.iter().any(|own| name(own) == name(line)) {
            ours.env.push(line.clone());
        }
    }
    let empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if empty(&ours.entrypoint) {
        if empty(&ours.cmd) {
            ours.cmd.clone_from(&theirs.cmd);
        }
        ours.entrypoint.clone_from(&theirs.entrypoint);
    }
    if ours.healthcheck.is_none() {
        ours.healthcheck.clone_from(&theirs.healthcheck);
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled() {
        let theirs = ContainerConfig {
            user: "u".into(),
            env: vec!["A=1".into(), "B=2".into()],
            cmd: Some(vec!["sh".into()]),
            ..ContainerConfig::default()
        };
        let ours = ContainerConfig {
            env: vec!["B=3".into()],
            entrypoint: Some(vec!["e".into()]),
            ..ContainerConfig::default()
        };
        let both = merged(ours, &theirs);
        assert_eq!(
            (both.user.as_str(), &both.env[..]),
            ("u", &["B=3".to_owned(), "A=1".to_owned()][..])
        );
        assert_eq!(
            (both.cmd, both.entrypoint),
            (None, Some(vec!["e".to_owned()]))
        );
    }
}
