//! Create: intent → keys → provider → record → address → SSH → engine → ready.

use tokio::time::Instant;
use windlass_provider::{CreateRequest, ErrorKind, Instance, PowerState, Provider, ProviderError};

use super::{CreateSpec, Lifecycle, LifecycleError, Point, Result, retry};
use crate::{Intent, IntentKind, IntentStep, Machine, MachineName, State, Step, StoreError, Write};

impl Lifecycle {
    /// Makes a machine, or finishes one whose create was interrupted. A finished machine of that name is an error.
    pub async fn create(&self, provider: &dyn Provider, spec: CreateSpec) -> Result<Machine> {
        let _lock = self.lock(&spec.name).await?;
        self.reach(Point::Start)?;
        let intent = self.store.intent(&spec.name).await?;
        let (machine, intent) = match (self.store.machine(&spec.name).await?, intent) {
            (None, intent) => {
                self.begin(provider, spec, intent.map(|intent| intent.token))
                    .await?
            }
            (Some(_), None) => return Err(StoreError::Exists(spec.name).into()),
            (
                Some(_),
                Some(Intent {
                    kind: IntentKind::Delete,
                    ..
                }),
            ) => {
                return Err(LifecycleError::BeingRemoved { machine: spec.name });
            }
            (Some(machine), Some(intent)) => (machine, intent),
        };
        self.proceed(provider, machine, intent).await
    }

    /// Finishes what was begun with this machine: a create goes on, a removal too. `None` when it is gone then, or nothing was begun.
    pub async fn resume(
        &self,
        provider: &dyn Provider,
        name: &MachineName,
    ) -> Result<Option<Machine>> {
        let Some(intent) = self.store.intent(name).await? else {
            return Ok(None);
        };
        if intent.kind == IntentKind::Delete {
            self.remove(provider, name, super::Remove::Host).await?;
            return Ok(None);
        }
        let _lock = self.lock(name).await?;
        // Read again under the lock: its owner may just have finished.
        match (
            self.store.machine(name).await?,
            self.store.intent(name).await?,
        ) {
            (Some(machine), Some(intent)) if intent.kind == IntentKind::Create => {
                self.proceed(provider, machine, intent).await.map(Some)
            }
            (machine, _) => Ok(machine),
        }
    }

    /// Writes record and intent, before anything happens outside.
    async fn begin(
        &self,
        provider: &dyn Provider,
        spec: CreateSpec,
        token: Option<String>,
    ) -> Result<(Machine, Intent)> {
        let now = self.ambience.now();
        let token = token.unwrap_or_else(|| self.ambience.token());
        let machine = Machine {
            name: spec.name.clone(),
            driver: provider.name().to_owned(),
            options: spec.options,
            token: token.clone(),
            instance_id: None,
            address: None,
            private_address: None,
            ssh_user: "root".to_owned(),
            ssh_port: 22,
            key_file: None,
            state: State::Creating,
            slot: spec.slot,
            project: spec.project,
            labels: spec.labels,
            created_at: now,
            engine: None,
            generation: 1,
        };
        let intent = Intent {
            token,
            machine: spec.name,
            kind: IntentKind::Create,
            step: IntentStep::Begun,
            started_at: now,
        };
        let writes = vec![
            Write::Insert(Box::new(machine.clone())),
            Write::Put(intent.clone()),
        ];
        self.store.commit(writes).await?;
        Ok((machine, intent))
    }

    /// Does what is left of a create; a failure is written into the record, and the intent stays.
    async fn proceed(
        &self,
        provider: &dyn Provider,
        mut machine: Machine,
        intent: Intent,
    ) -> Result<Machine> {
        if machine.driver != provider.name() {
            let (begun, given) = (machine.driver, provider.name().to_owned());
            return Err(LifecycleError::OtherDriver {
                machine: machine.name,
                begun,
                given,
            });
        }
        let done = self.advance(provider, &mut machine, intent).await;
        match done {
            Ok(()) => Ok(machine),
            Err(error) => {
                self.note_failure(&machine.name, &error).await;
                Err(error)
            }
        }
    }

    /// Writes the reason of a failure into the record, where there still is one. A failure to do so hides nothing: the intent tells.
    pub(super) async fn note_failure(&self, name: &MachineName, error: &LifecycleError) {
        if matches!(error, LifecycleError::Crashed(_)) {
            return;
        }
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let noted = self
            .amend(name, |machine| machine.state = State::Error(reason.clone()))
            .await;
        if let Err(error) = noted {
            tracing::debug!(machine = %name, %error, "failure not noted");
        }
    }

    async fn advance(
        &self,
        provider: &dyn Provider,
        machine: &mut Machine,
        mut intent: Intent,
    ) -> Result<()> {
        let name = machine.name.clone();
        self.reach(Point::Intended)?;
        if intent.step < IntentStep::Created {
            let instance = self.make(provider, machine).await?;
            self.reach(Point::Made)?;
            machine.observe(&instance);
            machine.state = State::Booting;
            intent.step = IntentStep::Created;
            self.write(machine, vec![Write::Put(intent.clone())])
                .await?;
            self.reach(Point::Recorded)?;
        }
        if intent.step < IntentStep::Connected {
            let instance = self
                .step(&name, Step::Boot, self.boot(provider, machine))
                .await?;
            machine.observe(&instance);
            machine.state = State::Booting;
            self.write(machine, Vec::new()).await?;
            self.reach(Point::Booted)?;
            self.step(&name, Step::Connect, self.connect(machine))
                .await?;
            self.reach(Point::Connected)?;
            machine.state = State::Installing;
            intent.step = IntentStep::Connected;
            self.write(machine, vec![Write::Put(intent)]).await?;
        }
        let engine = self.step(&name, Step::Install, async {
            let installed = self.access.install(machine).await;
            installed.map_err(|source| LifecycleError::Access {
                machine: name.clone(),
                step: Step::Install,
                source,
            })
        });
        let engine = engine.await?;
        self.reach(Point::Installed)?;
        machine.engine = Some(engine);
        machine.state = State::Ready;
        self.write(machine, vec![Write::EndAll(name)]).await
    }

