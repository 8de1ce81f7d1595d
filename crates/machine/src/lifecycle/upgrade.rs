//! Upgrade: the engine of a finished machine is replaced by the one that is installed today; its containers go on.
//!
//! Deliberately absent: how the engine gets there, and back when the new one does not answer ([`crate::HostAccess::install`]).

use windlass_provider::{PowerState, Provider};

use super::{Lifecycle, LifecycleError, Result};
use crate::{Engine, EngineKind, IntentKind, Machine, MachineName, State, Step};

/// What an upgrade has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The engine that the record had; `None` when it had none.
    pub before: Option<Engine>,
    /// The engine that answers now.
    pub after: Engine,
}

impl Upgraded {
    /// Whether it is another engine than before.
    pub fn is_another(&self) -> bool {
        self.before.as_ref() != Some(&self.after)
    }
}

impl Lifecycle {
    /// Sees to it that the machine runs today's engine. One that fails leaves the record as it was: the former engine is put back.
    pub async fn upgrade(&self, provider: &dyn Provider, name: &MachineName) -> Result<Upgraded> {
        let _lock = self.lock(name).await?;
        let machine = self.upgradable(provider, name).await?;
        let engine = self.step(name, Step::Install, async {
            let installed = self.access.install(&machine).await;
            installed.map_err(|source| LifecycleError::Access {
                machine: name.clone(),
                step: Step::Install,
                source,
            })
        });
        let engine = engine.await?;
        let note = |machine: &mut Machine| {
            machine.engine = Some(engine.clone());
            // It answers, whatever went wrong before.
            machine.state = State::Ready;
        };
        self.amend(name, note).await?;
        Ok(Upgraded {
            before: machine.engine,
            after: engine,
        })
    }

    /// The record, if there is a finished machine of that name that is on and has an engine of ours.
    async fn upgradable(&self, provider: &dyn Provider, name: &MachineName) -> Result<Machine> {
        let machine = name.clone();
        if let Some(intent) = self.store.intent(name).await? {
            return Err(match intent.kind {
                IntentKind::Create => LifecycleError::Unfinished { machine },
                IntentKind::Delete => LifecycleError::BeingRemoved { machine },
            });
        }
        let (found, power) = self.look(provider, name).await?;
        // What cannot be seen from here is as the record says.
        let is_off = match power {
            Some(PowerState::Stopped) => true,
            Some(PowerState::Running) => false,
            _ => found.state == State::Stopped,
        };
        if is_off {
            return Err(LifecycleError::Off { machine });
        }
        match &found.engine {
            Some(engine) if engine.kind == EngineKind::Adopted => {
                Err(LifecycleError::NotOurs { machine })
            }
            _ => Ok(found),
        }
    }
}
