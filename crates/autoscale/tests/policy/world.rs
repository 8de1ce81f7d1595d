//! A fleet in virtual time: its machines take a while to be made, and share the load evenly.

use std::collections::BTreeSet;
use std::time::Duration;

use windlass_autoscale::{Config, Cpu, Decision, Observation, Sample, State, policy};

/// Seconds, for reading.
pub fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub struct World {
    pub config: Config,
    pub state: State,
    pub now: Duration,
    /// From the order of a machine to its first request.
    pub boot: Duration,
    pub machines: Vec<Machine>,
    pub missing: BTreeSet<u32>,
    next: u32,
}

pub struct Machine {
    pub name: u32,
    pub ready_at: Duration,
}

/// One tick as it went.
pub struct Tick {
    pub now: Duration,
    pub decision: Decision,
    /// What the machines that serve are loaded with, per cent; over 100 means that requests wait.
    pub demand_percent: f64,
}

impl World {
    /// With `count` machines that have served for long.
    pub fn new(config: Config, count: u32, boot: Duration) -> Self {
        let machines = (0..count)
            .map(|name| Machine {
                name,
                ready_at: s(0),
            })
            .collect();
        Self {
            config,
            state: State::default(),
            now: s(100_000),
            boot,
            machines,
            missing: BTreeSet::new(),
            next: count,
        }
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.machines.len()).expect("a small fleet")
    }

    /// Measures a load of so many machines' worth (1.0 keeps one machine at 100 %), decides, and does it.
    pub fn tick(&mut self, load: f64, step: Duration) -> Tick {
        self.now += step;
        let serving = self
            .machines
            .iter()
            .filter(|m| m.ready_at <= self.now)
            .count()
            .max(1);
        let demand_percent = 100.0 * load / serving as f64;
        let samples = self
            .machines
            .iter()
            .map(|m| self.sample(m, demand_percent))
            .collect();
        let seen = Observation {
            current: self.count(),
            samples,
        };
        let (state, decision) = policy(&self.state, &seen, self.now, &self.config);
        self.state = state;
        while self.count() < decision.desired {
            self.machines.push(Machine {
                name: self.next,
                ready_at: self.now + self.boot,
            });
            self.next += 1;
        }
        while self.count() > decision.desired {
            self.machines.pop();
        }
        Tick {
            now: self.now,
            decision,
            demand_percent,
        }
    }

    fn sample(&self, machine: &Machine, demand_percent: f64) -> Sample {
        let ready_at = (machine.ready_at <= self.now).then_some(machine.ready_at);
        let cpu = if self.missing.contains(&machine.name) {
            Cpu::Missing {
                reason: "does not answer".to_owned(),
            }
        } else {
            Cpu::Percent {
                value: demand_percent.min(100.0),
                at: self.now,
            }
        };
        Sample {
            machine: format!("m{}", machine.name),
            ready_at,
            cpu,
        }
    }
}

/// A change of direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Bought, then thrown away: flapping.
    OutThenIn,
    /// Given up, then needed again: the load came back.
    InThenOut,
}

/// How often the fleet turned so within the time.
pub fn turns_within(ticks: &[Tick], turn: Turn, time: Duration) -> usize {
    let steps: Vec<(Duration, bool)> = ticks
        .iter()
        .filter(|t| t.decision.changes())
        .map(|t| (t.now, t.decision.desired > t.decision.current))
        .collect();
    let out_first = turn == Turn::OutThenIn;
    steps
        .windows(2)
        .filter(|w| w[0].1 == out_first && w[1].1 != out_first && w[1].0 - w[0].0 < time)
        .count()
}
