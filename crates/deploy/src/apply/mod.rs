//! Applying a plan: steps as soon as what they need is done, independent ones side by side.
//!
//! Makes no choices. May be dropped at any point: each action is idempotent, and the next plan goes on from what is there.

mod convergence;
mod engine;
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
    let mut done = BTreeSet::new();
    let mut waiting: Vec<usize> = (0..plan.steps.len()).rev().collect();
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if failure.is_none() {
            let mut later = Vec::new();
            while let Some(place) = waiting.pop() {
                let ready = plan.steps[place].after.iter().all(|a| done.contains(a));
                if ready && running.len() < AT_ONCE {
                    running.push(run(plan, place, executor, reporter));
                } else {
                    later.push(place);
                }
            }
            later.reverse();
            waiting = later;
        }
        match running.next().await {
            Some((place, Ok(()))) => {
                done.insert(place);
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
