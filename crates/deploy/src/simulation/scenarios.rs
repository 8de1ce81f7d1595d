//! Single stories: where replicas go, what is refused, and what stays as it is when something is wrong.

use std::collections::BTreeMap;

use windlass_compose::model::{
    Constraint, Deploy, Fleet, Ingress, Mode, Order, Port, Project, Service, Update,
};
use windlass_machine::{MachineName, Slot};

use super::projects::{Declared, Exposure, Ground, Shape};
use super::properties::{up, up_as};
use super::world::Sim;
use crate::error::{ActionError, DeployError, PlanError};
use crate::hosts::Host;
use crate::observe::{Contents, Observed, ObservedMachine, Reach};
use crate::plan::{Action, Note, Plan, Settings, plan};
use crate::spec::labels;

fn machine(name: &str, reach: Reach) -> (MachineName, ObservedMachine) {
    let name = MachineName::new(name).expect("name");
    let number: u32 = name.as_str().bytes().map(u32::from).sum();
    let host = Host {
        name: name.clone(),
        slot: None,
        project: None,
        labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        address: None,
        private_address: Some(format!("10.0.0.{}", number % 250)),
        ready: true,
        unfinished: false,
    };
    (name, ObservedMachine { host, reach })
}

fn ready() -> Reach {
    Reach::Ready(Box::new(Contents {
        architecture: "x86_64".to_owned(),
        images: [("httpd".to_owned(), "sha256:1".to_owned())].into(),
        ..Contents::default()
    }))
}

fn seen(names: &[&str]) -> Observed {
    Observed {
        machines: names.iter().map(|n| machine(n, ready())).collect(),
        foreign: Vec::new(),
    }
}

fn service(change: impl FnOnce(&mut Service)) -> Service {
    let mut service = Service {
        image: "httpd".to_owned(),
        ..Service::default()
    };
    change(&mut service);
    service
}

fn project(services: Vec<(&str, Service)>, fleets: &[(&str, u32, u32)]) -> Project {
    Project {
        name: "shop".to_owned(),
        services: services
            .into_iter()
            .map(|(n, s)| (n.to_owned(), s))
            .collect(),
        fleets: fleets
            .iter()
            .map(|(name, min, max)| {
                let fleet = Fleet {
                    min: *min,
                    max: *max,
                    ..Fleet::default()
                };
                ((*name).to_owned(), fleet)
            })
            .collect(),
        ..Project::default()
    }
}

fn on(key: &str, value: &str) -> Vec<Constraint> {
    vec![Constraint {
        key: key.to_owned(),
        equal: true,
        value: value.to_owned(),
    }]
}

fn port(published: u16) -> Vec<Port> {
    vec![Port {
        target: 80,
        published: Some(published),
        host_ip: None,
        protocol: "tcp".to_owned(),
    }]
}

fn ingress() -> Option<Ingress> {
    Some(Ingress {
        host: None,
        path: "/".to_owned(),
        port: 80,
        listen: 8080,
        health_path: None,
        drain: std::time::Duration::from_secs(5),
    })
}

/// Machine → replicas that the plan makes there.
fn made(plan: &Plan) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for step in &plan.steps {
        if let Action::CreateReplica { replica, .. } = &step.action {
            *count.entry(replica.machine.to_string()).or_default() += 1;
        }
    }
    count
}

fn planned(project: &Project, observed: &Observed) -> Result<Plan, PlanError> {
    let settings = Settings {
        ingress_images: [("x86_64".to_owned(), "windlass/ingress:1".to_owned())].into(),
        ..Settings::default()
    };
    plan(project, observed, &settings)
}

fn refused(project: &Project, observed: &Observed) -> String {
    planned(project, observed)
        .expect_err("is refused")
        .to_string()
}

#[test]
fn one_machine_or_one_fleet_needs_no_placement() {
    let web = || service(|s| s.deploy.mode = Mode::Replicated(2));
    let one = planned(&project(vec![("web", web())], &[]), &seen(&["vps"])).expect("plan");
    assert_eq!(made(&one), [("vps".to_owned(), 2)].into());
    let fleet = project(vec![("web", web())], &[("web", 2, 4)]);
    let fleet = planned(&fleet, &seen(&["vps"])).expect("plan");
    assert_eq!(
        made(&fleet),
        [("shop-web-1".to_owned(), 1), ("shop-web-2".to_owned(), 1)].into(),
        "the fleet, and not the machine that somebody made"
    );
}

