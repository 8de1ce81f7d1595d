//! The health check's rules: pure. Who runs the probes is in `probe`.

use std::time::Duration;

use windlass_engine_api::types::{Health, HealthConfig, HealthResult};

const KEPT: usize = 5;
/// Kept bytes of a probe's output.
pub const OUTPUT: usize = 4096;

/// A health check with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What a probe runs.
    pub command: Vec<String>,
    /// Between probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Failures in this time do not count.
    pub start_period: Duration,
    /// Between probes in the start period.
    pub start_interval: Duration,
    /// Failures until unhealthy.
    pub retries: i64,
}

impl Check {
    /// `None`: there is no check. `shell` is the image's, for `CMD-SHELL`.
    pub fn from_config(config: Option<&HealthConfig>, shell: Option<&[String]>) -> Option<Self> {
        let config = config?;
        let (kind, rest) = config.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => {
                let mut command: Vec<String> = match shell {
                    Some(shell) if !shell.is_empty() => shell.to_vec(),
                    _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                };
                command.push(rest.join(" "));
                command
            }
            _ => return None,
        };
        let span = |nanos: i64, default: u64| {
            if nanos > 0 {
                Duration::from_nanos(nanos as u64)
            } else {
                Duration::from_secs(default)
            }
        };
        (!command.is_empty()).then(|| Self {
            command,
            interval: span(config.interval, 30),
            timeout: span(config.timeout, 30),
            start_period: Duration::from_nanos(config.start_period.max(0) as u64),
            start_interval: span(config.start_interval, 5),
            retries: if config.retries > 0 {
                config.retries
            } else {
                3
            },
        })
    }

    /// The time until the next probe.
    pub fn pause(&self, health: &Health, since_start: Duration) -> Duration {
        if health.status == "starting" && since_start < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }
}

/// The state at the start.
pub fn starting() -> Health {
    Health {
        status: "starting".to_owned(),
        ..Health::default()
    }
}

/// Takes a probe's result in; the answer is whether the status changed.
pub fn record(
    health: &mut Health,
    check: &Check,
    result: HealthResult,
    since_start: Duration,
) -> bool {
    let before = health.status.clone();
    if result.exit_code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".to_owned();
    } else if !(health.status == "starting" && since_start < check.start_period) {
        health.failing_streak += 1;
        if health.failing_streak >= check.retries {
            health.status = "unhealthy".to_owned();
        }
    }
    health.log.push(result);
    let extra = health.log.len().saturating_sub(KEPT);
    health.log.drain(..extra);
    health.status != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str]) -> HealthConfig {
        HealthConfig {
            test: test.iter().map(|s| (*s).to_owned()).collect(),
            retries: 2,
            start_period: 10_000_000_000,
            ..HealthConfig::default()
        }
    }

    #[test]
    fn forms() {
        assert_eq!(Check::from_config(None, None), None);
        assert_eq!(Check::from_config(Some(&config(&["NONE"])), None), None);
        assert_eq!(Check::from_config(Some(&config(&[])), None), None);
        assert_eq!(
            Check::from_config(Some(&config(&["CMD", "a", "b"])), None)
                .unwrap()
                .command,
            ["a", "b"]
        );
        assert_eq!(
            Check::from_config(Some(&config(&["CMD-SHELL", "a b"])), None)
                .unwrap()
                .command,
            ["/bin/sh", "-c", "a b"]
        );
    }

    #[test]
    fn failures_count_after_the_start_period_only() {
        let check = Check::from_config(Some(&config(&["CMD", "x"])), None).unwrap();
        let mut health = starting();
        let result = |exit_code| HealthResult {
            exit_code,
            ..HealthResult::default()
        };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(11));
        for _ in 0..7 {
            assert!(!record(&mut health, &check, result(1), early));
        }
        assert_eq!((health.failing_streak, health.log.len()), (0, KEPT));
        assert_eq!(check.pause(&health, early), Duration::from_secs(5));
        assert!(!record(&mut health, &check, result(1), late));
        assert!(record(&mut health, &check, result(1), late));
        assert_eq!(health.status, "unhealthy");
        assert!(record(&mut health, &check, result(0), late));
        assert_eq!(health.failing_streak, 0);
        assert!(
            !record(&mut health, &check, result(1), early),
            "once healthy, the start period is over"
        );
        assert_eq!(health.failing_streak, 1);
    }
}
