//! The actions over real machines: each a few calls to an engine, a proxy or [`Hosts`], safe to do twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use windlass_compose::model::Project;
use windlass_engine_api::types::{CreateNetwork, CreateVolume};
use windlass_engine_api::{Client, Error as EngineError, RemoveContainer};
use windlass_ingress::{AdminClient, RouteTable, Upstream};
use windlass_machine::{MachineName, Slot};

use super::Executor;
use super::waiting::{wait_drained, wait_replica};
use crate::error::ActionError;
use crate::hosts::{BoxError, Hosts};
use crate::images::{BuildContext, Credentials};
use crate::ingress;
use crate::observe::{Availability, availability, published};
use crate::plan::{
    Action, ReplicaRef, RouteIntent, UpstreamIntent, Volumes, upstream_id, wire_route,
};
use crate::spec::{ContainerSpec, labels};

pub(super) type Done<T = ()> = Result<T, ActionError>;

/// Carries out actions on the machines.
pub(crate) struct EngineExecutor {
    pub(super) hosts: Arc<dyn Hosts>,
    pub(super) project: Arc<Project>,
    pub(super) contexts: BTreeMap<String, BuildContext>,
    pub(super) credentials: Credentials,
}

pub(super) fn on(machine: &MachineName) -> impl Fn(EngineError) -> ActionError + '_ {
    move |source| ActionError::Engine {
        machine: machine.clone(),
        source,
    }
}

/// Gone already is success.
fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

impl EngineExecutor {
    pub(crate) fn new(hosts: Arc<dyn Hosts>, project: Arc<Project>) -> Self {
        Self {
            hosts,
            project,
            contexts: BTreeMap::new(),
            credentials: Credentials::default(),
        }
    }

    pub(crate) fn with_contexts(self, contexts: BTreeMap<String, BuildContext>) -> Self {
        Self { contexts, ..self }
    }

    pub(crate) fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    pub(super) async fn client(&self, machine: &MachineName) -> Done<Client> {
        let dial = self.hosts.engine(machine).await.map_err(host(machine))?;
        Ok(Client::new(dial))
    }

    pub(super) async fn admin(&self, machine: &MachineName) -> Done<AdminClient> {
        let socket = ingress::admin_socket(&self.project.name);
        let dial = self
            .hosts
            .socket(machine, &socket)
            .await
            .map_err(host(machine))?;
        Ok(AdminClient::new(dial))
    }

    async fn create_machine(&self, machine: &MachineName, slot: &Slot) -> Done {
        let fleet = self
            .project
            .fleets
            .get(&slot.fleet)
            .ok_or(ActionError::NotKnown("the fleet"))?;
        self.hosts
            .create(&self.project.name, fleet, machine, slot)
            .await
            .map(drop)
            .map_err(host(machine))
    }

