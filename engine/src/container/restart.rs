//! Whether and when an ended container starts again: pure.

use std::time::Duration;

use windlass_engine_api::types::RestartPolicy;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length forgets the former delays.
const STABLE: Duration = Duration::from_secs(10);

/// What is known at an end.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its exit code.
    pub exit_code: i64,
    /// Restarts so far.
    pub restart_count: i64,
    /// Somebody stopped or killed it.
    pub by_hand: bool,
    /// How long it ran.
    pub ran_for: Duration,
    /// The delay before this run, zero for the first.
    pub last_delay: Duration,
}

/// The delay before the next start; `None`: it stays ended.
pub fn decide(policy: &RestartPolicy, ended: Ended) -> Option<Duration> {
    let again = match policy.name.as_str() {
        "always" | "unless-stopped" => !ended.by_hand,
        "on-failure" => {
            let retries = policy.maximum_retry_count;
            !ended.by_hand
                && ended.exit_code != 0
                && (retries == 0 || ended.restart_count < retries)
        }
        _ => false,
    };
    let delay = if ended.ran_for >= STABLE || ended.last_delay.is_zero() {
        FIRST
    } else {
        (ended.last_delay * 2).min(LONGEST)
    };
    again.then_some(delay)
}

/// Whether a container that does not run starts when the engine starts.
pub fn starts_with_engine(policy: &RestartPolicy, last: LastRun) -> bool {
    let LastRun {
        ran,
        exit_code,
        restart_count,
        by_hand,
    } = last;
    let retries = policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" => ran,
        "unless-stopped" => ran && !by_hand,
        "on-failure" => {
            ran && !by_hand && exit_code != 0 && (retries == 0 || restart_count < retries)
        }
        _ => false,
    }
}

/// What is known about a container that does not run.
#[derive(Debug, Clone, Copy)]
pub struct LastRun {
    /// It was started at some time.
    pub ran: bool,
    /// Its exit code.
    pub exit_code: i64,
    /// Restarts so far.
    pub restart_count: i64,
    /// Somebody stopped or killed it.
    pub by_hand: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, maximum_retry_count: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count,
        }
    }

    #[test]
    fn policies() {
        let ended = Ended {
            exit_code: 1,
            restart_count: 0,
            by_hand: false,
            ran_for: Duration::ZERO,
            last_delay: Duration::ZERO,
        };
        for (p, e, wanted) in [
            (policy("", 0), ended, false),
            (policy("no", 0), ended, false),
            (policy("always", 0), ended, true),
            (
                policy("always", 0),
                Ended {
                    exit_code: 0,
                    ..ended
                },
                true,
            ),
            (
                policy("always", 0),
                Ended {
                    by_hand: true,
                    ..ended
                },
                false,
            ),
            (
                policy("unless-stopped", 0),
                Ended {
                    by_hand: true,
                    ..ended
                },
                false,
            ),
            (policy("on-failure", 0), ended, true),
            (
                policy("on-failure", 0),
                Ended {
                    exit_code: 0,
                    ..ended
                },
                false,
            ),
            (
                policy("on-failure", 2),
                Ended {
                    restart_count: 1,
                    ..ended
                },
                true,
            ),
            (
                policy("on-failure", 2),
                Ended {
                    restart_count: 2,
                    ..ended
                },
                false,
            ),
        ] {
            assert_eq!(decide(&p, e).is_some(), wanted, "{p:?} {e:?}");
        }
    }

    #[test]
    fn what_starts_with_the_engine() {
        let failed = LastRun {
            ran: true,
            exit_code: 1,
            restart_count: 0,
            by_hand: false,
        };
        let stopped = LastRun {
            by_hand: true,
            ..failed
        };
        let tried = LastRun {
            restart_count: 2,
            ..failed
        };
        for (p, last, wanted) in [
            (policy("no", 0), failed, false),
            (policy("always", 0), stopped, true),
            (policy("unless-stopped", 0), stopped, false),
            (policy("unless-stopped", 0), failed, true),
            (policy("on-failure", 2), failed, true),
            (policy("on-failure", 2), stopped, false),
            (policy("on-failure", 2), tried, false),
            (policy("on-failure", 0), tried, true),
        ] {
            assert_eq!(starts_with_engine(&p, last), wanted, "{p:?} {last:?}");
        }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_reset() {
        let mut delay = Duration::ZERO;
        let mut all = Vec::new();
        for _ in 0..12 {
            let ended = Ended {
                exit_code: 1,
                restart_count: 0,
                by_hand: false,
                ran_for: Duration::ZERO,
                last_delay: delay,
            };
            delay = decide(&policy("always", 0), ended).unwrap();
            all.push(delay.as_millis());
        }
        assert_eq!(all[..4], [100, 200, 400, 800]);
        assert_eq!(all.last(), Some(&60_000));
        let ended = Ended {
            exit_code: 1,
            restart_count: 0,
            by_hand: false,
            ran_for: STABLE,
            last_delay: delay,
        };
        assert_eq!(decide(&policy("always", 0), ended), Some(FIRST));
    }
}
