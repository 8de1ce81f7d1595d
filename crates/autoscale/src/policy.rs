//! The scaling policy: a pure function of state, observation, time and settings.
//!
//! Target tracking in proportion, after the algorithm of the Kubernetes Horizontal Pod Autoscaler
//! (<https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details>):
//! `desired = ceil(current * metric / target)`, unless the ratio is within the tolerance. What is not known is filled in
//! so that it weakens the step that is being considered:
//!
//! | machine | when the question is "more?" | when the question is "fewer?" |
//! | --- | --- | --- |
//! | warming up, or still being made | counts as idle: it is the help already on its way | counts as on target |
//! | metrics stale or missing | counts as on target: it argues for nothing | forbids it |
//!
//! Kubernetes counts missing metrics as idle on the way out and as on target on the way in. We differ on purpose: a machine that does
//! not answer is more likely overloaded or broken than idle, and removing machines (paid, drained, with disks) on half of the facts is
//! the dearer mistake.
//!
//! Deliberately absent: any clock, any I/O.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Config;
use crate::decision::{Decision, Reason};
use crate::metrics::{Cpu, Sample};

/// What the policy remembers from tick to tick. A fresh one after a restart is safe: nothing is removed for a whole
/// stabilisation window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What was recommended when, within the stabilisation window; oldest first, each higher than all that follow.
    recommendations: VecDeque<(Duration, u32)>,
    last_out: Option<Duration>,
    last_step: Option<Duration>,
}

/// What is seen at one tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The fleet's declared count.
    pub current: u32,
    /// Its machines.
    pub samples: Vec<Sample>,
}

/// Decides how many machines the fleet should have. Returns the state for the next call.
pub fn policy(
    state: &State,
    seen: &Observation,
    now: Duration,
    config: &Config,
) -> (State, Decision) {
    let load = Load::of(seen, now, config);
    let (wanted, reason) = recommend(&load, seen.current, config);
    let recommended = wanted.clamp(config.min, config.max);
    let mut next = state.clone();
    next.remember(seen.current, recommended, now, config);
    let (desired, reason) = restrain(&next, seen.current, recommended, reason, now, config);
    if desired > seen.current {
        next.last_out = Some(now);
    }
    if desired != seen.current {
        next.last_step = Some(now);
    }
    let mean_cpu_percent = load.mean();
    (
        next,
        Decision {
            current: seen.current,
            desired,
            recommended,
            mean_cpu_percent,
            reason,
        },
    )
}

/// The samples, sorted by what they are worth.
struct Load {
    measured: u32,
    sum_percent: f64,
    warming: u32,
    missing: u32,
    why_missing: Option<String>,
}

impl Load {
    fn of(seen: &Observation, now: Duration, config: &Config) -> Self {
        let mut load = Self {
            measured: 0,
            sum_percent: 0.0,
            warming: 0,
            missing: 0,
            why_missing: None,
        };
        for sample in &seen.samples {
            load.add(sample, now, config);
        }
        let listed = u32::try_from(seen.samples.len()).unwrap_or(u32::MAX);
        load.warming += seen.current.saturating_sub(listed);
        load
    }

    fn add(&mut self, sample: &Sample, now: Duration, config: &Config) {
        let Some(ready_at) = sample.ready_at else {
            self.warming += 1;
            return;
        };
        let warm_at = ready_at.saturating_add(config.warm_up);
        let missing = match &sample.cpu {
            _ if now < warm_at => {
                self.warming += 1;
                return;
            }
            Cpu::Missing { reason } => reason.clone(),
            Cpu::Percent { at, .. } if now.saturating_sub(*at) > config.max_metrics_age => {
                format!(
                    "its metrics are {} s old",
                    now.saturating_sub(*at).as_secs()
                )
            }
            Cpu::Percent { value, .. } if !value.is_finite() || *value < 0.0 => {
                format!("it reports {value} %")
            }
            Cpu::Percent { value, .. } => {
                self.measured += 1;
                self.sum_percent += value;
                return;
            }
        };
        self.missing += 1;
        self.why_missing
            .get_or_insert(format!("{}: {missing}", sample.machine));
    }

    fn mean(&self) -> Option<f64> {
        (self.measured > 0).then(|| self.sum_percent / f64::from(self.measured))
    }
}