/// The label that says who gets to the new replica on `b`, which has a public address only, while `a` has the proxy.
fn callers_on_b(a: &[&str; 2], change: fn(&mut Service)) -> Option<String> {
    let mut observed = seen(&["a", "b"]);
    let machines = observed.machines.values_mut();
    for ((machine, [address, own]), ordinal) in machines.zip([*a, ["198.18.0.2", ""]]).zip(1..) {
        let host = &mut machine.host;
        let fleet = "web".to_owned();
        host.slot = Some(Slot { fleet, ordinal });
        host.project = Some("shop".to_owned());
        host.address = Some(address.to_owned());
        host.private_address = (!own.is_empty()).then(|| own.to_owned());
    }
    let web = service(|s| {
        s.deploy.mode = Mode::Global;
        s.ingress = ingress();
        change(s);
    });
    let project = project(vec![("web", web)], &[("web", 1, 2)]);
    let settings = Settings {
        ingress_images: [("x86_64".to_owned(), "windlass/ingress:1".to_owned())].into(),
        scale: [("web".to_owned(), 2)].into(),
        ..Settings::default()
    };
    let plan = plan(&project, &observed, &settings).expect("plan");
    let labels = plan.steps.iter().find_map(|step| match &step.action {
        Action::CreateReplica {
            replica, container, ..
        } if replica.machine.as_str() == "b" => {
            Some(container.as_ref()?.create.config.labels.clone())
        }
        _ => None,
    });
    labels.expect("made").remove(labels::PUBLISH_FROM)
}

#[test]
fn only_the_proxies_get_to_a_replica_on_a_public_address() {
    let callers = |a| callers_on_b(a, |_| ());
    assert_eq!(
        callers(&["198.18.0.1", ""]).as_deref(),
        Some("198.18.0.1/32")
    );
    let both = callers(&["198.18.0.1", "10.0.0.1"]);
    assert_eq!(both.as_deref(), Some("10.0.0.1/32,198.18.0.1/32"));
    let named = callers(&["web1.example", "10.0.0.1"]);
    assert_eq!(
        named, None,
        "where the proxy's requests come from is not known"
    );
    let with_ports = callers_on_b(&["198.18.0.1", ""], |s| {
        s.ports = port(9000);
        s.deploy.update.order = Order::StopFirst;
    });
    assert_eq!(with_ports, None);
}

#[test]
fn replicas_are_spread_evenly() {
    let web = service(|s| {
        s.deploy.mode = Mode::Replicated(5);
        s.deploy.constraints = on("node.labels.disk", "ssd");
    });
    let plan = planned(
        &project(vec![("web", web)], &[]),
        &seen(&["a1", "a2", "a3"]),
    );
    let mut loads: Vec<usize> = made(&plan.expect("plan")).into_values().collect();
    loads.sort_unstable();
    assert_eq!(loads, [1, 2, 2]);
}

#[test]
fn an_unclear_place_is_refused_with_the_choices() {
    let web = || vec![("web", service(|_| ()))];
    let text = refused(&project(web(), &[]), &seen(&["a1", "a2"]));
    assert!(text.contains("machine a1, machine a2"), "{text}");
    assert!(text.contains("node.hostname == a1"), "{text}");
    let text = refused(&project(web(), &[("f", 1, 1), ("g", 1, 1)]), &seen(&[]));
    assert!(text.contains("fleet f, fleet g"), "{text}");
    assert!(text.contains("node.labels.fleet == f"), "{text}");
    let text = refused(&project(web(), &[]), &seen(&[]));
    assert!(text.contains("windlass create"), "{text}");
    let nowhere = service(|s| s.deploy.constraints = on("node.labels.fleet", "x"));
    let text = refused(&project(vec![("web", nowhere)], &[]), &seen(&["a1"]));
    assert!(
        text.contains("node.labels.fleet == x") && text.contains("a1"),
        "{text}"
    );
    let odd = service(|s| s.deploy.constraints = on("node.role", "manager"));
    let text = refused(&project(vec![("web", odd)], &[]), &seen(&["a1"]));
    assert!(text.contains("node.role"), "{text}");
}

#[test]
fn a_fixed_port_is_for_one_replica_a_machine() {
    let web = |n| {
        service(|s| {
            s.deploy.mode = Mode::Replicated(n);
            s.deploy.constraints = on("node.labels.disk", "ssd");
            s.ports = port(80);
        })
    };
    let observed = seen(&["a1", "a2"]);
    let two = planned(&project(vec![("web", web(2))], &[]), &observed).expect("plan");
    assert_eq!(
        made(&two),
        [("a1".to_owned(), 1), ("a2".to_owned(), 1)].into()
    );
    let three = planned(&project(vec![("web", web(3))], &[]), &observed).expect_err("three");
    assert!(
        matches!(
            three,
            PlanError::Port {
                port: 80,
                wanted: 3,
                possible: 2,
                ..
            }
        ),
        "{three:?}"
    );
    let global = || {
        service(|s| {
            s.deploy.mode = Mode::Global;
            s.ports = port(80);
        })
    };
    let both = project(vec![("a", global()), ("b", global())], &[]);
    let text = refused(&both, &seen(&["a1"]));
    assert!(
        text.contains("`a` and `b`") && text.contains("port 80"),
        "{text}"
    );
    let start_first = service(|s| {
        s.ports = port(80);
        s.deploy.update = Update {
            order: Order::StartFirst,
            parallelism: 1,
        };
    });
    let text = refused(&project(vec![("web", start_first)], &[]), &seen(&["a1"]));
    assert!(text.contains("start-first"), "{text}");
}

