//! The promises, held against random projects, random changes and random faults:
//! what is applied is what was declared, and planning it again gives nothing; no service falls below its declared availability; no
//! replica is stopped while a table routes to it; no volume is removed without asking.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use windlass_compose::model::{Mode, Project};

use super::projects::{Declared, Ground, Phase, declared, phases};
use super::world::{Fault, Sim, State};
use crate::apply::{World, converge};
use crate::error::Result;
use crate::hosts::Host;
use crate::observe::{Availability, ReplicaState};
use crate::plan::{Note, Settings, Volumes, plan, plan_down};
use crate::report::Silent;
use crate::spec::labels;

/// Runs without a runtime: nothing in the simulation waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn settings(declared: &Declared) -> Settings {
    Settings {
        scale: declared.scale(),
        ingress_images: [(
            "x86_64".to_owned(),
            format!("windlass/ingress:{}", declared.proxy),
        )]
        .into(),
        ..Settings::default()
    }
}

pub(super) fn up(sim: &Sim, declared: &Declared) -> Result<(usize, Vec<Note>)> {
    let project = declared.project();
    let settings = Settings {
        formerly: sim.state().applied.clone(),
        ..settings(declared)
    };
    sim.declare(&project, &settings.scale);
    let decide =
        move |observed: &crate::observe::Observed, _: usize| plan(&project, observed, &settings);
    run(converge(sim, &Silent, &decide))
}

/// With a project and counts that no [`Declared`] has.
pub(super) fn up_as(
    sim: &Sim,
    project: &Project,
    scale: &std::collections::BTreeMap<String, u32>,
) -> Result<usize> {
    let settings = Settings {
        scale: scale.clone(),
        ingress_images: [("x86_64".to_owned(), "windlass/ingress:1".to_owned())].into(),
        ..Settings::default()
    };
    sim.declare(project, scale);
    let decide =
        move |observed: &crate::observe::Observed, _: usize| plan(project, observed, &settings);
    run(converge(sim, &Silent, &decide)).map(|(steps, _)| steps)
}

fn down(sim: &Sim, volumes: Volumes) -> Result<(usize, Vec<Note>)> {
    sim.declare_nothing();
    let decide = move |observed: &crate::observe::Observed, _: usize| {
        Ok(plan_down("shop", observed, volumes))
    };
    run(converge(sim, &Silent, &decide))
}

