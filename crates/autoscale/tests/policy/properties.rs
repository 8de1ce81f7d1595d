//! What holds for every load, every fault and every setting.

use std::time::Duration;

use proptest::prelude::*;
use windlass_autoscale::{Config, Cpu, Observation, Sample, State, StepLimit, policy};

use crate::world::{World, s};

fn config() -> impl Strategy<Value = Config> {
    (
        1u32..5,
        0u32..30,
        20.0..100.0f64,
        0u64..120,
        0u64..120,
        0u64..400,
        (1u32..5, 0u32..100, 1u32..5, 0u32..50),
    )
        .prop_map(
            |(min, more, target, out, inward, window, (om, op, im, ip))| {
                let mut c = Config::new(min, min + more, target).expect("config");
                c.scale_out_cooldown = s(out);
                c.scale_in_cooldown = s(inward);
                c.stabilisation_window = s(window);
                c.step_out = StepLimit {
                    machines: om,
                    percent: op,
                };
                c.step_in = StepLimit {
                    machines: im,
                    percent: ip,
                };
                c
            },
        )
}

/// A sample of any kind at time 1000.
fn sample() -> impl Strategy<Value = Sample> {
    let cpu = prop_oneof![
        6 => (0.0..120.0f64).prop_map(|value| Cpu::Percent { value, at: s(1000) }),
        1 => (0.0..120.0f64).prop_map(|value| Cpu::Percent { value, at: s(10) }),
        1 => Just(Cpu::Percent { value: f64::NAN, at: s(1000) }),
        1 => Just(Cpu::Missing { reason: "lost".to_owned() }),
    ];
    let ready = prop_oneof![6 => Just(Some(s(0))), 1 => Just(None), 1 => Just(Some(s(990)))];
    (ready, cpu).prop_map(|(ready_at, cpu)| Sample {
        machine: "m".to_owned(),
        ready_at,
        cpu,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn within_bounds_and_steps(c in config(), samples in prop::collection::vec(sample(), 0..12), current in 0u32..40) {
        let seen = Observation { current, samples };
        let (_, d) = policy(&State::default(), &seen, s(1000), &c);
        prop_assert!(d.desired <= c.max || d.desired < current, "{}", d);
        prop_assert!(d.desired >= c.min, "{}", d);
        if (c.min..=c.max).contains(&current) {
            prop_assert!(d.desired <= current + c.step_out.of(current));
            prop_assert!(d.desired + c.step_in.of(current) >= current);
        }
    }

    #[test]
    fn unknown_load_never_removes(c in config(), samples in prop::collection::vec(sample(), 0..12), place in any::<prop::sample::Index>()) {
        let mut c = c;
        c.stabilisation_window = Duration::ZERO;
        c.scale_in_cooldown = Duration::ZERO;
        c.max += 12;
        let mut samples = samples;
        let lost = Sample { machine: "lost".to_owned(), ready_at: Some(s(0)), cpu: Cpu::Missing { reason: "lost".to_owned() } };
        samples.insert(place.index(samples.len() + 1), lost);
        let current = u32::try_from(samples.len()).expect("few");
        let (state, _) = policy(&State::default(), &Observation { current, samples: Vec::new() }, s(1), &c);
        let (_, d) = policy(&state, &Observation { current, samples }, s(1000), &c);
        prop_assert!(d.desired >= current, "{}", d);
    }

    #[test]
    fn more_load_never_means_fewer(c in config(), loads in prop::collection::vec(0.0..100.0f64, 1..10), more in 0.0..50.0f64) {
        let mut c = c;
        c.stabilisation_window = Duration::ZERO;
        let current = u32::try_from(loads.len()).expect("few");
        let seen = |extra: f64| Observation {
            current,
            samples: loads
                .iter()
                .map(|l| Sample { machine: "m".into(), ready_at: Some(s(0)), cpu: Cpu::Percent { value: l + extra, at: s(1000) } })
                .collect(),
        };
        let (state, _) = policy(&State::default(), &Observation { current, samples: Vec::new() }, s(1), &c);
        let less = policy(&state, &seen(0.0), s(1000), &c).1.desired;
        let greater = policy(&state, &seen(more), s(1000), &c).1.desired;
        prop_assert!(greater >= less);
    }

    #[test]
    fn the_same_again_is_the_same(c in config(), samples in prop::collection::vec(sample(), 0..12), current in 0u32..20) {
        let seen = Observation { current, samples };
        let (a, b) = (policy(&State::default(), &seen, s(1000), &c), policy(&State::default(), &seen, s(1000), &c));
        // A NaN in the mean is not equal to itself; samples with one are never in the mean.
        prop_assert_eq!(a, b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A constant load comes to rest, near the target, and stays.
    #[test]
    fn a_constant_load_comes_to_rest(load in 0.0..15.0f64, begin in 1u32..20, boot in 0u64..120) {
        let c = Config::new(1, 30, 60.0).expect("config");
        let mut world = World::new(c, begin, s(boot));
        for _ in 0..800 {
            world.tick(load, s(15));
        }
        let settled = world.count();
        let exact = (load / 0.6).ceil().max(1.0) as u32;
        // From above it rests within the tolerance, from below at the next whole machine.
        let least = (load / (0.6 * 1.1)).ceil().max(1.0) as u32;
        let most = ((load / (0.6 * 0.9)).floor() as u32 + 1).max(exact);
        prop_assert!((least..=most).contains(&settled), "{} rests at {}, not {}..={}", load, settled, least, most);
        for _ in 0..200 {
            prop_assert!(!world.tick(load, s(15)).decision.changes());
        }
    }

    /// Whatever fails and whatever the load does: a machine is never removed while one is unknown.
    #[test]
    fn faults_never_shrink(loads in prop::collection::vec((0.0..10.0f64, prop::collection::btree_set(0u32..20, 0..3)), 50..150)) {
        let mut c = Config::new(1, 30, 60.0).expect("config");
        c.stabilisation_window = s(60);
        let mut world = World::new(c, 5, s(40));
        for (load, missing) in loads {
            world.missing = missing;
            let (now, warm_up) = (world.now + s(15), world.config.warm_up);
            let lost = world.machines.iter().any(|m| world.missing.contains(&m.name) && m.ready_at + warm_up <= now);
            let tick = world.tick(load, s(15));
            prop_assert!(!lost || tick.decision.desired >= tick.decision.current, "{}", tick.decision);
        }
    }
}
