//! Single decisions.

use windlass_autoscale::{
    Config, ConfigError, Cpu, Decision, Observation, Reason, Sample, State, StepLimit, policy,
};

use crate::world::s;

const NOW: u64 = 10_000;

/// `warming`, `missing`, `stale` or a percentage.
fn sample(index: usize, what: &str) -> Sample {
    let missing = || Cpu::Missing {
        reason: "does not answer".to_owned(),
    };
    let (ready_at, cpu) = match what {
        "making" => (None, missing()),
        "warming" => (
            Some(s(NOW - 1)),
            Cpu::Percent {
                value: 100.0,
                at: s(NOW),
            },
        ),
        "missing" => (Some(s(0)), missing()),
        "stale" => (
            Some(s(0)),
            Cpu::Percent {
                value: 1.0,
                at: s(NOW - 61),
            },
        ),
        "nan" => (
            Some(s(0)),
            Cpu::Percent {
                value: f64::NAN,
                at: s(NOW),
            },
        ),
        value => (
            Some(s(0)),
            Cpu::Percent {
                value: value.parse().expect("number"),
                at: s(NOW),
            },
        ),
    };
    Sample {
        machine: format!("m{index}"),
        ready_at,
        cpu,
    }
}

fn observation(samples: &[&str]) -> Observation {
    Observation {
        current: u32::try_from(samples.len()).expect("few"),
        samples: samples
            .iter()
            .enumerate()
            .map(|(i, w)| sample(i, w))
            .collect(),
    }
}

/// Without a window, so that a single decision shows.
fn config() -> Config {
    let mut config = Config::new(1, 20, 60.0).expect("config");
    config.stabilisation_window = s(0);
    config.step_in = StepLimit {
        machines: 20,
        percent: 100,
    };
    config.step_out = StepLimit {
        machines: 20,
        percent: 100,
    };
    config
}

fn decide(samples: &[&str], config: &Config) -> Decision {
    let seen = observation(samples);
    // A tick long ago fills the window's first entry.
    let (state, _) = policy(
        &State::default(),
        &observation(&vec!["60"; samples.len()]),
        s(1),
        config,
    );
    policy(&state, &seen, s(NOW), config).1
}

#[test]
fn desired_counts() {
    let table: &[(&[&str], u32)] = &[
        (&["60", "60"], 2),
        (&["65", "65"], 2),
        (&["67", "67"], 3),
        (&["100", "100"], 4),
        (&["100", "20"], 2),
        (&["55", "55", "55"], 3),
        (&["20", "20", "20"], 1),
        (&["30", "30", "30", "30"], 2),
        (&["0", "0"], 1),
        // Help on its way weakens the call for more …
        (&["100", "warming"], 2),
        (&["100", "100", "warming"], 4),
        (&["100", "100", "making"], 4),
        // … and argues neither for nor against fewer.
        (&["10", "10", "warming"], 2),
        // Missing ones argue for nothing when there is too much to do, and forbid removing.
        (&["100", "missing"], 3),
        (&["0", "0", "0", "missing"], 4),
        (&["0", "0", "0", "stale"], 4),
        (&["0", "0", "0", "nan"], 4),
        (&["0", "0", "0", "-5"], 4),
        // Nothing is known at all.
        (&["missing", "missing"], 2),
        (&["warming", "warming"], 2),
        (&["making"], 1),
    ];
    for (samples, desired) in table {
        let decision = decide(samples, &config());
        assert_eq!(decision.desired, *desired, "{samples:?}: {decision}");
    }
}

#[test]
fn unlisted_machines_count_as_being_made() {
    let mut seen = observation(&["100"]);
    seen.current = 2;
    assert_eq!(
        policy(&State::default(), &seen, s(NOW), &config())
            .1
            .desired,
        2
    );
}

#[test]
fn bounds_hold_whatever_the_metrics_say() {
    let mut c = config();
    (c.min, c.max) = (3, 4);
    assert_eq!(decide(&["0"], &c).reason, Reason::BelowMin { min: 3 });
    assert_eq!(decide(&["missing"], &c).desired, 3);
    assert_eq!(decide(&["100"; 6], &c).desired, 4);
    assert_eq!(
        decide(&["missing"; 6], &c).reason,
        Reason::AboveMax { max: 4 }
    );
    assert_eq!(decide(&["0"; 3], &c).reason, Reason::AtMin);
    assert_eq!(decide(&["100"; 4], &c).reason, Reason::AtMax);
}