/// What the load alone asks for.
fn recommend(load: &Load, current: u32, config: &Config) -> (u32, Reason) {
    if load.measured == 0 || current == 0 {
        return (
            current,
            Reason::NoMetrics {
                why: load.why_missing.clone(),
            },
        );
    }
    let target = config.target_cpu_percent;
    let at_target = f64::from(current) * target;
    let out = load.sum_percent + f64::from(load.missing) * target;
    let fewer = out + f64::from(load.warming) * target;
    if out > at_target * (1.0 + config.tolerance) {
        return (machines_for(out, target).max(current), Reason::ScaleOut);
    }
    let wanted = machines_for(fewer, target);
    if fewer >= at_target * (1.0 - config.tolerance) {
        let high = f64::from(load.measured) * target * (1.0 + config.tolerance);
        let reason = match load.warming {
            machines @ 1.. if load.sum_percent > high => Reason::WarmingUp { machines },
            _ => Reason::OnTarget,
        };
        return (current, reason);
    }
    if wanted >= current {
        return (current, Reason::Needed);
    }
    match &load.why_missing {
        Some(why) => (
            current,
            Reason::MissingMetrics {
                machines: load.missing,
                why: why.clone(),
            },
        ),
        None => (wanted, Reason::ScaleIn),
    }
}

/// How many machines carry this sum of percentages at the target. At least one: a load of nothing is no reason to serve nobody.
fn machines_for(sum_percent: f64, target: f64) -> u32 {
    // A hair below, so that 3 machines at exactly the target are not 4 by rounding. The cast saturates.
    ((sum_percent / target - 1e-9).ceil() as u32).max(1)
}

/// Holds the recommendation back by bounds, cool-downs, the stabilisation window and the step limits.
fn restrain(
    state: &State,
    current: u32,
    recommended: u32,
    reason: Reason,
    now: Duration,
    config: &Config,
) -> (u32, Reason) {
    // The bounds are the user's own order: they hold at once and whatever the metrics say.
    if current < config.min {
        let limit = current
            .saturating_add(config.step_out.of(current))
            .max(config.min);
        return (recommended.min(limit), Reason::BelowMin { min: config.min });
    }
    if current > config.max {
        return (config.max, Reason::AboveMax { max: config.max });
    }
    match reason {
        Reason::ScaleOut if recommended <= current => (current, Reason::AtMax),
        Reason::ScaleOut => match left(state.last_out, config.scale_out_cooldown, now) {
            Some(left) => (current, Reason::OutCooldown { left }),
            None => (
                recommended.min(current.saturating_add(config.step_out.of(current))),
                Reason::ScaleOut,
            ),
        },
        Reason::ScaleIn if recommended >= current => (current, Reason::AtMin),
        Reason::ScaleIn => step_in(state, current, now, config),
        held => (current, held),
    }
}

fn step_in(state: &State, current: u32, now: Duration, config: &Config) -> (u32, Reason) {
    let highest = state.highest();
    if highest >= current {
        return (
            current,
            Reason::Stabilising {
                highest,
                window: config.stabilisation_window,
            },
        );
    }
    if let Some(left) = left(state.last_step, config.scale_in_cooldown, now) {
        return (current, Reason::InCooldown { left });
    }
    (
        highest.max(current.saturating_sub(config.step_in.of(current))),
        Reason::ScaleIn,
    )
}

/// What is left of a cool-down.
fn left(since: Option<Duration>, cooldown: Duration, now: Duration) -> Option<Duration> {
    let end = since?.saturating_add(cooldown);
    (now < end).then(|| end.saturating_sub(now))
}

impl State {
    /// Keeps only what can still be the maximum of the window, so that it stays small.
    fn remember(&mut self, current: u32, recommended: u32, now: Duration, config: &Config) {
        if self.recommendations.is_empty() {
            self.recommendations
                .push_back((now, current.clamp(config.min, config.max)));
        }
        while self
            .recommendations
            .back()
            .is_some_and(|(_, n)| *n <= recommended)
        {
            self.recommendations.pop_back();
        }
        self.recommendations.push_back((now, recommended));
        let oldest = now.saturating_sub(config.stabilisation_window);
        while self
            .recommendations
            .front()
            .is_some_and(|(at, _)| *at < oldest)
        {
            self.recommendations.pop_front();
        }
    }

    fn highest(&self) -> u32 {
        self.recommendations.front().map_or(0, |(_, n)| *n)
    }
}