    async fn create_network(&self, machine: &MachineName, network: &str, key: &str) -> Done {
        let client = self.client(machine).await?;
        match client.inspect_network(network).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(on(machine)(e)),
        }
        let declared = self.project.networks.get(key).cloned().unwrap_or_default();
        let wanted = CreateNetwork {
            name: network.to_owned(),
            driver: "bridge".to_owned(),
            internal: declared.internal,
            labels: self.own_labels(declared.labels, "network", key),
            ..CreateNetwork::default()
        };
        match client.create_network(&wanted).await {
            Err(e) if !e.is_conflict() => Err(on(machine)(e)),
            _ => Ok(()),
        }
    }

    async fn create_volume(&self, machine: &MachineName, volume: &str, key: &str) -> Done {
        let declared = self.project.volumes.get(key).cloned().unwrap_or_default();
        let wanted = CreateVolume {
            name: volume.to_owned(),
            driver_opts: declared.options,
            labels: self.own_labels(declared.labels, "volume", key),
            ..CreateVolume::default()
        };
        let client = self.client(machine).await?;
        client
            .create_volume(&wanted)
            .await
            .map(drop)
            .map_err(on(machine))
    }

    fn own_labels(
        &self,
        mut declared: BTreeMap<String, String>,
        kind: &str,
        key: &str,
    ) -> BTreeMap<String, String> {
        let name = self.project.name.clone();
        declared.insert(labels::PROJECT.to_owned(), name.clone());
        declared.insert(labels::COMPOSE_PROJECT.to_owned(), name);
        declared.insert(format!("com.docker.compose.{kind}"), key.to_owned());
        declared
    }

    async fn create_replica(
        &self,
        replica: &ReplicaRef,
        container: &ContainerSpec,
        release: &str,
    ) -> Done {
        let machine = &replica.machine;
        let mut create = container.create.clone();
        for (key, value) in [
            (labels::REPLICA, replica.number.to_string()),
            (labels::SPEC, container.hash.clone()),
            (labels::RELEASE, release.to_owned()),
        ] {
            create.config.labels.insert(key.to_owned(), value);
        }
        let client = self.client(machine).await?;
        let made = client
            .create_container(Some(&replica.container), &create)
            .await;
        match made {
            Ok(_) => Ok(()),
            Err(e) if e.is_conflict() => self.adopt(&client, replica, &container.hash, e).await,
            Err(e) => Err(on(machine)(e)),
        }
    }

    /// The name is taken: by the same replica from an interrupted run, or by something else.
    async fn adopt(
        &self,
        client: &Client,
        replica: &ReplicaRef,
        spec: &str,
        conflict: EngineError,
    ) -> Done {
        let machine = &replica.machine;
        let Ok(there) = client.inspect_container(&replica.container).await else {
            return Err(on(machine)(conflict));
        };
        let is = |label: &str, value: &str| {
            there.config.labels.get(label).map(String::as_str) == Some(value)
        };
        if !is(labels::PROJECT, &self.project.name) {
            return Err(ActionError::NotOurs {
                machine: machine.clone(),
                kind: "container",
                name: replica.container.clone(),
            });
        }
        let same = is(labels::SPEC, spec)
            && is(labels::SERVICE, &replica.service)
            && is(labels::REPLICA, &replica.number.to_string());
        if same {
            Ok(())
        } else {
            Err(ActionError::Changed(replica.to_string()))
        }
    }

    async fn publish(
        &self,
        machine: &MachineName,
        generation: u64,
        routes: &[RouteIntent],
    ) -> Done {
        let mut table = RouteTable {
            generation,
            routes: Vec::new(),
        };
        for route in routes {
            let upstreams = route.upstreams.iter().map(|u| async move {
                Ok::<_, ActionError>(Upstream {
                    id: upstream_id(&u.replica),
                    address: self.address(u, route.port).await?,
                })
            });
            let upstreams = futures_util::future::try_join_all(upstreams).await?;
            table.routes.push(wire_route(route, upstreams));
        }
        let admin = self.admin(machine).await?;
        admin
            .put_routes(&table)
            .await
            .map(drop)
            .map_err(|source| ActionError::Ingress {
                machine: machine.clone(),
                source,
            })
    }

    /// Where a replica is reached: as observed, or, for one that was made since, as the engine says.
    async fn address(&self, upstream: &UpstreamIntent, port: u16) -> Done<SocketAddr> {
        if let Some(address) = upstream.address {
            return Ok(address);
        }
        let replica = &upstream.replica;
        let container = self
            .client(&replica.machine)
            .await?
            .inspect_container(&replica.container)
            .await
            .map_err(on(&replica.machine))?;
        let wanted = format!("{port}/tcp");
        published(&container.network_settings)
            .into_iter()
            .find(|(p, a)| *p == wanted && Some(a.ip()) == upstream.host)
            .map(|(_, address)| address)
            .ok_or_else(|| ActionError::Changed(replica.to_string()))
    }

    async fn drain(
        &self,
        address: SocketAddr,
        ingresses: &BTreeMap<MachineName, u64>,
        within: Duration,
    ) -> Done {
        let deadline = Instant::now() + within;
        let waits = ingresses.iter().map(|(machine, generation)| async move {
            let admin = self.admin(machine).await?;
            wait_drained(&admin, machine, address, *generation, deadline).await
        });
        futures_util::future::try_join_all(waits).await.map(drop)
    }

    async fn check(&self, replicas: &[Arc<ReplicaRef>]) -> Done {
        for some in replicas.chunks(32) {
            let checks = some.iter().map(|replica| self.check_one(replica));
            futures_util::future::try_join_all(checks).await?;
        }
        Ok(())
    }

    async fn check_one(&self, replica: &ReplicaRef) -> Done {
        let client = self.client(&replica.machine).await?;
        match client.inspect_container(&replica.container).await {
            Ok(c) if availability(&c) == Availability::Available => Ok(()),
            Ok(_) => Err(ActionError::Changed(replica.to_string())),
            Err(e) if e.is_not_found() => Err(ActionError::Changed(replica.to_string())),
            Err(e) => Err(on(&replica.machine)(e)),
        }
    }

    async fn remove_container(
        &self,
        machine: &MachineName,
        name: &str,
        anonymous_volumes: Volumes,
    ) -> Done {
        let how = RemoveContainer {
            force: false,
            volumes: anonymous_volumes == Volumes::Remove,
        };
        let client = self.client(machine).await?;
        gone_is_fine(client.remove_container(name, how).await).map_err(on(machine))
    }
}

