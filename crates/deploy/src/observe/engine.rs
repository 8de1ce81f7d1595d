//! Asking the machines: side by side, each within a bounded time, and none counted as empty because it did not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use windlass_engine_api::types::{ContainerInspect, NetworkSettings};
use windlass_engine_api::{Client, Filters, ListContainers};
use windlass_ingress::AdminClient;
use windlass_machine::MachineName;

use super::{
    ANSWER_WITHIN, Availability, Contents, Network, Observed, ObservedIngress, ObservedMachine,
    Reach, Replica, ReplicaState, Volume,
};
use crate::error::{DeployError, Result, chain};
use crate::hosts::{BoxError, Host, Hosts};
use crate::ingress;
use crate::spec::labels;

/// Machines asked at once.
const AT_ONCE: usize = 64;

/// What is asked of the machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    /// The project.
    pub(crate) project: String,
    /// References of images whose ids matter.
    pub(crate) images: BTreeSet<String>,
    /// Machines that did not answer before, and why: they are not asked again.
    pub(crate) silent: BTreeMap<MachineName, String>,
}

impl Question {
    /// About a project, and no image.
    pub(crate) fn about(project: &str) -> Self {
        Self {
            project: project.to_owned(),
            ..Self::default()
        }
    }
}

/// Looks at all machines that the project may use.
pub(crate) async fn observe(hosts: &dyn Hosts, question: &Question) -> Result<Observed> {
    let mut observed = Observed::default();
    let mut ours = Vec::new();
    for host in hosts.list().await.map_err(DeployError::List)? {
        match &host.project {
            Some(project) if *project != question.project => observed.foreign.push(host.name),
            _ => ours.push(host),
        }
    }
    observed.machines = stream::iter(ours)
        .map(|host| async {
            let reach = reach(hosts, &host, question).await;
            (host.name.clone(), ObservedMachine { host, reach })
        })
        .buffer_unordered(AT_ONCE)
        .collect::<BTreeMap<MachineName, ObservedMachine>>()
        .await;
    Ok(observed)
}

async fn reach(hosts: &dyn Hosts, host: &Host, question: &Question) -> Reach {
    if host.unfinished {
        return Reach::Unfinished;
    }
    if !host.ready {
        let reason = "it is not running; `windlass start` starts it".to_owned();
        return Reach::Unreachable { reason };
    }
    if let Some(reason) = question.silent.get(&host.name) {
        let reason = reason.clone();
        return Reach::Unreachable { reason };
    }
    match tokio::time::timeout(ANSWER_WITHIN, contents(hosts, host, question)).await {
        Ok(Ok(contents)) => Reach::Ready(Box::new(contents)),
        Ok(Err(error)) => Reach::Unreachable {
            reason: chain(error.as_ref()),
        },
        Err(_) => Reach::Unreachable {
            reason: format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
        },
    }
}

async fn contents(
    hosts: &dyn Hosts,
    host: &Host,
    question: &Question,
) -> Result<Contents, BoxError> {
    let client = Client::new(hosts.engine(&host.name).await?);
    let all = Filters::new();
    let (info, networks, volumes, containers) = tokio::try_join!(
        client.info(),
        client.list_networks(&all),
        client.list_volumes(&all),
        containers(&client, &question.project),
    )?;
    let is_ours =
        |found: &BTreeMap<String, String>| found.get(labels::PROJECT) == Some(&question.project);
    let mut contents = Contents {
        architecture: info.architecture,
        images: images(&client, &question.images).await?,
        networks: networks
            .into_iter()
            .map(|n| Network {
                ours: is_ours(&n.labels),
                name: n.name,
            })
            .collect(),
        volumes: volumes
            .into_iter()
            .map(|v| Volume {
                ours: is_ours(&v.labels),
                name: v.name,
            })
            .collect(),
        ..Contents::default()
    };
    for container in containers {
        if container.config.labels.contains_key(labels::INGRESS) {
            contents.ingress = Some(look_at_ingress(hosts, host, question, container).await);
        } else {
            contents.replicas.extend(replica(container));
        }
    }
    contents
        .replicas
        .sort_by(|a, b| (&a.service, a.number, &a.id).cmp(&(&b.service, b.number, &b.id)));
    Ok(contents)
}

