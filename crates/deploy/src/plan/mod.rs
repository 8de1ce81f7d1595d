//! The plan: a pure function from what is declared and what is observed to ordered actions.
//!
//! Deliberately absent: clocks, names made up by chance, anything that asks somebody.

mod action;
mod builder;
mod eligible;
mod fleets;
mod order;
mod placement;
mod ports;
mod proxies;
mod retire;
mod rollout;
mod routes;
mod teardown;
mod up;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use windlass_compose::model::Project;
use windlass_machine::MachineName;

pub use action::{Action, ReplicaRef, RouteIntent, Until, UpstreamIntent};
pub(crate) use routes::{upstream_id, wire_route};
pub use teardown::plan_down;
pub use up::plan;

/// What planning needs besides the declaration and the observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Machines of each fleet, where the autoscaler has decided; brought between the fleet's `min` and `max`. Others: `min`.
    pub scale: BTreeMap<String, u32>,
    /// Service → reference of the image that is built for it.
    pub builds: BTreeMap<String, String>,
    /// Architecture → image of the proxy.
    pub ingress_images: BTreeMap<String, String>,
    /// Images are pulled even where they are there.
    pub pull_always: bool,
    /// What was applied last: it tells where proxies may be that nobody can ask.
    pub formerly: Option<Project>,
    /// Label of new containers: which version of the project they belong to.
    pub release: String,
}

/// What becomes of volumes when a project goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Volumes {
    /// They stay.
    #[default]
    Keep,
    /// They go, with their data.
    Remove,
}

/// One action, and what must be done before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// Places in the plan, all before this one.
    pub after: Vec<usize>,
}

/// Something that the plan leaves as it is, though it is not as declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Note {
    /// A machine that the project uses cannot be reached.
    Unreachable {
        machine: MachineName,
        reason: String,
    },
    /// A machine that the project need not use cannot be reached; nothing is known of it.
    Unseen {
        machine: MachineName,
        reason: String,
    },
    /// A machine is not removed, because of the data on it.
    Kept {
        machine: MachineName,
        volumes: Vec<String>,
    },
    /// Replicas are not replaced or removed.
    HeldBack { service: String, reason: String },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { machine, reason } => {
                write!(
                    f,
                    "machine {machine} cannot be reached and is left as it is: {reason}"
                )
            }
            Self::Unseen { machine, reason } => {
                write!(f, "machine {machine} is not looked into: {reason}")
            }
            Self::Kept { machine, volumes } => write!(
                f,
                "machine {machine} is kept, because it holds {}; `down -v` removes both",
                volumes.join(", ")
            ),
            Self::HeldBack { service, reason } => {
                write!(f, "no replica of {service} is stopped: {reason}")
            }
        }
    }
}

/// Ordered actions that lead from observed to declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In an order in which they can be done one after the other.
    pub steps: Vec<Step>,
    /// What is left as it is.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Only what must be done before the rest can be decided, machines and images, with the networks and volumes that can be made
    /// beside them; everything, when there is no such step.
    pub fn decided(&self) -> Plan {
        if !self.steps.iter().any(|s| s.action.is_preparation()) {
            return self.clone();
        }
        let mut places = BTreeMap::new();
        let mut steps = Vec::new();
        for (place, step) in self.steps.iter().enumerate() {
            if !step.action.is_preparation() && !step.action.is_independent() {
                continue;
            }
            // A step on a machine that is still to come waits for the next look.
            let after: Option<Vec<usize>> =
                step.after.iter().map(|a| places.get(a).copied()).collect();
            if let Some(after) = after {
                places.insert(place, steps.len());
                steps.push(Step {
                    action: step.action.clone(),
                    after,
                });
            }
        }
        Plan {
            steps,
            notes: self.notes.clone(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{}", step.action)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_made_beside_the_images() {
        let machine: windlass_machine::MachineName = "a".parse().unwrap();
        let step = |action, after: &[usize]| Step {
            action,
            after: after.to_vec(),
        };
        let pull = Action::PullImage {
            machine: machine.clone(),
            image: "httpd".to_owned(),
        };
        let network = Action::CreateNetwork {
            machine: machine.clone(),
            network: "p_default".to_owned(),
            key: "default".to_owned(),
        };
        let other = Action::RemoveIngress { machine };
        let plan = Plan {
            steps: vec![
                step(pull, &[]),
                step(other.clone(), &[0]),
                step(network, &[]),
                step(other, &[1, 2]),
            ],
            notes: Vec::new(),
        };
        let decided = plan.decided();
        let rest: Vec<_> = [0, 2].map(|i| plan.steps[i].clone()).into();
        assert_eq!(decided.steps, rest);
        let without_images = Plan {
            steps: plan.steps[2..3].to_vec(),
            notes: Vec::new(),
        };
        assert_eq!(without_images.decided(), without_images);
    }
}
