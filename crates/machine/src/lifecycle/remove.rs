//! Remove: intent → provider → keys → record. The record goes last, so that a failed delete loses nothing.

use windlass_provider::{Ownership, Provider};

use super::{Lifecycle, LifecycleError, Point, Result, create::failed, retry};
use crate::{Intent, IntentKind, IntentStep, Machine, MachineName, State, Step, StoreError, Write};

/// How much of a machine is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remove {
    /// The host, then what is known of it. A failing delete keeps the record.
    Host,
    /// What is known of it, even when the host cannot be deleted: it is then the user's to look after.
    Record,
}

impl Lifecycle {
    /// Removes a machine, or finishes a removal that was interrupted.
    pub async fn remove(
        &self,
        provider: &dyn Provider,
        name: &MachineName,
        what: Remove,
    ) -> Result<()> {
        let _lock = self.lock(name).await?;
        self.reach(Point::Start)?;
        let mut machine = self.existing(name).await?;
        if machine.driver != provider.name() {
            let (begun, given) = (machine.driver, provider.name().to_owned());
            return Err(LifecycleError::OtherDriver {
                machine: machine.name,
                begun,
                given,
            });
        }
        machine.state = State::Deleting;
        let intent = Intent {
            token: format!("{}-delete", machine.token),
            machine: name.clone(),
            kind: IntentKind::Delete,
            step: IntentStep::Begun,
            started_at: self.ambience.now(),
        };
        self.write(&mut machine, vec![Write::Put(intent)]).await?;
        self.reach(Point::Intended)?;
        let deleted = self
            .step(name, Step::Delete, self.delete_host(provider, &machine))
            .await;
        match deleted {
            Err(error) if what == Remove::Host || matches!(error, LifecycleError::Crashed(_)) => {
                self.note_failure(name, &error).await;
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(machine = %name, %error, "the host is not deleted; forgetting it all the same")
            }
            Ok(()) => {}
        }
        self.reach(Point::Deleted)?;
        self.erase(&machine).await
    }

    async fn erase(&self, machine: &Machine) -> Result<()> {
        let name = machine.name.clone();
        if let Err(source) = self.access.forget(&name).await {
            let error = LifecycleError::Access {
                machine: name.clone(),
                step: Step::Delete,
                source,
            };
            self.note_failure(&name, &error).await;
            return Err(error);
        }
        self.reach(Point::Forgotten)?;
        loop {
            // The lock is ours, but a reader may have noted a new address meanwhile.
            let Some(current) = self.store.machine(&name).await? else {
                return Ok(());
            };
            let writes = vec![
                Write::Remove(name.clone(), current.generation),
                Write::EndAll(name.clone()),
            ];
            match self.store.commit(writes).await {
                Err(StoreError::Stale(_)) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Deletes the instance of the record, and any other with its token: a create that was cut off leaves one without an id here,
    /// and one that was repeated may have made two, where the provider does not keep its word on tokens at once.
    async fn delete_host(&self, provider: &dyn Provider, machine: &Machine) -> Result<()> {
        let name = &machine.name;
        let known = machine.instance_id.as_deref();
        if let Some(id) = known {
            let deleted = retry::call(&self.patience, || provider.delete(id)).await;
            deleted.map_err(|source| failed(name, Step::Delete, source))?;
        }
        if provider.ownership() != Ownership::Makes {
            return Ok(());
        }
        let list = retry::call(&self.patience, || provider.list()).await;
        let list = list.map_err(|source| failed(name, Step::Delete, source))?;
        let others = list.iter().filter(|other| other.token == machine.token);
        for other in others.filter(|other| Some(other.id.as_str()) != known) {
            let deleted = retry::call(&self.patience, || provider.delete(&other.id)).await;
            deleted.map_err(|source| failed(name, Step::Delete, source))?;
        }
        Ok(())
    }
}
