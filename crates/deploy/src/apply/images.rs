//! Images on machines (pulled, built, and the proxy's own), and the proxy's container.

use std::time::Duration;

use windlass_engine_api::types::CreateVolume;
use windlass_engine_api::{Client, RequestBody};
use windlass_machine::MachineName;

use super::engine::{Done, EngineExecutor, host, on};
use super::waiting::wait_ingress;
use crate::error::ActionError;
use crate::ingress;
use crate::spec::labels;

/// How long a proxy may take from its start to its first answer.
const INGRESS_WITHIN: Duration = Duration::from_secs(60);

impl EngineExecutor {
    pub(super) async fn pull(&self, machine: &MachineName, image: &str) -> Done {
        let auth = self.credentials.of(image);
        let client = self.client(machine).await?;
        let pull = client
            .pull_image(image, auth.as_ref())
            .await
            .map_err(on(machine))?;
        pull.finish().await.map(drop).map_err(on(machine))
    }

    pub(super) async fn build(&self, machine: &MachineName, service: &str, image: &str) -> Done {
        let client = self.client(machine).await?;
        let context = self
            .contexts
            .get(service)
            .ok_or(ActionError::NotKnown("the build context"))?;
        match client.inspect_image(image).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(on(machine)(e)),
        }
        let mut tags = vec![image.to_owned()];
        tags.extend(
            self.project
                .services
                .get(service)
                .map(|s| s.image.clone())
                .filter(|named| !named.is_empty() && named != image),
        );
        let mut progress = client
            .build_image(&context.options(tags), context.archive())
            .await
            .map_err(on(machine))?;
        let mut log = String::new();
        loop {
            match progress.next().await {
                Ok(Some(line)) => log.push_str(&line.stream),
                Ok(None) => return Ok(()),
                Err(source) => {
                    return Err(ActionError::Build {
                        machine: machine.clone(),
                        log: last_lines(&log),
                        source,
                    });
                }
            }
        }
    }

    pub(super) async fn start_ingress(
        &self,
        machine: &MachineName,
        image: &str,
        listen: &[u16],
    ) -> Done {
        let client = self.client(machine).await?;
        self.load_ingress(&client, machine, image).await?;
        let project = &self.project.name;
        let (container, spec) = ingress::container(project, image, listen);
        let name = ingress::container_name(project);
        let state = CreateVolume {
            name: ingress::state_volume(project),
            labels: [(labels::INGRESS.to_owned(), project.clone())].into(),
            ..CreateVolume::default()
        };
        client.create_volume(&state).await.map_err(on(machine))?;
        match client.create_container(Some(&name), &container).await {
            Ok(_) => {}
            Err(e) if e.is_conflict() => {
                let there = client.inspect_container(&name).await.map_err(on(machine))?;
                if there.config.labels.get(labels::SPEC) != Some(&spec) {
                    return Err(ActionError::Changed(format!("the ingress on {machine}")));
                }
            }
            Err(e) => return Err(on(machine)(e)),
        }
        client.start_container(&name).await.map_err(on(machine))?;
        let admin = self
            .admin(machine)
            .await?
            .with_timeout(Duration::from_secs(5));
        wait_ingress(&client, &admin, machine, &name, INGRESS_WITHIN).await
    }

    pub(super) async fn load_ingress(
        &self,
        client: &Client,
        machine: &MachineName,
        image: &str,
    ) -> Done {
        match client.inspect_image(image).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(on(machine)(e)),
        }
        let architecture = client.info().await.map_err(on(machine))?.architecture;
        let binary = self
            .hosts
            .ingress_binary(&architecture)
            .await
            .map_err(host(machine))?;
        if ingress::reference(&binary) != image {
            return Err(ActionError::Changed("the ingress binary".to_owned()));
        }
        let archive = ingress::archive(&binary, &architecture)
            .map_err(|e| ActionError::Host("cannot pack the ingress".to_owned(), Some(e.into())))?;
        let load = client
            .load_image(RequestBody::Tar(archive.into()))
            .await
            .map_err(on(machine))?;
        load.finish().await.map(drop).map_err(on(machine))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(10)..]
        .iter()
        .map(|l| format!("\n  | {l}"))
        .collect()
}
