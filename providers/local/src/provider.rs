//! The provider contract, over the private engine.

use std::time::Duration;

use async_trait::async_trait;
use fs_err as fs;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use windlass_engine_api::{Client, ListContainers, LogOptions, RemoveContainer, WaitCondition};
use windlass_provider::{
    CreateRequest, ErrorKind, Instance, Power, PowerState, Provider, ProviderError, Result,
};

use crate::engine::{self, Version};
use crate::failure;
use crate::layout::Layout;
use crate::lock::{Lock, Mode};
use crate::machine::{self, container_name, volume_name};
use crate::{DRIVER, Local, binaries, image, keys};

/// How long a machine may take until its SSH server accepts.
const BOOT: Duration = Duration::from_secs(30);
/// How long a removal by another windlass may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Local {
    /// Whether machines can be made here at all.
    fn check_host(&self) -> Result<()> {
        judge(std::env::consts::OS, nix::unistd::geteuid().is_root())?;
        image::check_host()
    }

    /// The engine, if there are machines; without any nothing is started.
    async fn existing(&self) -> Result<Option<(Layout, Client)>> {
        let layout = Layout::new(&self.state);
        if !layout.has_machines() {
            return Ok(None);
        }
        self.check_host()?;
        let layout = Layout::made(&self.state)?;
        let client = engine::ensure(&layout, self.binaries.as_deref(), Version::Any).await?;
        Ok(Some((layout, client)))
    }

    /// The engine and one machine on it.
    async fn find(&self, id: &str) -> Result<(Layout, Client, Instance)> {
        let found = self.existing().await?;
        let (layout, client) = found.ok_or_else(|| failure::no_machine(id))?;
        let instance = inspect(&client, id).await?;
        Ok((layout, client, instance))
    }

    async fn make(&self, layout: &Layout, request: &CreateRequest) -> Result<Instance> {
        let binaries = self.binaries.as_deref();
        let init = binaries::unpack(binaries, "windlass-local-init", &layout.programs())?;
        let client = engine::ensure(layout, binaries, Version::Current).await?;
        if let Some(found) = by_token(&client, &request.token).await? {
            return finish(&client, found).await;
        }
        let image = image::ensure(&client, &init.path).await?;
        let name = container_name(&request.name);
        let folder = layout.machines().join(&name);
        match client.inspect_container(&name).await {
            Ok(other) => {
                return match machine::instance(&other) {
                    // Made a moment ago by another windlass with the same token.
                    Some(found) if found.token == request.token => finish(&client, found).await,
                    _ => Err(taken(&request.name)),
                };
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failure::of_engine("cannot look for the machine")(error)),
        }
        // What a removal that was cut off has left of a former machine of this name.
        match client.remove_volume(&volume_name(&request.name)).await {
            // In use: another windlass was faster, which the next step finds out.
            Err(error) if error.is_conflict() => {}
            removed => gone_is_good(removed).map_err(failure::of_engine(
                "cannot remove a former machine's volume",
            ))?,
        }
        keys::write(&folder, request)?;
        let spec = machine::container(request, &image, &folder, self.limits);
        let made = client.create_container(Some(&name), &spec).await;
        let id = match made {
            Ok(made) => made.id,
            Err(error) if error.is_conflict() => match by_token(&client, &request.token).await? {
                Some(found) => return finish(&client, found).await,
                None => return Err(taken(&request.name)),
            },
            Err(error) => return Err(failure::of_engine("cannot make the machine")(error)),
        };
        match boot(&client, &id).await {
            Ok(()) => inspect(&client, &id).await,
            Err(error) => {
                // A machine that cannot boot is of no use, and nobody knows it yet.
                if let Err(left) = self.remove(layout, &client, &id, &request.name).await {
                    tracing::warn!(%left, "a machine that did not boot is left");
                }
                Err(error)
            }
        }
    }

    async fn remove(&self, layout: &Layout, client: &Client, id: &str, name: &str) -> Result<()> {
        let how = RemoveContainer {
            force: true,
            volumes: true,
        };
        gone_is_good(client.remove_container(id, how).await)
            .map_err(failure::of_engine("cannot remove the machine"))?;
        gone_is_good(client.remove_volume(&volume_name(name)).await)
            .map_err(failure::of_engine("cannot remove the machine's volume"))?;
        remove_folder(&layout.machines().join(container_name(name)))
    }

    /// After a machine that was not made.
    async fn tidy_up(&self, layout: &Layout) -> Result<()> {
        if !layout.has_machines() {
            return self.tidy(layout, None).await;
        }
        let client = engine::ensure(layout, self.binaries.as_deref(), Version::Any).await?;
        self.tidy(layout, Some(&client)).await
    }

    /// Without machines there is no engine. Left alone when another windlass is making one.
    async fn tidy(&self, layout: &Layout, client: Option<&Client>) -> Result<()> {
        let Some(_lock) = Lock::try_take(&layout.making(), Mode::Exclusive)? else {
            return Ok(());
        };
        if let Some(client) = client {
            if !all(client).await?.is_empty() {
                return Ok(());
            }
            let volumes = client
                .list_volumes(&machine::ours())
                .await
                .map_err(failure::of_engine("cannot list the volumes"))?;
            for volume in volumes {
                gone_is_good(client.remove_volume(&volume.name).await)
                    .map_err(failure::of_engine("cannot remove a volume"))?;
            }
        }
        remove_folder(&layout.machines())?;
        engine::stop(layout).await
    }
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &'static str {
        DRIVER.name
    }

    async fn create(&self, request: &CreateRequest) -> Result<Instance> {
        self.check_host()?;
        let layout = Layout::made(&self.state)?;
        let lock = Lock::take(&layout.making(), Mode::Shared, PATIENCE).await?;
        // A removal may have tidied up while the lock was awaited.
        let layout = Layout::made(&self.state).unwrap_or(layout);
        let made = self.make(&layout, request).await;
        drop(lock);
        if made.is_err()
            && let Err(error) = self.tidy_up(&layout).await
        {
            tracing::warn!(%error, "the private engine is left running");
        }
        made
    }

    async fn get(&self, id: &str) -> Result<Instance> {
        self.find(id).await.map(|(_, _, instance)| instance)
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        match self.existing().await? {
            Some((_, client)) => all(&client).await,
            None => Ok(Vec::new()),
        }
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let Some((layout, client)) = self.existing().await? else {
            return Ok(());
        };
        match inspect(&client, id).await {
            Ok(found) => {
                self.remove(&layout, &client, &found.id, &found.name)
                    .await?
            }
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.tidy(&layout, Some(&client)).await
    }

    fn power(&self) -> Option<&dyn Power> {
        Some(self)
    }
}

