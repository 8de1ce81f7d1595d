//! What the store, the intents and the providers say of the machines, put together for people.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use windlass_machine::{Intent, IntentKind, Machine, State};
use windlass_provider::{Ownership, PowerState};

use crate::error::{CommandError, Result};
use crate::world::World;

/// How long one provider or host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A machine as it is now.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The record.
    pub machine: Machine,
    /// One word, docker-machine's where it has one.
    pub state: String,
    /// What is wrong, and what to do about it.
    pub note: Option<String>,
    /// A create or a removal of it was interrupted, or is under way in another process.
    pub unfinished: Option<IntentKind>,
}

impl Seen {
    /// A machine whose provider is not asked.
    pub fn unseen(machine: Machine) -> Self {
        let state = capitalised(machine.state.word());
        Self {
            machine,
            state,
            note: None,
            unfinished: None,
        }
    }

    /// For `--format json`. The token is left out: it is of use only between us and the provider.
    pub fn describe(&self) -> Value {
        let machine = &self.machine;
        json!({
            "name": machine.name,
            "driver": machine.driver,
            "state": self.state.to_lowercase(),
            "note": self.note,
            "unfinished": self.unfinished,
            "address": machine.address,
            "private_address": machine.private_address,
            "ssh_user": machine.ssh_user,
            "ssh_port": machine.ssh_port,
            "instance_id": machine.instance_id,
            "project": machine.project,
            "fleet": machine.slot.as_ref().map(|slot| &slot.fleet),
            "ordinal": machine.slot.as_ref().map(|slot| slot.ordinal),
            "labels": machine.labels,
            "options": machine.options,
            "engine": machine.engine,
            "created_at": machine.created_at.format(&time::format_description::well_known::Rfc3339).ok(),
        })
    }
}

/// Every machine, looked at side by side; what cannot be found out is said in its note.
pub async fn all(world: &World) -> Result<Vec<Seen>> {
    let machines = world.store.machines().await?;
    Ok(join_all(machines.into_iter().map(|machine| async {
        let unseen = Seen::unseen(machine.clone());
        match look(world, machine).await {
            Ok(seen) => seen,
            Err(error) => Seen {
                state: "Unknown".to_owned(),
                note: Some(error.summary()),
                ..unseen
            },
        }
    }))
    .await)
}

/// One machine.
pub async fn look(world: &World, machine: Machine) -> Result<Seen> {
    let name = machine.name.clone();
    let mut seen = Seen::unseen(machine);
    if let Some(intent) = world.store.intent(&name).await? {
        seen.note = Some(unfinished(&intent, &seen.machine));
        seen.unfinished = Some(intent.kind);
    }
    if let State::Error(reason) = &seen.machine.state {
        let undone = seen.note.take().map(|note| format!("; {note}"));
        // The name stands in the same row already.
        let reason = reason.trim_start_matches(&format!("machine `{name}`: "));
        seen.note = Some(format!("{reason}{}", undone.unwrap_or_default()));
    }
    if seen.unfinished.is_some() {
        return Ok(seen);
    }
    let provider = world.provider_of(&seen.machine)?;
    let looked = timeout(PATIENCE, world.lifecycle.look(provider.as_ref(), &name)).await;
    let Ok(looked) = looked else {
        let seconds = PATIENCE.as_secs();
        let driver = &seen.machine.driver;
        return Err(CommandError::failed(format!(
            "driver `{driver}` did not answer within {seconds} seconds"
        )));
    };
    let (machine, power) = looked?;
    let failed = matches!(machine.state, State::Error(_));
    seen.machine = machine;
    match power {
        None => {
            seen.state = "Lost".to_owned();
            seen.note = Some(format!(
                "the provider no longer has it; `windlass rm {name}` forgets it"
            ));
        }
        Some(PowerState::Unknown) if !failed => {
            let reached = reached(&seen.machine).await;
            seen.state = if reached { "Running" } else { "Unreachable" }.to_owned();
        }
        Some(PowerState::Unknown) => {}
        Some(power) => seen.state = capitalised(&format!("{power:?}").to_lowercase()),
    }
    Ok(seen)
}

/// Lines about instances that the providers have and the store does not. A provider that cannot be asked is left out.
pub async fn orphans(world: &World) -> Vec<String> {
    let Ok(machines) = world.store.machines().await else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let mut asked: Vec<&str> = Vec::new();
    for machine in &machines {
        if asked.contains(&machine.driver.as_str()) {
            continue;
        }
        asked.push(&machine.driver);
        let Ok(provider) = world.provider_of(machine) else {
            continue;
        };
        if provider.ownership() == Ownership::Adopts {
            continue;
        }
        match timeout(PATIENCE, world.lifecycle.orphans(provider.as_ref())).await {
            Ok(Ok(found)) => lines.extend(found.unknown.iter().map(|instance| {
                format!(
                    "warning: driver `{}` has instance `{}` (`{}`) that no machine here knows; it may cost money: look at it with the provider's own tools",
                    machine.driver, instance.id, instance.name
                )
            })),
            Ok(Err(error)) => tracing::debug!(driver = machine.driver, %error, "orphans not looked for"),
            Err(_) => tracing::debug!(driver = machine.driver, "orphans not looked for in time"),
        }
    }
    lines
}

fn unfinished(intent: &Intent, machine: &Machine) -> String {
    let name = &intent.machine;
    match intent.kind {
        IntentKind::Create if machine.project.is_some() => format!(
            "its create is not finished: `windlass up` goes on, `windlass rm {name}` undoes it"
        ),
        IntentKind::Create => format!(
            "its create is not finished: give it again to go on, or `windlass rm {name}` to undo it"
        ),
        IntentKind::Delete => {
            format!("its removal is not finished: `windlass rm {name}` goes on with it")
        }
    }
}

/// Whether its SSH port accepts a connection.
async fn reached(machine: &Machine) -> bool {
    let Some(address) = machine.address.as_deref() else {
        return false;
    };
    let connected = timeout(
        Duration::from_secs(3),
        TcpStream::connect((address, machine.ssh_port)),
    );
    matches!(connected.await, Ok(Ok(_)))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}