#[test]
fn steps_are_limited() {
    let mut c = config();
    (c.step_out, c.step_in) = (
        StepLimit {
            machines: 1,
            percent: 50,
        },
        StepLimit {
            machines: 2,
            percent: 10,
        },
    );
    assert_eq!(decide(&["100"; 1], &c).desired, 2);
    assert_eq!(decide(&["100"; 8], &c).desired, 12);
    assert_eq!(decide(&["1"; 8], &c).desired, 6);
    assert_eq!(
        StepLimit {
            machines: 1,
            percent: 10
        }
        .of(30),
        3
    );
    assert_eq!(
        StepLimit {
            machines: 1,
            percent: 0
        }
        .of(u32::MAX),
        1
    );
}

#[test]
fn cooldowns_and_window() {
    let mut c = config();
    c.stabilisation_window = s(300);
    let (high, low) = (observation(&["90", "90"]), observation(&["5", "5", "5"]));
    let (state, out) = policy(&State::default(), &high, s(NOW), &c);
    assert_eq!((out.desired, &out.reason), (3, &Reason::ScaleOut));
    let (_, again) = policy(
        &state,
        &observation(&["100", "100", "100"]),
        s(NOW + 29),
        &c,
    );
    assert_eq!(
        (again.desired, again.reason),
        (3, Reason::OutCooldown { left: s(1) })
    );
    let mut fresh = low.clone();
    let at = |seen: &mut Observation, now: u64| {
        for sample in &mut seen.samples {
            sample.cpu = Cpu::Percent {
                value: 5.0,
                at: s(now),
            };
        }
    };
    at(&mut fresh, NOW + 300);
    let (state, held) = policy(&state, &fresh, s(NOW + 300), &c);
    assert_eq!(
        (held.desired, held.reason),
        (
            3,
            Reason::Stabilising {
                highest: 3,
                window: s(300)
            }
        )
    );
    at(&mut fresh, NOW + 301);
    let (state, down) = policy(&state, &fresh, s(NOW + 301), &c);
    assert_eq!((down.desired, down.reason), (1, Reason::ScaleIn));
    let mut two = observation(&["5", "5"]);
    at(&mut two, NOW + 310);
    let (_, held) = policy(&state, &two, s(NOW + 310), &c);
    assert_eq!(
        (held.desired, held.reason),
        (2, Reason::InCooldown { left: s(51) })
    );
}

#[test]
fn reasons_read_well() {
    let c = config();
    for (samples, text) in [
        (
            vec!["100", "100"],
            "2 -> 4 machines: mean cpu 100 %, above the target",
        ),
        (
            vec!["60", "60"],
            "2 machines stay: mean cpu 60 %, near the target",
        ),
        (
            vec!["5", "5", "missing"],
            "3 machines stay: mean cpu 5 %, none is removed while the load of 1 is not known (m2: does not answer)",
        ),
        (
            vec!["missing"],
            "1 machine stays: no machine has usable metrics (m0: does not answer)",
        ),
    ] {
        assert_eq!(decide(&samples, &c).to_string(), text);
    }
}

#[test]
fn settings_are_checked() {
    assert_eq!(
        Config::new(3, 2, 60.0),
        Err(ConfigError::Bounds { min: 3, max: 2 })
    );
    for target in [0.0, -1.0, 101.0, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Config::new(1, 2, target), Err(ConfigError::Target(_))),
            "{target}"
        );
    }
    let mut c = config();
    c.tolerance = 1.0;
    assert_eq!(c.validate(), Err(ConfigError::Tolerance(1.0)));
}

/// A fleet that stays as it is says which of the three reasons it has.
#[test]
fn staying_has_its_own_reason() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["62", "58"],
            "2 machines stay: mean cpu 60 %, near the target",
        ),
        (
            &["33", "33"],
            "2 machines stay: mean cpu 33 %, below the target, but fewer would be above it",
        ),
        (
            &["98", "98", "warming", "warming"],
            "4 machines stay: mean cpu 98 %, above the target, but 2 further machines are warming up",
        ),
        (
            &["90", "making"],
            "2 machines stay: mean cpu 90 %, above the target, but a further machine is warming up",
        ),
    ];
    for (samples, words) in cases {
        let (_, decision) = policy(&State::default(), &observation(samples), s(NOW), &config());
        assert_eq!(decision.to_string(), words, "{samples:?}");
    }
}