pub(super) fn host(machine: &MachineName) -> impl Fn(BoxError) -> ActionError + '_ {
    move |e| ActionError::Host(format!("machine `{machine}`"), Some(e))
}

/// For what an engine does by itself: one that accepts and never answers must not hold the project for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// `None` where the action has a limit of its own, or may take as long as the network or the container needs.
fn limit(action: &Action) -> Option<Duration> {
    match action {
        Action::CreateMachine { .. }
        | Action::RemoveMachine { .. }
        | Action::PullImage { .. }
        | Action::BuildImage { .. }
        | Action::WaitReplica { .. }
        | Action::StopReplica { .. } => None,
        Action::Drain { within, .. } => Some(LONGEST + *within),
        _ => Some(LONGEST),
    }
}

#[async_trait]
impl Executor for EngineExecutor {
    async fn execute(&self, action: &Action) -> Done {
        let Some(within) = limit(action) else {
            return self.carry_out(action).await;
        };
        let done = tokio::time::timeout(within, self.carry_out(action)).await;
        done.unwrap_or_else(|_| {
            Err(ActionError::TimedOut {
                what: action.to_string(),
                within,
                log: String::new(),
            })
        })
    }
}

impl EngineExecutor {
    async fn carry_out(&self, action: &Action) -> Done {
        match action {
            Action::CreateMachine { machine, slot } => self.create_machine(machine, slot).await,
            Action::PullImage { machine, image } => self.pull(machine, image).await,
            Action::BuildImage {
                machine,
                service,
                image,
            } => self.build(machine, service, image).await,
            Action::CreateNetwork {
                machine,
                network,
                key,
            } => self.create_network(machine, network, key).await,
            Action::CreateVolume {
                machine,
                volume,
                key,
            } => self.create_volume(machine, volume, key).await,
            Action::StartIngress {
                machine,
                image,
                listen,
                ..
            } => self.start_ingress(machine, image, listen).await,
            Action::RemoveIngress { machine } => {
                let name = ingress::container_name(&self.project.name);
                let client = self.client(machine).await?;
                gone_is_fine(client.stop_container(&name, None).await).map_err(on(machine))?;
                self.remove_container(machine, &name, Volumes::Keep).await
            }
            Action::CreateReplica {
                replica,
                container,
                release,
                ..
            } => {
                let container = container
                    .as_ref()
                    .ok_or(ActionError::NotKnown("the image"))?;
                self.create_replica(replica, container, release).await
            }
            Action::StartReplica { replica } => {
                let client = self.client(&replica.machine).await?;
                client
                    .start_container(&replica.container)
                    .await
                    .map_err(on(&replica.machine))
            }
            Action::WaitReplica {
                replica,
                until,
                within,
            } => {
                let client = self.client(&replica.machine).await?;
                wait_replica(&client, replica, *until, *within).await
            }
            Action::PublishRoutes {
                machine,
                generation,
                routes,
            } => self.publish(machine, *generation, routes).await,
            Action::Drain {
                address,
                ingresses,
                within,
                ..
            } => self.drain(*address, ingresses, *within).await,
            Action::StopReplica { replica } => {
                let client = self.client(&replica.machine).await?;
                gone_is_fine(client.stop_container(&replica.container, None).await)
                    .map_err(on(&replica.machine))
            }
            Action::CheckReplicas { replicas } => self.check(replicas).await,
            Action::RemoveReplica {
                replica,
                anonymous_volumes,
            } => {
                self.remove_container(&replica.machine, &replica.container, *anonymous_volumes)
                    .await
            }
            Action::RemoveNetwork { machine, network } => {
                let client = self.client(machine).await?;
                gone_is_fine(client.remove_network(network).await).map_err(on(machine))
            }
            Action::RemoveVolume { machine, volume } => {
                let client = self.client(machine).await?;
                gone_is_fine(client.remove_volume(volume).await).map_err(on(machine))
            }
            Action::RemoveMachine { machine } => {
                self.hosts.remove(machine).await.map_err(host(machine))
            }
        }
    }
}
