//! What a fleet's scaling is told: bounds, target, and how hasty it may be.

use std::time::Duration;

/// The settings of one fleet. [`Config::new`] gives the defaults for everything but bounds and target.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Never fewer machines.
    pub min: u32,
    /// Never more machines.
    pub max: u32,
    /// The mean CPU of the fleet's machines to aim at, per cent.
    pub target_cpu_percent: f64,
    /// A mean this near to the target (as a fraction of it) changes nothing. Default 0.1, as Kubernetes' autoscaler.
    pub tolerance: f64,
    /// For so long after a machine is ready its metrics are ignored: starting up is no load. Default 30 s.
    pub warm_up: Duration,
    /// Metrics older than this are missing. Default 60 s.
    pub max_metrics_age: Duration,
    /// Least time from one step out to the next. Default 30 s.
    pub scale_out_cooldown: Duration,
    /// Least time from any step to a step in. Default 60 s.
    pub scale_in_cooldown: Duration,
    /// A step in goes no lower than the highest recommendation of this window. Default 300 s, as Kubernetes' autoscaler.
    pub stabilisation_window: Duration,
    /// The most machines added at once. Default 4 or as many as there are.
    pub step_out: StepLimit,
    /// The most machines removed at once. Default 1 or a tenth.
    pub step_in: StepLimit,
}

/// The larger of a count and a share of the present fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimit {
    /// So many machines, …
    pub machines: u32,
    /// … or so many per cent of the fleet.
    pub percent: u32,
}

/// What is wrong with a [`Config`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Bounds the wrong way round.
    #[error("min {min} is more than max {max}")]
    Bounds {
        /// As given.
        min: u32,
        /// As given.
        max: u32,
    },
    /// Nothing to aim at.
    #[error("the CPU target must be more than 0 and at most 100 per cent, not {0}")]
    Target(f64),
    /// A tolerance that would never or always act.
    #[error("the tolerance must be at least 0 and less than 1, not {0}")]
    Tolerance(f64),
    /// A step that leads nowhere.
    #[error("a step limit must allow at least one machine")]
    Step,
}

impl Config {
    /// The defaults for these bounds and this target.
    pub fn new(min: u32, max: u32, target_cpu_percent: f64) -> Result<Self, ConfigError> {
        let config = Self {
            min,
            max,
            target_cpu_percent,
            tolerance: 0.1,
            warm_up: Duration::from_secs(30),
            max_metrics_age: Duration::from_secs(60),
            scale_out_cooldown: Duration::from_secs(30),
            scale_in_cooldown: Duration::from_secs(60),
            stabilisation_window: Duration::from_secs(300),
            step_out: StepLimit {
                machines: 4,
                percent: 100,
            },
            step_in: StepLimit {
                machines: 1,
                percent: 10,
            },
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks what the types cannot. Call it after changing fields.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.min > self.max {
            return Err(ConfigError::Bounds {
                min: self.min,
                max: self.max,
            });
        }
        if !(self.target_cpu_percent > 0.0 && self.target_cpu_percent <= 100.0) {
            return Err(ConfigError::Target(self.target_cpu_percent));
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            return Err(ConfigError::Tolerance(self.tolerance));
        }
        if self.step_out.machines == 0 || self.step_in.machines == 0 {
            return Err(ConfigError::Step);
        }
        Ok(())
    }
}

impl StepLimit {
    /// The most machines for a fleet of this size; at least one.
    pub fn of(self, fleet: u32) -> u32 {
        let share = u64::from(fleet) * u64::from(self.percent) / 100;
        self.machines
            .max(u32::try_from(share).unwrap_or(u32::MAX))
            .max(1)
    }
}
