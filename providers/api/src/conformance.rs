//! The suite that every provider passes, as a library: a provider's tests call [`run`] with a way to make one.
//!
//! A failed expectation is a panic that names the rule, as in any test. What the suite made it deletes, also when it fails.

use std::{future::Future, time::Duration};

use crate::{CreateRequest, ErrorKind, Instance, Ownership, PowerState, Provider, ProviderError};

/// How the suite talks to a provider under test.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Put before every name and token, so that runs do not meet.
    pub prefix: String,
    /// A public key line; nobody logs in.
    pub authorized_key: String,
    /// How long an instance may take to reach a state.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "conformance".to_owned(),
            authorized_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPTt4FCdPkCIK3HFqFkZL1ksNJJTVOQxgOmgqhwS9y3q windlass".to_owned(),
            patience: Duration::from_secs(60),
        }
    }
}

/// Runs the whole suite. `factory` makes a fresh client of one and the same cloud each time, as a new process would.
pub async fn run<F, Fut>(factory: F, settings: &Settings)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn Provider>>,
{
    let before: Vec<String> = list(&*factory().await)
        .await
        .into_iter()
        .map(|instance| instance.id)
        .collect();
    let suite = Suite {
        settings,
        provider: factory().await,
        again: factory().await,
    };
    let outcome = CatchUnwind {
        inner: Box::pin(suite.rules()),
    }
    .await;
    for instance in list(&*factory().await)
        .await
        .into_iter()
        .filter(|instance| !before.contains(&instance.id))
    {
        if let Err(error) = factory().await.delete(&instance.id).await {
            tracing::error!(%error, id = instance.id, "conformance: could not delete");
        }
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

struct Suite<'a> {
    settings: &'a Settings,
    provider: Box<dyn Provider>,
    /// A second client of the same cloud.
    again: Box<dyn Provider>,
}

impl Suite<'_> {
    async fn rules(&self) {
        assert!(!self.provider.name().is_empty(), "a provider has a name");
        match self.provider.ownership() {
            Ownership::Makes => {
                self.unknown_ids().await;
                self.create_is_idempotent().await;
                self.power().await;
                self.delete_is_idempotent().await;
            }
            Ownership::Adopts => self.adoption().await,
        }
    }

    async fn unknown_ids(&self) {
        let id = self.name("nobody");
        let error = self
            .provider
            .get(&id)
            .await
            .expect_err("get of an unknown id is an error");
        assert_eq!(
            error.kind,
            ErrorKind::NotFound,
            "get of an unknown id is NotFound, not: {error}"
        );
        expect("delete of an unknown id", self.provider.delete(&id).await);
    }

    async fn create_is_idempotent(&self) {
        let request = self.request("a");
        let first = expect("create", self.provider.create(&request).await);
        let second = expect(
            "create with the same token",
            self.again.create(&request).await,
        );
        assert_eq!(
            first.id, second.id,
            "a second create with the same token returns the first one's instance"
        );
        assert_eq!(first.token, request.token, "the token is read back");
        assert_eq!(first.name, request.name, "the name is read back");
        let other = expect(
            "create of another",
            self.provider.create(&self.request("b")).await,
        );
        assert_ne!(first.id, other.id, "another token makes another instance");
        let listed = list(&*self.again).await;
        for wanted in [&first, &other] {
            let found: Vec<_> = listed
                .iter()
                .filter(|instance| instance.token == wanted.token)
                .collect();
            assert_eq!(
                found.len(),
                1,
                "list shows each instance of ours once, to every client"
            );
            assert_eq!(found[0].id, wanted.id, "list and create agree on the id");
        }
        let running = self.reach(&first.id, PowerState::Running).await;
        assert!(
            running.address.is_some(),
            "a running instance has an address"
        );
        assert!(
            running.ssh_port > 0 && !running.ssh_user.is_empty(),
            "a running instance tells how to log in"
        );
    }

    async fn power(&self) {
        let id = self.find("a").await.id;
        let Some(power) = self.provider.power() else {
            return;
        };
        expect("stop", power.stop(&id).await);
        self.reach(&id, PowerState::Stopped).await;
        expect("stop of a stopped one", power.stop(&id).await);
        let listed = list(&*self.provider).await;
        assert!(
            listed.iter().any(|instance| instance.id == id),
            "a stopped instance is still listed"
        );
        expect("start", power.start(&id).await);
        self.reach(&id, PowerState::Running).await;
        expect("start of a running one", power.start(&id).await);
        expect("restart", power.restart(&id).await);
        self.reach(&id, PowerState::Running).await;
        expect("kill", power.kill(&id).await);
        self.reach(&id, PowerState::Stopped).await;
        expect("kill of a stopped one", power.kill(&id).await);
        let error = power
            .start(&self.name("nobody"))
            .await
            .expect_err("start of an unknown id is an error");
        assert_eq!(
            error.kind,
            ErrorKind::NotFound,
            "start of an unknown id is NotFound, not: {error}"
        );
    }

    async fn delete_is_idempotent(&self) {
        for which in ["a", "b"] {
            let id = self.find(which).await.id;
            expect("delete", self.provider.delete(&id).await);
            expect("delete of what is gone", self.again.delete(&id).await);
            let error = self
                .provider
                .get(&id)
                .await
                .expect_err("get after delete is an error");
            assert_eq!(
                error.kind,
                ErrorKind::NotFound,
                "get after delete is NotFound, not: {error}"
            );
            let listed = list(&*self.again).await;
            assert!(
                listed.iter().all(|instance| instance.id != id),
                "a deleted instance is not listed"
            );
        }
    }

    async fn adoption(&self) {
        let request = self.request("a");
        let first = expect("create", self.provider.create(&request).await);
        let second = expect(
            "create with the same token",
            self.again.create(&request).await,
        );
        assert_eq!(
            first.id, second.id,
            "a second create with the same token returns the same host"
        );
        assert_eq!(first.name, request.name, "the name is read back");
        assert!(first.address.is_some(), "an existing host has an address");
        assert!(
            list(&*self.provider).await.is_empty(),
            "hosts that we did not make are not listed"
        );
        let got = expect("get", self.again.get(&first.id).await);
        assert_eq!(
            got.address, first.address,
            "get and create agree on the address"
        );
        expect("delete", self.provider.delete(&first.id).await);
        expect("delete again", self.provider.delete(&first.id).await);
        expect(
            "get after delete: the host stays",
            self.provider.get(&first.id).await,
        );
    }

    async fn find(&self, which: &str) -> Instance {
        let token = self.request(which).token;
        let found = list(&*self.provider)
            .await
            .into_iter()
            .find(|instance| instance.token == token);
        found.unwrap_or_else(|| panic!("list has lost the instance of token `{token}`"))
    }

    async fn reach(&self, id: &str, state: PowerState) -> Instance {
        let deadline = tokio::time::Instant::now() + self.settings.patience;
        loop {
            let instance = expect("get", self.again.get(id).await);
            if instance.state == state
                && (state != PowerState::Running || instance.address.is_some())
            {
                return instance;
            }
            let late = tokio::time::Instant::now() >= deadline;
            assert!(
                !late,
                "`{id}` is {:?} and not {state:?} after {:?}",
                instance.state, self.settings.patience
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn name(&self, which: &str) -> String {
        format!("{}-{which}", self.settings.prefix)
    }

    fn request(&self, which: &str) -> CreateRequest {
        CreateRequest {
            name: self.name(which),
            token: format!("{}-token", self.name(which)),
            authorized_key: self.settings.authorized_key.clone(),
            host_key: None,
        }
    }
}

async fn list(provider: &dyn Provider) -> Vec<Instance> {
    expect("list", provider.list().await)
}

fn expect<T>(what: &str, result: Result<T, ProviderError>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error} ({:?})", error.kind))
}

/// Polls a future and turns its panic into a value, so that the suite can clean up.
struct CatchUnwind<F> {
    inner: std::pin::Pin<Box<F>>,
}

impl<F: Future> Future for CatchUnwind<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let inner = self.inner.as_mut();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Latency};

    #[tokio::test(start_paused = true)]
    async fn the_fake_conforms() {
        let cloud = Fake::new();
        run(
            || async { Box::new(cloud.clone()) as Box<dyn Provider> },
            &Settings::default(),
        )
        .await;
        assert!(cloud.instances().is_empty(), "nothing is left");
        let latency = Latency {
            call: Duration::from_millis(300),
            boot: Duration::from_secs(20),
        };
        cloud.set_latency(latency);
        run(
            || async { Box::new(cloud.clone()) as Box<dyn Provider> },
            &Settings::default(),
        )
        .await;
    }
}
