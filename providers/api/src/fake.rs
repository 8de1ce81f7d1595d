//! An in-memory cloud for tests: virtual latency, and faults injected call by call.
//!
//! Clones share the cloud, so that a test can drop the client as a crash would and come back with another.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    CreateRequest, ErrorKind, Instance, Power, PowerState, Provider, ProviderError, Result,
};

/// What goes wrong in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails, and nothing has happened.
    Before(ErrorKind),
    /// It happens, and the answer is an error nevertheless.
    After(ErrorKind),
    /// It happens, and the answer never arrives.
    LostReply,
    /// The next call succeeds only after this long.
    Throttled(Duration),
    /// No capacity, or the quota is used up.
    Quota,
}

/// Which call a fault is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Provider::create`].
    Create,
    /// [`Provider::get`].
    Get,
    /// [`Provider::list`].
    List,
    /// [`Provider::delete`].
    Delete,
    /// Any of [`Power`].
    Power,
}

/// How long things take, in tokio's time (which tests pause).
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Each call.
    pub call: Duration,
    /// From create or start to running with an address.
    pub boot: Duration,
}

/// The in-memory cloud.
#[derive(Clone, Default)]
pub struct Fake {
    cloud: Arc<Mutex<Cloud>>,
}

#[derive(Default)]
struct Cloud {
    instances: Vec<Machine>,
    faults: VecDeque<(Call, Fault)>,
    calls: Vec<Call>,
    latency: Latency,
    limit: Option<usize>,
    next: u64,
}

struct Machine {
    instance: Instance,
    running_at: tokio::time::Instant,
}

impl Fake {
    /// An empty cloud that answers at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Injects `fault` into the next `call` that has none yet; faults queue up.
    pub fn inject(&self, call: Call, fault: Fault) {
        self.cloud().faults.push_back((call, fault));
    }

    /// Forgets the faults that have not struck yet.
    pub fn calm(&self) {
        self.cloud().faults.clear();
    }

    /// Sets how long things take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.cloud().latency = latency;
    }

    /// At most this many instances from now on; more is a quota error.
    pub fn set_limit(&self, limit: usize) {
        self.cloud().limit = Some(limit);
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.cloud().calls.clone()
    }

    /// What really exists, whatever `list` would answer.
    pub fn instances(&self) -> Vec<Instance> {
        self.cloud()
            .instances
            .iter()
            .map(|machine| machine.instance.clone())
            .collect()
    }

    /// Adds a second instance with the token of `first`, as a cloud has it that does not notice at once that a create is repeated.
    pub fn repeat(&self, first: &Instance) {
        let mut cloud = self.cloud();
        cloud.next += 1;
        let id = format!("fake-{}", cloud.next);
        let instance = Instance {
            id,
            ..first.clone()
        };
        let running_at = tokio::time::Instant::now();
        cloud.instances.push(Machine {
            instance,
            running_at,
        });
    }

    fn cloud(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: latency, the fault in store for it, and the effect unless the fault came before it.
    async fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut Cloud) -> Result<T> + Send,
    ) -> Result<T> {
        let (latency, fault) = {
            let mut cloud = self.cloud();
            cloud.calls.push(call);
            let at = cloud.faults.iter().position(|(meant, _)| *meant == call);
            (
                cloud.latency.call,
                at.and_then(|at| cloud.faults.remove(at))
                    .map(|(_, fault)| fault),
            )
        };
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        match fault {
            Some(Fault::Before(kind)) => {
                return Err(ProviderError::new(
                    kind,
                    "injected failure before the effect",
                ));
            }
            Some(Fault::Throttled(wait)) => {
                return Err(ProviderError::new(
                    ErrorKind::Throttled(wait),
                    "injected throttling",
                ));
            }
            Some(Fault::Quota) => {
                return Err(ProviderError::new(
                    ErrorKind::Quota,
                    "injected lack of capacity",
                ));
            }
            _ => {}
        }
        let done = effect(&mut self.cloud());
        match fault {
            Some(Fault::After(kind)) => Err(ProviderError::new(
                kind,
                "injected failure after the effect",
            )),
            Some(Fault::LostReply) => Err(ProviderError::new(
                ErrorKind::Other,
                "injected loss of the reply",
            )),
            _ => done,
        }
    }

    async fn switch(&self, id: &str, to: PowerState) -> Result<()> {
        self.call(Call::Power, |cloud| {
            let boot = cloud.latency.boot;
            let machine = cloud.find(id)?;
            machine.instance.state = to;
            machine.running_at = tokio::time::Instant::now();
            if to == PowerState::Running {
                machine.running_at += boot;
            }
            Ok(())
        })
        .await
    }
}

impl Cloud {
    fn find(&mut self, id: &str) -> Result<&mut Machine> {
        self.instances
            .iter_mut()
            .find(|machine| machine.instance.id == id)
            .ok_or_else(|| ProviderError::new(ErrorKind::NotFound, format!("no instance `{id}`")))
    }

    fn create(&mut self, request: &CreateRequest) -> Result<Instance> {
        if let Some(made) = self
            .instances
            .iter()
            .find(|machine| machine.instance.token == request.token)
        {
            return Ok(made.view());
        }
        if self
            .limit
            .is_some_and(|limit| self.instances.len() >= limit)
        {
            return Err(ProviderError::new(
                ErrorKind::Quota,
                "the quota of instances is used up",
            ));
        }
        self.next += 1;
        let number = self.next;
        let machine = Machine {
            instance: Instance {
                id: format!("fake-{number}"),
                name: request.name.clone(),
                token: request.token.clone(),
                state: PowerState::Running,
                address: Some(format!("198.51.{}.{}", number / 250, number % 250 + 1)),
                private_address: Some(format!("10.99.{}.{}", number / 250, number % 250 + 1)),
                ssh_port: 22,
                ssh_user: "root".to_owned(),
            },
            running_at: tokio::time::Instant::now() + self.latency.boot,
        };
        let view = machine.view();
        self.instances.push(machine);
        Ok(view)
    }
}

impl Machine {
    /// The instance as the cloud shows it now: without an address until it has booted.
    fn view(&self) -> Instance {
        let mut instance = self.instance.clone();
        if instance.state == PowerState::Running && tokio::time::Instant::now() < self.running_at {
            instance.state = PowerState::Starting;
            instance.address = None;
            instance.private_address = None;
        }
        instance
    }
}

#[async_trait]
impl Provider for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn create(&self, request: &CreateRequest) -> Result<Instance> {
        self.call(Call::Create, |cloud| cloud.create(request)).await
    }

    async fn get(&self, id: &str) -> Result<Instance> {
        self.call(Call::Get, |cloud| {
            cloud.find(id).map(|machine| machine.view())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        self.call(Call::List, |cloud| {
            Ok(cloud.instances.iter().map(Machine::view).collect())
        })
        .await
    }

    async fn delete(&self, id: &str) -> Result<()> {
        self.call(Call::Delete, |cloud| {
            cloud.instances.retain(|machine| machine.instance.id != id);
            Ok(())
        })
        .await
    }

    fn power(&self) -> Option<&dyn Power> {
        Some(self)
    }
}

#[async_trait]
impl Power for Fake {
    async fn start(&self, id: &str) -> Result<()> {
        self.switch(id, PowerState::Running).await
    }

    async fn stop(&self, id: &str) -> Result<()> {
        self.switch(id, PowerState::Stopped).await
    }

    async fn restart(&self, id: &str) -> Result<()> {
        self.switch(id, PowerState::Running).await
    }

    async fn kill(&self, id: &str) -> Result<()> {
        self.switch(id, PowerState::Stopped).await
    }
}
