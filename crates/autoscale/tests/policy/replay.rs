//! Recorded loads, read from the folder that `WINDLASS_TRACES` names: `*.csv` with the header `unix_seconds,value`.

use std::path::Path;

use windlass_autoscale::Config;

use crate::world::{Tick, Turn, World, s, turns_within};

struct Trace {
    name: String,
    rows: Vec<(u64, f64)>,
}

fn read(path: &Path) -> Trace {
    let text = std::fs::read_to_string(path).expect("a readable trace");
    let rows = text
        .lines()
        .skip(1)
        .map(|line| {
            let (time, value) = line.split_once(',').expect("two columns");
            (
                time.parse::<f64>().expect("seconds") as u64,
                value.parse().expect("a number"),
            )
        })
        .collect();
    Trace {
        name: path
            .file_stem()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        rows,
    }
}

struct Outcome {
    ticks: Vec<Tick>,
    changes: usize,
    regrets: usize,
    returns: usize,
    /// Shares of the ticks.
    over_100: f64,
    late: f64,
    machine_hours: f64,
    static_hours: f64,
}

/// Replays a trace so that its peak needs 16 machines on target of at most 20; a machine takes a minute to come up.
fn replay(trace: &Trace) -> Outcome {
    let peak = trace.rows.iter().map(|(_, v)| *v).fold(0.0, f64::max);
    let scale = 16.0 * 0.6 / peak;
    let mut world = World::new(Config::new(2, 20, 60.0).expect("config"), 2, s(60));
    let (mut ticks, mut machine_seconds, mut most) = (Vec::new(), 0.0, 0u32);
    let (mut over, mut late, mut late_run) = (0usize, 0usize, 0u32);
    for pair in trace.rows.windows(2) {
        // Gaps in a recording are cut short.
        let length = (pair[1].0.saturating_sub(pair[0].0)).clamp(15, 900);
        for step in 0..length / 15 {
            // Loads do not jump at the ends of intervals.
            let share = step as f64 / (length / 15) as f64;
            let load = (pair[0].1 + (pair[1].1 - pair[0].1) * share) * scale;
            let tick = world.tick(load, s(15));
            over += usize::from(tick.demand_percent > 100.0);
            late_run = if tick.demand_percent > 60.0 * 1.1 {
                late_run + 1
            } else {
                0
            };
            // Boot and warm-up are 90 s: above the target for longer than 150 s is a lag of the policy.
            late += usize::from(late_run > 10);
            machine_seconds += f64::from(world.count()) * 15.0;
            most = most.max(world.count());
            ticks.push(tick);
        }
    }
    let total = ticks.len() as f64;
    Outcome {
        changes: ticks.iter().filter(|t| t.decision.changes()).count(),
        regrets: turns_within(&ticks, Turn::OutThenIn, s(300)),
        returns: turns_within(&ticks, Turn::InThenOut, s(120)),
        over_100: over as f64 / total,
        late: late as f64 / total,
        machine_hours: machine_seconds / 3600.0,
        static_hours: f64::from(most) * total * 15.0 / 3600.0,
        ticks,
    }
}

#[test]
fn recorded_loads_are_followed_without_flapping() {
    let folder = match std::env::var("WINDLASS_TRACES") {
        Ok(folder) if !folder.is_empty() => folder,
        _ => {
            println!("skipped: WINDLASS_TRACES names no folder with traces");
            return;
        }
    };
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of WINDLASS_TRACES")
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "csv"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no *.csv in {folder}");
    for file in files {
        let trace = read(&file);
        let o = replay(&trace);
        let days = o.ticks.len() as f64 * 15.0 / 86400.0;
        println!(
            "{}: {days:.1} days, {:.1} changes a day, {} times out within 120 s of in, above 100 % in {:.3} % of the time, \
             late in {:.3} %, {:.0} machine hours ({:.0} % of a fleet as large as its peak)",
            trace.name,
            o.changes as f64 / days,
            o.returns,
            o.over_100 * 100.0,
            o.late * 100.0,
            o.machine_hours,
            100.0 * o.machine_hours / o.static_hours,
        );
        assert_eq!(o.regrets, 0, "{}: it flaps", trace.name);
        assert!(
            (o.returns as f64) < days,
            "{}: it gives up too early {} times",
            trace.name,
            o.returns
        );
        assert!(
            o.over_100 < 0.02,
            "{}: overloaded in {:.2} % of the time",
            trace.name,
            o.over_100 * 100.0
        );
        assert!(
            o.late < 0.02,
            "{}: late in {:.2} % of the time",
            trace.name,
            o.late * 100.0
        );
        assert!(o.machine_hours < o.static_hours);
    }
}