fn unbroken(sim: &Sim) -> Result<(), TestCaseError> {
    let broken = sim.state().broken.clone();
    prop_assert!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

/// Everything is as declared; found out without asking the planner.
fn as_declared(sim: &Sim, declared: &Declared, saw_everything: bool) -> Result<(), TestCaseError> {
    let project = declared.project();
    let scale = declared.scale();
    let state = sim.state();
    let machines = |of: &str| -> usize {
        let members = state.machines.keys().filter(|m| m.as_str().contains(of));
        members.count()
    };
    for (fleet, count) in &scale {
        prop_assert_eq!(machines(&format!("-{fleet}-")), *count as usize);
    }
    let names: BTreeSet<&String> = project.services.keys().collect();
    for (machine, m) in &state.machines {
        for replica in &m.contents.replicas {
            prop_assert!(names.contains(&replica.service), "{replica:?} on {machine}");
            prop_assert_eq!(&replica.image, &project.services[&replica.service].image);
        }
    }
    for (i, shape) in declared.services.iter().enumerate() {
        let name = super::projects::service_name(i);
        let Some(service) = project.services.get(&name) else {
            prop_assert!(!shape.there);
            continue;
        };
        let eligible = match (declared.ground, service.deploy.constraints.first()) {
            (Ground::Standalone(_), Some(c)) if c.equal => 1,
            (Ground::Standalone(n), _) => n,
            (Ground::Fleets(n), _) => scale[&format!("f{}", shape.fleet % n)] as usize,
        };
        let wanted = match service.deploy.mode {
            Mode::Global => eligible,
            Mode::Replicated(n) => n as usize,
        };
        let mut loads = Vec::new();
        for m in state.machines.values() {
            let here = m.contents.replicas.iter().filter(|r| r.service == name);
            let good = here.filter(|r| {
                if declared.is_awaited(i) {
                    r.state == ReplicaState::Exited { code: 0 }
                } else {
                    r.availability == Availability::Available
                }
            });
            loads.push(good.count());
        }
        prop_assert_eq!(
            loads.iter().sum::<usize>(),
            wanted,
            "{} {:?}",
            name,
            service.deploy
        );
        let numbers: Vec<u32> = state
            .machines
            .values()
            .flat_map(|m| &m.contents.replicas)
            .filter(|r| r.service == name)
            .map(|r| r.number)
            .collect();
        let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
        if saw_everything {
            prop_assert_eq!(distinct.len(), numbers.len(), "{}: {:?}", name, numbers);
        }
        if service.deploy.mode == Mode::Global {
            prop_assert!(loads.iter().all(|l| *l <= 1));
        }
    }
    drop(state);
    tables_are_right(sim, &project, declared)
}

fn tables_are_right(
    sim: &Sim,
    project: &Project,
    declared: &Declared,
) -> Result<(), TestCaseError> {
    let state = sim.state();
    for (i, _) in declared.services.iter().enumerate() {
        let name = super::projects::service_name(i);
        let Some(ingress) = project.services.get(&name).and_then(|s| s.ingress.as_ref()) else {
            continue;
        };
        let wanted: BTreeSet<_> = state
            .machines
            .values()
            .flat_map(|m| &m.contents.replicas)
            .filter(|r| r.service == name)
            .flat_map(|r| &r.ports)
            .map(|(_, address)| *address)
            .collect();
        let mut proxies = 0;
        for m in state.machines.values() {
            let Some(answer) = m.contents.ingress.as_ref().and_then(|p| p.answer.as_ref()) else {
                continue;
            };
            let route = answer.0.routes.iter().find(|r| r.host == ingress.host);
            if let Some(route) = route {
                proxies += 1;
                let routed: BTreeSet<_> = route.upstreams.iter().map(|u| u.address).collect();
                prop_assert_eq!(&routed, &wanted);
                only_proxies_are_let_in(&state, &name, &m.host)?;
            }
        }
        prop_assert!(proxies > 0, "nobody routes {}", name);
    }
    Ok(())
}

/// Replicas on a public address let this proxy in, and not everybody.
fn only_proxies_are_let_in(
    state: &State,
    service: &str,
    proxy: &Host,
) -> Result<(), TestCaseError> {
    let proxy = format!("{}/32", proxy.address.as_deref().unwrap_or_default());
    for m in state.machines.values() {
        let here = m.contents.replicas.iter().filter(|r| r.service == service);
        for replica in here {
            let spec = &m.specs[&replica.name].create.config.labels;
            let callers = spec.get(labels::PUBLISH_FROM);
            prop_assert_eq!(callers.is_none(), m.host.private_address.is_some());
            let let_in = callers.is_none_or(|c| c.split(',').any(|c| c == proxy));
            prop_assert!(let_in, "{} is refused by {:?}", proxy, callers);
        }
    }
    Ok(())
}

fn case(mut declared: Declared, phases: &[Phase]) -> Result<(), TestCaseError> {
    let standalone = match declared.ground {
        Ground::Standalone(n) => n,
        Ground::Fleets(_) => 0,
    };
    let sim = Sim::new("shop", standalone);
    let mut volumes = BTreeSet::new();
    let mut saw_everything = true;
    for phase in phases {
        for tweak in &phase.tweaks {
            declared.change(tweak);
        }
        for (after, fault) in &phase.faults {
            sim.state().inject(*after, *fault);
        }
        // Run again after each fault, as somebody would who reads the error.
        for _ in 0..=phase.faults.len() {
            let _ = up(&sim, &declared);
            unbroken(&sim)?;
        }
        sim.state().heal();
        if let Err(e) = up(&sim, &declared) {
            return Err(TestCaseError::fail(format!("{e:?}")));
        }
        unbroken(&sim)?;
        // A number may be given twice while the machine that has it cannot be seen.
        saw_everything &= phase
            .faults
            .iter()
            .all(|(_, f)| !matches!(f, Fault::MachineLost(_)));
        as_declared(&sim, &declared, saw_everything)?;
        sim.state().applied = Some(declared.project());
        let (steps, _) = up(&sim, &declared).expect("a second time");
        prop_assert_eq!(steps, 0, "planning what has been applied");
        let state = sim.state();
        for (name, m) in &state.machines {
            for v in m.contents.volumes.iter().filter(|v| v.ours) {
                volumes.insert((name.clone(), v.name.clone()));
            }
        }
        volumes.retain(|(m, _)| state.machines.contains_key(m));
    }
    prop_assert!(sim.state().removed_volumes.is_empty());
    take_down(&sim, &volumes, standalone)
}

fn take_down(
    sim: &Sim,
    volumes: &BTreeSet<(windlass_machine::MachineName, String)>,
    standalone: usize,
) -> Result<(), TestCaseError> {
    down(sim, Volumes::Keep).expect("down");
    unbroken(sim)?;
    let kept: BTreeSet<_> = {
        let state = sim.state();
        let all = state.machines.iter();
        all.flat_map(|(n, m)| {
            let contents = &m.contents;
            assert!(contents.replicas.is_empty() && contents.ingress.is_none());
            assert!(contents.networks.is_empty());
            contents.volumes.iter().map(|v| (n.clone(), v.name.clone()))
        })
        .collect()
    };
    prop_assert_eq!(&kept, volumes, "down without -v keeps volumes");
    prop_assert_eq!(down(sim, Volumes::Keep).expect("again").0, 0);
    down(sim, Volumes::Remove).expect("down -v");
    let state = sim.state();
    prop_assert_eq!(state.machines.len(), standalone);
    prop_assert!(
        state
            .machines
            .values()
            .all(|m| m.contents.volumes.is_empty())
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(1000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens(declared in declared(), phases in phases()) {
        case(declared, &phases)?;
    }
}

/// The plan is a function: the same in, the same out.
#[test]
fn planning_twice_gives_the_same_plan() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let declared = declared().new_tree(&mut runner).expect("tree").current();
        let Ground::Fleets(_) = declared.ground else {
            continue;
        };
        let sim = Sim::new("shop", 0);
        let project = declared.project();
        let observed = run(sim.observe()).expect("observed");
        let settings = settings(&declared);
        let one = plan(&project, &observed, &settings);
        assert_eq!(one, plan(&project, &observed, &settings));
        let order_holds = one
            .expect("plan")
            .steps
            .iter()
            .enumerate()
            .all(|(i, s)| s.after.iter().all(|a| *a < i));
        assert!(order_holds);
    }
}
