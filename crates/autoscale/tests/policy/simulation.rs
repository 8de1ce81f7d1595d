//! Whole days in virtual time.

use windlass_autoscale::{Config, Reason};

use crate::world::{Tick, Turn, World, s, turns_within};

fn fleet(count: u32) -> World {
    World::new(Config::new(2, 20, 60.0).expect("config"), count, s(60))
}

#[test]
fn a_jump_is_followed_in_three_rounds() {
    let mut world = fleet(2);
    for _ in 0..40 {
        world.tick(1.0, s(15));
    }
    assert_eq!(world.count(), 2);
    let begun = world.now;
    let mut reached = None;
    for _ in 0..60 {
        let tick = world.tick(4.8, s(15));
        if reached.is_none() && tick.demand_percent <= 66.0 {
            reached = Some(tick.now - begun);
        }
    }
    assert_eq!(world.count(), 8);
    let lag = reached.expect("it catches up");
    println!(
        "from 2 to 8 machines' worth: on target after {} s (a machine takes 60 s)",
        lag.as_secs()
    );
    // A machine at 100 % hides how much waits behind it, so the fleet at most doubles a round, and a round is boot and warm-up.
    assert!(lag <= s(270), "{lag:?}");
}

#[test]
fn a_short_peak_is_remembered_then_forgotten() {
    let mut world = fleet(2);
    world.tick(1.0, s(15));
    for _ in 0..20 {
        world.tick(3.0, s(15));
    }
    let peak = world.count();
    assert_eq!(peak, 5);
    let over = world.now;
    let mut first_in = None;
    for _ in 0..120 {
        let tick = world.tick(1.0, s(15));
        if tick.decision.desired < tick.decision.current && first_in.is_none() {
            first_in = Some(tick.now - over);
        }
    }
    assert_eq!(world.count(), 2);
    let first_in = first_in.expect("it shrinks");
    assert!((s(285)..=s(330)).contains(&first_in), "{first_in:?}");
}

#[test]
fn a_load_on_the_edge_does_not_flap() {
    // Exactly the load at which one machine more or less is a matter of opinion, with noise of 8 %.
    let mut world = fleet(4);
    let mut seed = 7u64;
    let ticks: Vec<Tick> = (0..5760)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let noise = ((seed >> 33) as f64 / f64::from(1u32 << 31) - 0.5) * 0.16;
            world.tick(2.4 * (1.0 + noise), s(15))
        })
        .collect();
    let changes = ticks.iter().filter(|t| t.decision.changes()).count();
    println!("a day of noise on the edge: {changes} changes");
    assert!(changes <= 4, "{changes} changes");
}

#[test]
fn an_outage_of_the_metrics_freezes_the_fleet() {
    let mut world = fleet(6);
    for _ in 0..10 {
        world.tick(3.6, s(15));
    }
    world.missing = (0..20).collect();
    for _ in 0..200 {
        let tick = world.tick(0.0, s(15));
        assert!(!tick.decision.changes());
        assert!(matches!(tick.decision.reason, Reason::NoMetrics { .. }));
    }
    world.missing.clear();
    for _ in 0..200 {
        world.tick(0.0, s(15));
    }
    assert_eq!(world.count(), 2);
}

#[test]
fn a_machine_that_never_comes_up_does_not_stop_the_rest() {
    let mut world = fleet(2);
    world.boot = s(1_000_000);
    for _ in 0..40 {
        world.tick(2.0, s(15));
    }
    // Two at 100 % want four; the two ordered ones are the help on its way, and no more is bought.
    assert_eq!(world.count(), 4);
    for _ in 0..80 {
        world.tick(0.2, s(15));
    }
    // They count as on target, which delays the way back but does not bar it.
    assert_eq!(world.count(), 2);
}

#[test]
fn nothing_is_removed_within_the_window() {
    let mut world = fleet(3);
    let ticks: Vec<Tick> = (0..5760)
        .map(|i| {
            let hour = f64::from(i) * 15.0 / 3600.0;
            let wave =
                4.0 + 3.0 * (hour * std::f64::consts::TAU / 24.0).sin() + 0.5 * (hour * 40.0).sin();
            world.tick(wave, s(15))
        })
        .collect();
    let changes = ticks.iter().filter(|t| t.decision.changes()).count();
    let (regrets, returns) = (
        turns_within(&ticks, Turn::OutThenIn, s(300)),
        turns_within(&ticks, Turn::InThenOut, s(120)),
    );
    println!("a day of waves: {changes} changes, {returns} times out soon after in");
    assert_eq!(regrets, 0);
}