    /// Keys, then the provider. When it is certain that nothing was made, nothing of the machine is left behind.
    async fn make(&self, provider: &dyn Provider, machine: &mut Machine) -> Result<Instance> {
        let name = machine.name.clone();
        let keys = self.step(&name, Step::Prepare, async {
            let keys = self.access.prepare(&name, &provider.login_key()).await;
            keys.map_err(|source| LifecycleError::Access {
                machine: name.clone(),
                step: Step::Prepare,
                source,
            })
        });
        let keys = match keys.await {
            Ok(keys) => keys,
            // No call to the provider precedes this one, unless an earlier run was interrupted after it.
            Err(error) => return Err(self.withdraw(provider, machine, error).await),
        };
        self.reach(Point::Prepared)?;
        machine.key_file = keys.key_file;
        let request = CreateRequest {
            name: name.to_string(),
            token: machine.token.clone(),
            authorized_key: keys.authorized_key,
            host_key: keys.host_key,
        };
        let made = self.step(&name, Step::Create, async {
            let made = retry::call(&self.patience, || provider.create(&request)).await;
            made.map_err(|source| failed(&name, Step::Create, source))
        });
        match made.await {
            Ok(instance) => Ok(instance),
            Err(error) => self.settle(provider, machine, error).await,
        }
    }

    /// After a failed create: takes what was made all the same, and withdraws when nothing was.
    async fn settle(
        &self,
        provider: &dyn Provider,
        machine: &Machine,
        error: LifecycleError,
    ) -> Result<Instance> {
        let uncertain = matches!(&error, LifecycleError::Provider { source, .. }
            if matches!(source.kind, ErrorKind::Other | ErrorKind::Throttled(_)));
        match provider.list().await {
            Ok(list) => match list
                .into_iter()
                .find(|instance| instance.token == machine.token)
            {
                Some(instance) => Ok(instance),
                None if uncertain => Err(error),
                None => Err(self.forget_unmade(machine, error).await),
            },
            Err(_) => Err(error),
        }
    }

    /// Withdraws a machine that was never asked for, if the provider confirms that it has none with this token.
    async fn withdraw(
        &self,
        provider: &dyn Provider,
        machine: &Machine,
        error: LifecycleError,
    ) -> LifecycleError {
        match provider.list().await {
            Ok(list) if list.iter().all(|instance| instance.token != machine.token) => {
                self.forget_unmade(machine, error).await
            }
            _ => error,
        }
    }

    async fn forget_unmade(&self, machine: &Machine, error: LifecycleError) -> LifecycleError {
        if let Err(forget) = self.access.forget(&machine.name).await {
            tracing::debug!(machine = %machine.name, error = %forget, "files of a withdrawn machine are left");
        }
        let name = machine.name.clone();
        let writes = vec![
            Write::Remove(name.clone(), machine.generation),
            Write::EndAll(name),
        ];
        match self.store.commit(writes).await {
            Ok(()) => error,
            Err(store) => store.into(),
        }
    }

    /// Waits until the instance is up and has an address.
    pub(super) async fn boot(
        &self,
        provider: &dyn Provider,
        machine: &Machine,
    ) -> Result<Instance> {
        let name = &machine.name;
        let id = machine.instance_id.as_deref().unwrap_or_default();
        let begun = Instant::now();
        let mut started = false;
        loop {
            let last = match provider.get(id).await {
                Ok(instance) => match (instance.state, provider.power()) {
                    (PowerState::Running | PowerState::Unknown, _)
                        if instance.address.is_some() =>
                    {
                        return Ok(instance);
                    }
                    (PowerState::Error, _) => {
                        return Err(LifecycleError::InstanceFailed {
                            machine: name.clone(),
                        });
                    }
                    (PowerState::Stopped, Some(power)) if !started => {
                        started = true;
                        power
                            .start(id)
                            .await
                            .map_err(|source| failed(name, Step::Start, source))?;
                        continue;
                    }
                    (state, _) => format!("it is {}", format!("{state:?}").to_lowercase()),
                },
                Err(error) if matches!(error.kind, ErrorKind::Other | ErrorKind::Throttled(_)) => {
                    error.message
                }
                Err(error) => return Err(failed(name, Step::Boot, error)),
            };
            if begun.elapsed() >= self.patience.boot {
                let seconds = self.patience.boot.as_secs();
                return Err(LifecycleError::NotUp {
                    machine: name.clone(),
                    seconds,
                    last,
                });
            }
            tokio::time::sleep(self.patience.poll).await;
        }
    }

    pub(super) async fn connect(&self, machine: &Machine) -> Result<()> {
        let connected = self.access.connect(machine).await;
        connected.map_err(|source| LifecycleError::Access {
            machine: machine.name.clone(),
            step: Step::Connect,
            source,
        })
    }
}

pub(super) fn failed(machine: &MachineName, step: Step, source: ProviderError) -> LifecycleError {
    LifecycleError::Provider {
        machine: machine.clone(),
        step,
        source,
    }
}