async fn containers(
    client: &Client,
    project: &str,
) -> Result<Vec<ContainerInspect>, windlass_engine_api::Error> {
    let list = client
        .list_containers(&ListContainers {
            all: true,
            filters: Filters::new().label(labels::PROJECT, project),
        })
        .await?;
    stream::iter(list)
        .map(|c| async move {
            match client.inspect_container(&c.id).await {
                Ok(inspect) => Ok(Some(inspect)),
                // Removed since it was listed.
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(e),
            }
        })
        .buffer_unordered(8)
        .try_filter_map(|c| async { Ok(c) })
        .try_collect()
        .await
}

async fn images(
    client: &Client,
    references: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, windlass_engine_api::Error> {
    let mut found = BTreeMap::new();
    for reference in references {
        match client.inspect_image(reference).await {
            Ok(image) => {
                found.insert(reference.clone(), image.id);
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

async fn look_at_ingress(
    hosts: &dyn Hosts,
    host: &Host,
    question: &Question,
    container: ContainerInspect,
) -> ObservedIngress {
    let label = |name: &str| container.config.labels.get(name).cloned();
    let mut seen = ObservedIngress {
        id: container.id.clone(),
        spec: label(labels::SPEC).unwrap_or_default(),
        running: container.state.running,
        answer: None,
    };
    if seen.running {
        let socket = ingress::admin_socket(&question.project);
        if let Ok(dial) = hosts.socket(&host.name, &socket).await {
            let admin = AdminClient::new(dial).with_timeout(Duration::from_secs(5));
            seen.answer = tokio::try_join!(admin.routes(), admin.status()).ok();
        }
    }
    seen
}

/// A container of a service; `None` when it carries our project's label and not the others, so it is not one of ours.
pub(crate) fn replica(container: ContainerInspect) -> Option<Replica> {
    let label = |name: &str| container.config.labels.get(name).cloned();
    Some(Replica {
        service: label(labels::SERVICE)?,
        number: label(labels::REPLICA)?.parse().ok()?,
        spec: label(labels::SPEC).unwrap_or_default(),
        release: label(labels::RELEASE).unwrap_or_default(),
        image: container.config.image.clone(),
        state: state(&container),
        availability: availability(&container),
        started_at: if container.state.started_at.starts_with("0001-") {
            String::new()
        } else {
            container.state.started_at.clone()
        },
        ports: published(&container.network_settings),
        name: container.name.trim_start_matches('/').to_owned(),
        id: container.id,
    })
}

/// Whether a container runs.
pub(crate) fn state(container: &ContainerInspect) -> ReplicaState {
    match container.state.status.as_str() {
        "created" => ReplicaState::Created,
        "running" => ReplicaState::Running,
        "restarting" => ReplicaState::Restarting,
        "paused" => ReplicaState::Paused,
        "exited" => ReplicaState::Exited {
            code: container.state.exit_code,
        },
        _ => ReplicaState::Dead,
    }
}

/// Whether it is well, as the engine sees it.
pub(crate) fn availability(container: &ContainerInspect) -> Availability {
    if state(container) != ReplicaState::Running {
        return Availability::Unavailable;
    }
    match container.state.health.as_ref().map(|h| h.status.as_str()) {
        Some("starting") => Availability::Starting,
        Some("unhealthy") => Availability::Unavailable,
        _ => Availability::Available,
    }
}

/// Where container ports are published.
pub(crate) fn published(settings: &NetworkSettings) -> Vec<(String, SocketAddr)> {
    let mut ports = Vec::new();
    for (port, bindings) in &settings.ports {
        for binding in bindings.iter().flatten() {
            let ip = binding.host_ip.parse::<IpAddr>();
            if let (Ok(ip), Ok(number)) = (ip, binding.host_port.parse()) {
                ports.push((port.clone(), SocketAddr::new(ip, number)));
            }
        }
    }
    ports.sort();
    ports
}
