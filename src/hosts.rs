//! What deploying needs of machines, over the lifecycle and the SSH sessions.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_compose::model::Fleet;
use windlass_deploy::{BoxError, Host, Hosts};
use windlass_engine_api::Dial;
use windlass_machine::{
    AccessError, CreateSpec, Intent, IntentKind, Machine, MachineName, Remove, Slot, State,
};
use windlass_provider::{Provider, fill_from_environment, resolve, storable};

use crate::access::ssh_error;
use crate::environment;
use crate::error::{CommandError, Result};
use crate::registry;
use crate::world::World;

/// The machines of the store.
pub struct StoreHosts {
    /// What it works with.
    pub world: World,
}

/// The provider of a fleet, and its options as they may be stored.
pub fn provider_of_fleet(
    world: &World,
    name: &str,
    fleet: &Fleet,
) -> Result<(Box<dyn Provider>, windlass_provider::OptionValues)> {
    let Some(driver) = &fleet.provider else {
        return Err(CommandError::input(format!(
            "fleet `{name}` does not say what makes its machines"
        ))
        .hint("write `provider: <driver>` under it, or give `--driver`"));
    };
    let made = || -> Result<_> {
        let driver = registry::driver(driver)?;
        let mut given = fleet.options.clone();
        fill_from_environment(driver.options, &mut given, environment::variable);
        let provider = driver.build(&given, &world.context())?;
        let resolved = resolve(driver.name, driver.options, &given)?;
        Ok((provider, storable(driver.options, &resolved)))
    };
    made().map_err(|error| error.within(&format!("fleet `{name}`")))
}

fn host(machine: &Machine, intents: &[Intent]) -> Host {
    let unfinished = intents.iter().any(|intent| intent.machine == machine.name);
    Host {
        name: machine.name.clone(),
        slot: machine.slot.clone(),
        project: machine.project.clone(),
        labels: machine.labels.clone(),
        address: machine.address.clone(),
        private_address: machine.private_address.clone(),
        ready: machine.engine.is_some()
            && !unfinished
            && !matches!(machine.state, State::Stopped | State::Stopping),
        unfinished,
    }
}

impl StoreHosts {
    async fn existing(&self, name: &MachineName) -> Result<Machine, BoxError> {
        let found = self.world.store.machine(name).await?;
        found.ok_or_else(|| format!("there is no machine `{name}`").into())
    }

    async fn make(
        &self,
        project: &str,
        fleet: &Fleet,
        name: &MachineName,
        slot: &Slot,
    ) -> Result<Machine> {
        let (provider, options) = provider_of_fleet(&self.world, &slot.fleet, fleet)?;
        let intent = self.world.store.intent(name).await?;
        let deleting = intent
            .as_ref()
            .is_some_and(|i| i.kind == IntentKind::Delete);
        if deleting {
            self.destroy(name).await?;
        } else if intent.is_none()
            && let Some(machine) = self.world.store.machine(name).await?
        {
            return Ok(machine);
        }
        let mut spec = CreateSpec::new(name.clone(), options);
        spec.slot = Some(slot.clone());
        spec.project = Some(project.to_owned());
        spec.labels = fleet.labels.clone();
        Ok(self.world.lifecycle.create(provider.as_ref(), spec).await?)
    }

    async fn destroy(&self, name: &MachineName) -> Result<()> {
        let Some(machine) = self.world.store.machine(name).await? else {
            return Ok(());
        };
        let provider = self.world.provider_of(&machine)?;
        let removed = self
            .world
            .lifecycle
            .remove(provider.as_ref(), name, Remove::Host);
        Ok(removed.await?)
    }
}

#[async_trait]
impl Hosts for StoreHosts {
    async fn list(&self) -> Result<Vec<Host>, BoxError> {
        // The intents first: a create that ends in between is then seen as unfinished, and looked at again in the next round.
        let intents = self.world.store.intents().await?;
        let machines = self.world.store.machines().await?;
        Ok(machines
            .iter()
            .map(|machine| host(machine, &intents))
            .collect())
    }

    async fn create(
        &self,
        project: &str,
        fleet: &Fleet,
        name: &MachineName,
        slot: &Slot,
    ) -> Result<Host, BoxError> {
        let machine = self.make(project, fleet, name, slot).await;
        Ok(host(&machine.map_err(CommandError::into_box)?, &[]))
    }

    async fn remove(&self, name: &MachineName) -> Result<(), BoxError> {
        self.destroy(name).await.map_err(CommandError::into_box)
    }

    async fn engine(&self, name: &MachineName) -> Result<Arc<dyn Dial>, BoxError> {
        let machine = self.existing(name).await?;
        let dial = self.world.sessions.engine(&machine).await;
        dial.map_err(|error| Box::new(ssh_error(error)) as BoxError)
    }

    async fn socket(&self, name: &MachineName, path: &str) -> Result<Arc<dyn Dial>, BoxError> {
        let machine = self.existing(name).await?;
        let dial = self.world.sessions.socket(&machine, path).await;
        dial.map_err(|error| Box::new(ssh_error(error)) as BoxError)
    }

    async fn ingress_binary(&self, architecture: &str) -> Result<Vec<u8>, BoxError> {
        let architecture = match architecture {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let Some(folder) = &self.world.binaries else {
            return Err(Box::new(no_binaries()));
        };
        Ok(windlass_install::Binaries::new(folder)
            .read(architecture, "windlass-ingress")
            .await?)
    }
}

/// The error where nothing to install was found.
pub fn no_binaries() -> AccessError {
    AccessError {
        hint: Some(
            "set WINDLASS_BINARIES to the folder that has <arch>/windlassd.gz, or build them with `cargo xtask binaries`"
                .to_owned(),
        ),
        ..AccessError::new("the binaries for hosts are not found beside this program")
    }
}
