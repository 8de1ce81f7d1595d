//! Ctrl-C and SIGTERM: the work is dropped where it is, and one line says what is unfinished and how to go on.
//!
//! Nothing is undone here: what was begun is in the store, and the next command goes on with it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use windlass_machine::IntentKind;

use crate::world::World;

/// The process was asked to end.
pub struct Interrupted {
    /// 128 and the signal's number.
    pub code: u8,
}

/// Runs `work` to its end, or drops it at a signal.
pub async fn unless<T>(work: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        biased;
        code = asked() => Err(Interrupted { code }),
        done = work => Ok(done),
    }
}

/// Waits until the process is asked to end, and gives the exit code.
pub async fn asked() -> u8 {
    Requests::listen().next().await
}

/// The signals that ask the process to end, one after the other.
pub struct Requests(Option<(Signal, Signal)>);

impl Requests {
    /// From now on.
    pub fn listen() -> Self {
        let listen = || -> io::Result<(Signal, Signal)> {
            Ok((
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ))
        };
        // Where that fails the signals end the process the hard way, which the store is made for.
        let failed = |error: &io::Error| tracing::debug!(%error, "signals are not listened to");
        Self(listen().inspect_err(failed).ok())
    }

    /// Waits for the next one, and gives the exit code.
    pub async fn next(&mut self) -> u8 {
        match &mut self.0 {
            Some((interrupt, terminate)) => tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            },
            None => std::future::pending().await,
        }
    }
}

/// The line after an interruption.
pub async fn explain(world: &World) {
    let steps = world.progress.abandon();
    if steps.is_empty() {
        return;
    }
    let mut line = format!(
        "interrupted in the middle of {}; give the same command again to go on",
        steps.join(", ")
    );
    if let Some(undo) = undo(world, &steps).await {
        line.push_str(&format!(", or `{undo}` to undo it"));
    }
    world.progress.line(&line);
}

/// What takes back a create that is under way; a removal is only ever gone on with.
async fn undo(world: &World, steps: &[String]) -> Option<String> {
    let intents = world.store.intents().await.ok()?;
    let begun = intents.iter().find(|intent| {
        let prefix = format!("{}:", intent.machine);
        intent.kind == IntentKind::Create && steps.iter().any(|step| step.starts_with(&prefix))
    })?;
    let machine = world.store.machine(&begun.machine).await.ok()??;
    Some(match machine.project {
        Some(project) => format!("windlass down -p {project}"),
        None => format!("windlass rm {}", machine.name),
    })
}