#[async_trait]
impl Power for Local {
    async fn start(&self, id: &str) -> Result<()> {
        let (_, client, found) = self.find(id).await?;
        boot(&client, &found.id).await
    }

    async fn stop(&self, id: &str) -> Result<()> {
        let (_, client, found) = self.find(id).await?;
        let patience = Duration::from_secs(machine::STOP_SECONDS.unsigned_abs());
        client
            .stop_container(&found.id, Some(patience))
            .await
            .map_err(failure::of_engine("cannot stop the machine"))
    }

    async fn restart(&self, id: &str) -> Result<()> {
        self.stop(id).await?;
        self.start(id).await
    }

    async fn kill(&self, id: &str) -> Result<()> {
        let (_, client, found) = self.find(id).await?;
        match client.kill_container(&found.id, "SIGKILL").await {
            // It does not run.
            Err(error) if error.is_conflict() => return Ok(()),
            other => other.map_err(failure::of_engine("cannot kill the machine"))?,
        }
        let ended = client.wait_container(&found.id, WaitCondition::NotRunning);
        match timeout(PATIENCE, ended).await {
            Ok(ended) => ended
                .map(drop)
                .map_err(failure::of_engine("cannot kill the machine")),
            Err(_) => Err(failure::other("the machine does not end")),
        }
    }
}

fn judge(system: &str, root: bool) -> Result<()> {
    if system != "linux" {
        let message = "driver `local` works on Linux only";
        return Err(ProviderError::new(ErrorKind::Unsupported, message)
            .with_hint("use --driver generic for a host that you reach by SSH"));
    }
    if !root {
        let message = "driver `local` needs root: it makes namespaces, mounts and a bridge";
        return Err(ProviderError::new(ErrorKind::Auth, message).with_hint(
            "run windlass as root, or use --driver generic for a host that you reach by SSH",
        ));
    }
    Ok(())
}

