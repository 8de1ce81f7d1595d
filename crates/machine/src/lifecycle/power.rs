//! Power: start, stop, restart, kill of a finished machine, and a look at what the provider says of it.

use windlass_provider::{ErrorKind, Power, PowerState, Provider, ProviderError};

use super::{Lifecycle, LifecycleError, Result, create::failed};
use crate::{Machine, MachineName, State, Step};

/// What to do with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// Switch on.
    Start,
    /// Shut down in order.
    Stop,
    /// Shut down and switch on.
    Restart,
    /// Cut it.
    Kill,
}

impl PowerAction {
    fn step(self) -> Step {
        match self {
            Self::Start | Self::Restart => Step::Start,
            Self::Stop => Step::Stop,
            Self::Kill => Step::Kill,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }

    async fn act(self, power: &dyn Power, id: &str) -> Result<(), ProviderError> {
        match self {
            Self::Start => power.start(id).await,
            Self::Stop => power.stop(id).await,
            Self::Restart => power.restart(id).await,
            Self::Kill => power.kill(id).await,
        }
    }
}

impl Lifecycle {
    /// Switches a machine; after a start it returns when SSH answers again.
    pub async fn power(
        &self,
        provider: &dyn Provider,
        name: &MachineName,
        action: PowerAction,
    ) -> Result<Machine> {
        let _lock = self.lock(name).await?;
        let mut machine = self.existing(name).await?;
        if self.store.intent(name).await?.is_some() {
            return Err(LifecycleError::Unfinished {
                machine: name.clone(),
            });
        }
        let Some(power) = provider.power() else {
            let message = format!(
                "driver `{}` has no power switch: it cannot {} a host",
                provider.name(),
                action.word()
            );
            let source = ProviderError::new(ErrorKind::Unsupported, message)
                .with_hint("use your hosting provider's console, or `windlass ssh` to log in and shut it down there");
            return Err(failed(name, action.step(), source));
        };
        machine.state = match action {
            PowerAction::Start | PowerAction::Restart => State::Starting,
            PowerAction::Stop | PowerAction::Kill => State::Stopping,
        };
        // Others may note a new address meanwhile.
        let state = machine.state;
        machine = self.amend(name, |m| m.state = state.clone()).await?;
        let done = self.switch(provider, power, &mut machine, action).await;
        if let Err(error) = &done {
            self.note_failure(name, error).await;
        }
        done.map(|()| machine)
    }

    async fn switch(
        &self,
        provider: &dyn Provider,
        power: &dyn Power,
        machine: &mut Machine,
        action: PowerAction,
    ) -> Result<()> {
        let name = machine.name.clone();
        let id = machine.instance_id.clone().unwrap_or_default();
        let acted = self.step(&name, action.step(), async {
            action
                .act(power, &id)
                .await
                .map_err(|source| failed(&name, action.step(), source))
        });
        acted.await?;
        if matches!(action, PowerAction::Stop | PowerAction::Kill) {
            *machine = self.amend(&name, |m| m.state = State::Stopped).await?;
            return Ok(());
        }
        let instance = self
            .step(&name, Step::Boot, self.boot(provider, machine))
            .await?;
        machine.observe(&instance);
        self.step(&name, Step::Connect, self.connect(machine))
            .await?;
        let ready = |m: &mut Machine| {
            m.observe(&instance);
            m.state = State::Ready;
        };
        *machine = self.amend(&name, ready).await?;
        Ok(())
    }

    /// Asks the provider about a machine and notes new addresses. `None`: the provider has no such instance.
    pub async fn look(
        &self,
        provider: &dyn Provider,
        name: &MachineName,
    ) -> Result<(Machine, Option<PowerState>)> {
        let machine = self.existing(name).await?;
        let Some(id) = machine.instance_id.clone() else {
            return Ok((machine, None));
        };
        let instance = match provider.get(&id).await {
            Ok(instance) => instance,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok((machine, None)),
            Err(source) => return Err(failed(name, Step::Boot, source)),
        };
        let mut seen = machine.clone();
        seen.observe(&instance);
        if seen != machine {
            seen = self
                .amend(name, |machine| machine.observe(&instance))
                .await?;
        }
        Ok((seen, Some(instance.state)))
    }
}
