//! Why a lifecycle step failed, always with the machine and the step.

use windlass_provider::ProviderError;

use super::Point;
use crate::{AccessError, MachineName, Step, StoreError};

/// Why a machine could not be made, switched or removed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider failed.
    #[error("machine `{machine}`: cannot {step}")]
    Provider {
        /// Which machine.
        machine: MachineName,
        /// Which step.
        step: Step,
        /// The provider's words.
        #[source]
        source: ProviderError,
    },
    /// The provider does not tell what it has.
    #[error("cannot list the instances of driver `{driver}`")]
    Listing {
        /// Which driver.
        driver: String,
        /// The provider's words.
        #[source]
        source: ProviderError,
    },
    /// Something on the host failed.
    #[error("machine `{machine}`: cannot {step}")]
    Access {
        /// Which machine.
        machine: MachineName,
        /// Which step.
        step: Step,
        /// What went wrong there.
        #[source]
        source: AccessError,
    },
    /// The provider did not get the host up in time.
    #[error("machine `{machine}` has no address after {seconds} seconds ({last})")]
    NotUp {
        /// Which machine.
        machine: MachineName,
        /// How long was waited.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
    /// The provider says that the host has failed.
    #[error("machine `{machine}`: the provider reports that the instance has failed")]
    InstanceFailed {
        /// Which machine.
        machine: MachineName,
    },
    /// A machine of that name belongs to another driver.
    #[error("machine `{machine}` was begun with driver `{begun}`, not `{given}`")]
    OtherDriver {
        /// Which machine.
        machine: MachineName,
        /// The driver in the record.
        begun: String,
        /// The driver given.
        given: String,
    },
    /// Its removal has begun and must be finished first.
    #[error("machine `{machine}` is being removed")]
    BeingRemoved {
        /// Which machine.
        machine: MachineName,
    },
    /// Its creation has begun and must be finished first.
    #[error("machine `{machine}` is not finished")]
    Unfinished {
        /// Which machine.
        machine: MachineName,
    },
    /// It is switched off.
    #[error("machine `{machine}` is stopped")]
    Off {
        /// Which machine.
        machine: MachineName,
    },
    /// Its engine was there before.
    #[error(
        "machine `{machine}` runs an engine that windlass did not install, and that it does not upgrade"
    )]
    NotOurs {
        /// Which machine.
        machine: MachineName,
    },
    /// A crash made by a test.
    #[error("crashed at {0:?}")]
    Crashed(Point),
}

impl LifecycleError {
    /// What to do about it, if known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(StoreError::Exists(name)) => Some(format!(
                "choose another name, or remove it with `windlass rm {name}`"
            )),
            Self::Store(StoreError::NotFound(_)) => {
                Some("`windlass ls` lists the machines".to_owned())
            }
            Self::Store(StoreError::Locked { .. }) => {
                Some("wait until it has finished, then try again".to_owned())
            }
            Self::Provider { source, .. } => source.hint.clone(),
            Self::Access { source, .. } => source.hint.clone(),
            Self::OtherDriver { machine, .. } => {
                Some(format!("remove it first with `windlass rm {machine}`"))
            }
            Self::BeingRemoved { machine } => {
                Some(format!("finish that with `windlass rm {machine}`"))
            }
            Self::Unfinished { machine } => Some(format!(
                "give the same `windlass create` again to finish it, or `windlass rm {machine}` to undo it"
            )),
            Self::Off { machine } => Some(format!("start it with `windlass start {machine}`")),
            Self::NotUp { machine, .. } | Self::InstanceFailed { machine } => Some(format!(
                "try again later, or give it up with `windlass rm {machine}`"
            )),
            _ => None,
        }
    }
}