/// A machine that was there: one that was made and never started is started now.
async fn finish(client: &Client, found: Instance) -> Result<Instance> {
    let container = client
        .inspect_container(&found.id)
        .await
        .map_err(failure::of_engine("cannot look at the machine"))?;
    if container.state.status != "created" {
        return Ok(found);
    }
    boot(client, &found.id).await?;
    inspect(client, &found.id).await
}

/// Starts it, and waits until its SSH server accepts.
async fn boot(client: &Client, id: &str) -> Result<()> {
    client
        .start_container(id)
        .await
        .map_err(failure::of_engine("cannot start the machine"))?;
    let deadline = Instant::now() + BOOT;
    loop {
        let found = inspect(client, id).await?;
        if let Some(address) = &found.address {
            let connect = TcpStream::connect((address.as_str(), found.ssh_port));
            if let Ok(Ok(_)) = timeout(Duration::from_secs(2), connect).await {
                return Ok(());
            }
        }
        if found.state == PowerState::Stopped || Instant::now() >= deadline {
            let said = last_words(client, id).await;
            return Err(failure::other(format!("the machine did not boot: {said}")));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn last_words(client: &Client, id: &str) -> String {
    let options = LogOptions {
        tail: Some(5),
        ..LogOptions::default()
    };
    let read = async {
        let mut log = client.logs(id, &options).await?;
        let mut text = Vec::new();
        while let Some(frame) = log.next().await? {
            text.extend_from_slice(&frame.data);
        }
        Ok::<_, windlass_engine_api::Error>(text)
    };
    match timeout(Duration::from_secs(5), read).await {
        Ok(Ok(text)) if !text.is_empty() => {
            String::from_utf8_lossy(&text).trim().replace('\n', " | ")
        }
        _ => "it said nothing".to_owned(),
    }
}

async fn inspect(client: &Client, id: &str) -> Result<Instance> {
    match client.inspect_container(id).await {
        Ok(found) if found.id == id => {
            machine::instance(&found).ok_or_else(|| failure::no_machine(id))
        }
        Ok(_) => Err(failure::no_machine(id)),
        Err(error) if error.is_not_found() => Err(failure::no_machine(id)),
        Err(error) => Err(failure::of_engine("cannot look at the machine")(error)),
    }
}

async fn all(client: &Client) -> Result<Vec<Instance>> {
    let which = ListContainers {
        all: true,
        filters: machine::ours(),
    };
    let found = client
        .list_containers(&which)
        .await
        .map_err(failure::of_engine("cannot list the machines"))?;
    let mut instances = Vec::with_capacity(found.len());
    for summary in found {
        match inspect(client, &summary.id).await {
            Ok(instance) => instances.push(instance),
            // Removed meanwhile.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(instances)
}

async fn by_token(client: &Client, token: &str) -> Result<Option<Instance>> {
    let found = all(client).await?;
    Ok(found.into_iter().find(|instance| instance.token == token))
}

fn taken(name: &str) -> ProviderError {
    ProviderError::new(
        ErrorKind::Conflict,
        format!("there is another local machine `{name}` already"),
    )
}

fn gone_is_good(result: windlass_engine_api::Result<()>) -> windlass_engine_api::Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn remove_folder(folder: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failure::of_host("cannot remove the machine's keys")(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_provider::{Context, OptionValues};

    #[test]
    fn what_cannot_work_is_said_with_a_way_out() {
        assert!(judge("linux", true).is_ok());
        for (system, root, kind, word) in [
            ("macos", true, ErrorKind::Unsupported, "Linux only"),
            ("linux", false, ErrorKind::Auth, "needs root"),
        ] {
            let error = judge(system, root).unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.message.contains(word), "{error}");
            assert!(error.hint.unwrap().contains("--driver generic"));
        }
    }

    #[tokio::test]
    async fn looking_makes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let context = Context {
            state: state.path().join("state"),
            binaries: None,
        };
        let local = Local::new(&OptionValues::new(), &context).unwrap();
        assert!(local.list().await.unwrap().is_empty());
        assert!(local.delete("nobody").await.is_ok());
        let error = local.get("nobody").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        let error = local.stop("nobody").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(!context.state.exists());
    }
}
