//! The actions: each is one idempotent effect on one machine, with everything decided.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use windlass_machine::{MachineName, Slot};

use super::Volumes;
use crate::spec::ContainerSpec;

/// One container of a service, there or still to come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ReplicaRef {
    /// The service.
    pub service: String,
    /// From 1.
    pub number: u32,
    /// Where.
    pub machine: MachineName,
    /// The container's name, by which it is found.
    pub container: String,
}

impl fmt::Display for ReplicaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} on {}", self.service, self.number, self.machine)
    }
}

/// What a replica must have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Its check says that it is well; without a check it has run for a while.
    Well,
    /// It has ended with 0.
    Completed,
}

/// A route with replicas for upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteIntent {
    /// The service.
    pub service: String,
    /// Host name; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path prefix.
    pub path: String,
    /// What the proxy probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
    /// Port in the container.
    pub port: u16,
    /// The replicas that get requests.
    #[serde(serialize_with = "shared")]
    pub upstreams: Vec<Arc<UpstreamIntent>>,
}

/// One upstream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UpstreamIntent {
    /// Which replica.
    pub replica: ReplicaRef,
    /// The machine's address that its port is published on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Where it listens, if it is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

/// A rollout over many machines names each replica in many steps.
fn shared<T: Serialize, S: Serializer>(list: &[Arc<T>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(Arc::as_ref))
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Action {
    /// Makes a machine of a fleet, or goes on with it.
    CreateMachine { machine: MachineName, slot: Slot },
    /// Gets an image onto a machine.
    PullImage { machine: MachineName, image: String },
    /// Builds a service's image on a machine.
    BuildImage {
        machine: MachineName,
        service: String,
        image: String,
    },
    /// Makes a network; `network` is its name on the engine, `key` the one in the file.
    CreateNetwork {
        machine: MachineName,
        network: String,
        key: String,
    },
    /// Makes a volume; `volume` is its name on the engine, `key` the one in the file.
    CreateVolume {
        machine: MachineName,
        volume: String,
        key: String,
    },
    /// Loads the proxy's image, makes and starts its container and waits until it answers.
    StartIngress {
        machine: MachineName,
        image: String,
        listen: Vec<u16>,
        spec: String,
    },
    /// Removes the proxy's container.
    RemoveIngress { machine: MachineName },
    /// Makes a container.
    CreateReplica {
        replica: ReplicaRef,
        image: String,
        /// Empty in a plan that is made before the image is there.
        spec: String,
        /// Not written out: it holds the environment.
        #[serde(skip)]
        container: Option<Arc<ContainerSpec>>,
        release: String,
    },
    /// Starts it.
    StartReplica { replica: ReplicaRef },
    /// Waits until it is well; fails with its last words if it does not get so.
    WaitReplica {
        replica: ReplicaRef,
        until: Until,
        within: Duration,
    },
    /// Brings a table in force on one proxy.
    PublishRoutes {
        machine: MachineName,
        generation: u64,
        routes: Vec<RouteIntent>,
    },
    /// Waits until no proxy has a request in progress at the replica, or the time is over.
    Drain {
        replica: ReplicaRef,
        address: SocketAddr,
        /// Each with the table that it must have in force.
        ingresses: BTreeMap<MachineName, u64>,
        within: Duration,
    },
    /// Asks it to end, and kills it after its grace period.
    StopReplica { replica: ReplicaRef },
    /// Makes sure that these are still well before another one of the service is stopped.
    CheckReplicas {
        #[serde(serialize_with = "shared")]
        replicas: Vec<Arc<ReplicaRef>>,
    },
    /// Removes the stopped container, and its anonymous volumes if so asked.
    RemoveReplica {
        replica: ReplicaRef,
        anonymous_volumes: Volumes,
    },
    /// Removes a network of the project.
    RemoveNetwork {
        machine: MachineName,
        network: String,
    },
    /// Removes a volume of the project with its data.
    RemoveVolume {
        machine: MachineName,
        volume: String,
    },
    /// Destroys a machine of the project.
    RemoveMachine { machine: MachineName },
}

impl Action {
    /// Where it happens; `None`: in several places.
    pub fn machine(&self) -> Option<&MachineName> {
        Some(match self {
            Self::CheckReplicas { .. } => return None,
            Self::CreateMachine { machine, .. }
            | Self::PullImage { machine, .. }
            | Self::BuildImage { machine, .. }
            | Self::CreateNetwork { machine, .. }
            | Self::CreateVolume { machine, .. }
            | Self::StartIngress { machine, .. }
            | Self::RemoveIngress { machine }
            | Self::PublishRoutes { machine, .. }
            | Self::RemoveNetwork { machine, .. }
            | Self::RemoveVolume { machine, .. }
            | Self::RemoveMachine { machine } => machine,
            Self::CreateReplica { replica, .. }
            | Self::StartReplica { replica }
            | Self::WaitReplica { replica, .. }
            | Self::Drain { replica, .. }
            | Self::StopReplica { replica }
            | Self::RemoveReplica { replica, .. } => &replica.machine,
        })
    }

    /// Makes what later steps are decided by: machines and images. Applied first, then everything is looked at again.
    pub fn is_preparation(&self) -> bool {
        matches!(
            self,
            Self::CreateMachine { .. } | Self::PullImage { .. } | Self::BuildImage { .. }
        )
    }

    /// Is the same whatever the preparations bring, so that it need not wait for them.
    pub fn is_independent(&self) -> bool {
        matches!(self, Self::CreateNetwork { .. } | Self::CreateVolume { .. })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMachine { machine, slot } => {
                write!(f, "create machine {machine} (fleet {})", slot.fleet)
            }
            Self::PullImage { machine, image } => write!(f, "pull {image} on {machine}"),
            Self::BuildImage { machine, image, .. } => write!(f, "build {image} on {machine}"),
            Self::CreateNetwork {
                machine, network, ..
            } => write!(f, "create network {network} on {machine}"),
            Self::CreateVolume {
                machine, volume, ..
            } => write!(f, "create volume {volume} on {machine}"),
            Self::StartIngress {
                machine, listen, ..
            } => {
                let ports: Vec<String> = listen.iter().map(u16::to_string).collect();
                write!(
                    f,
                    "start the ingress on {machine}, port {}",
                    ports.join(", ")
                )
            }
            Self::RemoveIngress { machine } => write!(f, "remove the ingress on {machine}"),
            Self::CreateReplica { replica, image, .. } => {
                write!(f, "create {replica} from {image}")
            }
            Self::StartReplica { replica } => write!(f, "start {replica}"),
            Self::WaitReplica { replica, until, .. } => match until {
                Until::Well => write!(f, "wait until {replica} is well"),
                Until::Completed => write!(f, "wait until {replica} has completed"),
            },
            Self::PublishRoutes {
                machine,
                generation,
                routes,
            } => {
                let count: usize = routes.iter().map(|r| r.upstreams.len()).sum();
                write!(
                    f,
                    "publish routes {generation} to {count} replicas on the ingress of {machine}"
                )
            }
            Self::Drain { replica, .. } => write!(f, "drain {replica}"),
            Self::StopReplica { replica } => write!(f, "stop {replica}"),
            Self::CheckReplicas { replicas } => match replicas.first() {
                Some(first) => write!(
                    f,
                    "check that {} of {} are well",
                    replicas.len(),
                    first.service
                ),
                None => f.write_str("check nothing"),
            },
            Self::RemoveReplica { replica, .. } => write!(f, "remove {replica}"),
            Self::RemoveNetwork { machine, network } => {
                write!(f, "remove network {network} on {machine}")
            }
            Self::RemoveVolume { machine, volume } => {
                write!(f, "remove volume {volume} with its data on {machine}")
            }
            Self::RemoveMachine { machine } => write!(f, "remove machine {machine}"),
        }
    }
}
