//! Applying a plan: steps as soon as what they need is done, independent ones side by side.
//!
//! Makes no choices. May be dropped at any point: each action is idempotent, and the next plan goes on from what is there.

mod convergence;
mod engine;
mod images;
mod machines;
mod waiting;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::error::{ActionError, chain};
use crate::plan::{Action, Plan};
use crate::report::{Event, Reporter};

pub(crate) use convergence::{World, converge};
pub(crate) use engine::EngineExecutor;
pub(crate) use machines::EngineWorld;

/// Steps in progress at once.
const AT_ONCE: usize = 16;

/// Carries out single actions.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Does it; done already is success.
    async fn execute(&self, action: &Action) -> Result<(), ActionError>;
}

/// A step that failed.
#[derive(Debug)]
pub struct FailedStep {
    /// What it tried.
    pub action: Action,
    /// Why.
    pub error: ActionError,
}

/// Does all steps of a plan. At the first failure no further step begins, and those in progress are waited for.
pub async fn apply(
    plan: &Plan,
    executor: &dyn Executor,
    reporter: &dyn Reporter,
) -> Result<(), FailedStep> {
    let mut missing: Vec<usize> = plan.steps.iter().map(|s| s.after.len()).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
    for (place, step) in plan.steps.iter().enumerate() {
        for before in &step.after {
            followers[*before].push(place);
        }
    }
    let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|p| missing[*p] == 0).collect();
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        while failure.is_none() && running.len() < AT_ONCE {
            let Some(place) = ready.pop_first() else {
                break;
            };
            running.push(run(plan, place, executor, reporter));
        }
        match running.next().await {
            Some((place, Ok(()))) => {
                for follower in &followers[place] {
                    missing[*follower] -= 1;
                    if missing[*follower] == 0 {
                        ready.insert(*follower);
                    }
                }
            }
            Some((place, Err(error))) => {
                failure.get_or_insert(FailedStep {
                    action: plan.steps[place].action.clone(),
                    error,
                });
            }
            None => return failure.map_or(Ok(()), Err),
        }
    }
}

async fn run(
    plan: &Plan,
    step: usize,
    executor: &dyn Executor,
    reporter: &dyn Reporter,
) -> (usize, Result<(), ActionError>) {
    let action = &plan.steps[step].action;
    let begun = Instant::now();
    reporter.report(&Event::Started { step, action });
    let result = executor.execute(action).await;
    let took: Duration = begun.elapsed();
    reporter.report(&match &result {
        Ok(()) => Event::Done { step, action, took },
        Err(error) => Event::Failed {
            step,
            action,
            took,
            reason: chain(error),
        },
    });
    (step, result)
}
