//! Orphans: what the provider has and the store does not, and the other way round.

use windlass_provider::{Instance, Ownership, Provider};

use super::{Lifecycle, LifecycleError, Result};
use crate::{Machine, MachineName};

/// The difference between a provider and the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Instances with a tag of ours that no record knows: they cost money and do nothing.
    pub unknown: Vec<Instance>,
    /// Finished machines whose instance the provider no longer has.
    pub lost: Vec<MachineName>,
}

impl Lifecycle {
    /// Compares the provider's list with the store. Safe beside other processes: what they are making or removing right now is no orphan.
    pub async fn orphans(&self, provider: &dyn Provider) -> Result<Orphans> {
        if provider.ownership() == Ownership::Adopts {
            return Ok(Orphans::default());
        }
        let before = self.store.machines().await?;
        let list = provider.list().await;
        let driver = provider.name().to_owned();
        let list = list.map_err(|source| LifecycleError::Listing { driver, source })?;
        let after = self.store.machines().await?;
        let intents = self.store.intents().await?;
        let knows = |machines: &[Machine], instance: &Instance| {
            machines.iter().any(|machine| {
                machine.token == instance.token
                    || machine.instance_id.as_deref() == Some(instance.id.as_str())
            })
        };
        let unknown = list
            .iter()
            .filter(|instance| !knows(&before, instance) && !knows(&after, instance))
            .cloned()
            .collect();
        let lost = after
            .iter()
            .filter(|machine| {
                machine.driver == provider.name()
                    && before.iter().any(|old| old.token == machine.token)
            })
            .filter(|machine| intents.iter().all(|intent| intent.machine != machine.name))
            .filter(|machine| {
                list.iter()
                    .all(|instance| Some(&instance.id) != machine.instance_id.as_ref())
            })
            .map(|machine| machine.name.clone())
            .collect();
        Ok(Orphans { unknown, lost })
    }
}