#[test]
fn the_ingress_is_on_the_machines_that_stay() {
    let web = service(|s| {
        s.deploy.mode = Mode::Global;
        s.ingress = ingress();
    });
    let project = project(vec![("web", web)], &[("web", 2, 9)]);
    let settings = Settings {
        scale: [("web".to_owned(), 4)].into(),
        ..Settings::default()
    };
    let plan = plan(&project, &seen(&[]), &settings).expect("plan");
    let proxies: Vec<String> = plan
        .steps
        .iter()
        .filter_map(|s| match &s.action {
            Action::StartIngress { machine, .. } => Some(machine.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(proxies, ["shop-web-1", "shop-web-2"]);
    assert_eq!(made(&plan).len(), 4);
}

#[test]
fn services_that_take_the_same_requests_are_refused() {
    let web = || service(|s| s.ingress = ingress());
    let both = project(vec![("a", web()), ("b", web())], &[]);
    let text = refused(&both, &seen(&["vps"]));
    assert!(
        text.contains("`a` and `b`") && text.contains("any host/"),
        "{text}"
    );
}

#[test]
fn an_unreachable_machine_is_never_counted_as_empty() {
    let web = service(|s| {
        s.deploy = Deploy {
            mode: Mode::Replicated(2),
            constraints: on("node.labels.disk", "ssd"),
            ..Deploy::default()
        };
    });
    let lost = Reach::Unreachable {
        reason: "no route to host".to_owned(),
    };
    let observed = Observed {
        machines: [machine("a1", ready()), machine("a2", lost)].into(),
        foreign: Vec::new(),
    };
    let plan = planned(&project(vec![("web", web)], &[]), &observed).expect("plan");
    assert_eq!(made(&plan), [("a1".to_owned(), 1)].into());
    assert!(
        matches!(&plan.notes[..], [Note::Unreachable { machine, .. }] if machine.as_str() == "a2")
    );
}

#[test]
fn a_plan_reads_as_one_line_a_step_and_shows_no_environment() {
    let web = service(|s| {
        s.environment.insert("TOKEN".to_owned(), "hush".to_owned());
    });
    let plan = planned(&project(vec![("web", web)], &[]), &seen(&["vps"])).expect("plan");
    assert_eq!(
        plan.to_string(),
        "create network shop_default on vps\ncreate web.1 on vps from httpd\nstart web.1 on vps\nwait until web.1 on vps is well\n"
    );
    let json = serde_json::to_string(&plan).expect("json");
    assert!(json.contains(r#""action":"create-replica""#), "{json}");
    assert!(!json.contains("hush"), "{json}");
}

fn two_of(version: u32, order: Order) -> Declared {
    let shape = |there| Shape {
        there,
        version,
        mode: Mode::Replicated(3),
        order,
        parallelism: 1,
        exposure: Exposure::Ingress,
        volume: false,
        fleet: 0,
        depends: None,
    };
    Declared {
        ground: Ground::Standalone(1),
        counts: Vec::new(),
        services: vec![shape(true), shape(false), shape(false)],
        proxy: 1,
    }
}

#[test]
fn a_replica_that_does_not_get_well_stops_the_rollout() {
    for (order, left) in [(Order::StartFirst, 3), (Order::StopFirst, 2)] {
        let sim = Sim::new("shop", 1);
        up(&sim, &two_of(1, order)).expect("the first version");
        sim.state().bad_images.insert("img-app:2".to_owned());
        for _ in 0..2 {
            let failed = up(&sim, &two_of(2, order)).expect_err("the second");
            match failed {
                DeployError::Step {
                    source: ActionError::Unwell { replica, .. },
                    ..
                } => assert_eq!(replica, "app.1 on vps1"),
                other => panic!("{other:?}"),
            }
            assert_eq!(sim.state().available("app"), left, "{order:?}");
        }
        up(&sim, &two_of(3, order)).expect("the third");
        assert_eq!(sim.state().available("app"), 3);
        assert!(sim.state().broken.is_empty(), "{:?}", sim.state().broken);
    }
}

#[test]
fn a_thousand_machines_are_rolled_over_in_one_plan() {
    let declared = |version| Declared {
        ground: Ground::Fleets(1),
        counts: vec![9],
        services: vec![
            Shape {
                mode: Mode::Global,
                parallelism: 20,
                ..two_of(version, Order::StartFirst).services[0].clone()
            },
            two_of(1, Order::StartFirst).services[1].clone(),
            two_of(1, Order::StartFirst).services[2].clone(),
        ],
        proxy: 1,
    };
    let many = |version| {
        let mut project = declared(version).project();
        for fleet in project.fleets.values_mut() {
            (fleet.min, fleet.max) = (3, 1000);
        }
        project
    };
    let sim = Sim::new("shop", 0);
    let scale: BTreeMap<String, u32> = [("f0".to_owned(), 1000)].into();
    for version in 1..=2 {
        let steps = up_as(&sim, &many(version), &scale).expect("up");
        assert!(steps > 3000, "{steps}");
        assert_eq!(sim.state().available("app"), 1000);
        assert!(sim.state().broken.is_empty(), "{:?}", sim.state().broken);
    }
}
