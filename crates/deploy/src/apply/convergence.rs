//! Round and round: observe → plan → apply, until there is nothing left to do.

use async_trait::async_trait;

use super::{Executor, apply};
use crate::error::{DeployError, PlanError, Result};
use crate::observe::Observed;
use crate::plan::{Note, Plan};
use crate::report::{Event, Reporter};

/// What can be looked at and acted upon; real, or a simulation.
#[async_trait]
pub(crate) trait World: Executor {
    /// Looks at everything.
    async fn observe(&self) -> Result<Observed>;
    /// As an executor.
    fn executor(&self) -> &dyn Executor;
}

/// Rounds until it is given up; each but the last changes something.
const ROUNDS: usize = 12;
/// Steps that may find the world changed under them.
const SURPRISES: usize = 5;

/// Plans and applies until the plan is empty. `plan` is told how many rounds have been applied. Returns the steps done and the notes of the last plan.
pub(crate) async fn converge(
    world: &dyn World,
    reporter: &dyn Reporter,
    plan: &(dyn Fn(&Observed, usize) -> Result<Plan, PlanError> + Send + Sync),
) -> Result<(usize, Vec<Note>)> {
    let (mut done, mut surprises, mut applied) = (0, 0, 0);
    let mut told = Vec::new();
    for _ in 0..ROUNDS {
        let next = plan(&world.observe().await?, applied)?;
        for note in next.notes.iter().filter(|n| !told.contains(*n)) {
            reporter.report(&Event::Noted(note));
        }
        told.clone_from(&next.notes);
        let now = next.decided();
        if now.is_empty() {
            return Ok((done, next.notes));
        }
        reporter.report(&Event::Planned(&now));
        match apply(&now, world.executor(), reporter).await {
            Ok(()) => {
                done += now.steps.len();
                applied += 1;
            }
            Err(failed) if failed.error.is_outdated() && surprises < SURPRISES => surprises += 1,
            Err(failed) => {
                return Err(DeployError::Step {
                    step: failed.action.to_string(),
                    source: failed.error,
                });
            }
        }
    }
    let left = plan(&world.observe().await?, applied)?;
    match left.steps.first() {
        None => Ok((done, left.notes)),
        Some(step) => Err(DeployError::NotSettled {
            rounds: ROUNDS,
            next: step.action.to_string(),
        }),
    }
}
