//! Random projects, and what changes in them from one `up` to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use windlass_compose::model::{
    Constraint, Dependency, Deploy, Fleet, Ingress, Mode, Order, Port, Project, Service,
    ServiceVolume, Update, VolumeDecl,
};

use super::world::Fault;

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Exposure {
    Nothing,
    Ingress,
    FixedPort,
}

/// What varies of a service.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) there: bool,
    pub(super) version: u32,
    pub(super) mode: Mode,
    pub(super) order: Order,
    pub(super) parallelism: u32,
    pub(super) exposure: Exposure,
    pub(super) volume: bool,
    pub(super) fleet: usize,
    pub(super) depends: Option<Dependency>,
}

/// Where things run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ground {
    /// So many machines by `windlass create`.
    Standalone(usize),
    /// So many fleets.
    Fleets(usize),
}

/// Everything declared.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) ground: Ground,
    pub(super) counts: Vec<u32>,
    pub(super) services: Vec<Shape>,
    pub(super) proxy: u32,
}

/// A change.
#[derive(Clone, Debug)]
pub(super) enum Tweak {
    Service(usize, Shape),
    Version(usize, u32),
    Mode(usize, Mode),
    Toggle(usize),
    Count(usize, u32),
    Proxy(u32),
}

/// One `up`: what has changed before, and what goes wrong meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) tweaks: Vec<Tweak>,
    pub(super) faults: Vec<(usize, Fault)>,
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        1 => Just(Mode::Global),
        2 => (0u32..5).prop_map(Mode::Replicated),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let exposure = prop_oneof![
        2 => Just(Exposure::Nothing),
        4 => Just(Exposure::Ingress),
        1 => Just(Exposure::FixedPort),
    ];
    let depends = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Dependency::Started)),
        1 => Just(Some(Dependency::Healthy)),
        1 => Just(Some(Dependency::Completed)),
    ];
    let order = prop_oneof![Just(Order::StartFirst), Just(Order::StopFirst)];
    let numbers = (1u32..3, 1u32..4, 0usize..2);
    (
        prop::bool::weighted(0.8),
        numbers,
        mode(),
        order,
        exposure,
        any::<bool>(),
        depends,
    )
        .prop_map(
            |(there, (version, parallelism, fleet), mode, order, exposure, volume, depends)| {
                Shape {
                    there,
                    version,
                    mode,
                    order,
                    parallelism,
                    exposure,
                    volume,
                    fleet,
                    depends,
                }
            },
        )
}

fn tweak() -> impl Strategy<Value = Tweak> {
    prop_oneof![
        2 => (0usize..3, shape()).prop_map(|(i, s)| Tweak::Service(i, s)),
        4 => (0usize..3, 1u32..4).prop_map(|(i, v)| Tweak::Version(i, v)),
        2 => (0usize..3, mode()).prop_map(|(i, m)| Tweak::Mode(i, m)),
        1 => (0usize..3).prop_map(Tweak::Toggle),
        3 => (0usize..2, 1u32..5).prop_map(|(f, n)| Tweak::Count(f, n)),
        1 => (1u32..3).prop_map(Tweak::Proxy),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::InterruptedBefore),
        2 => Just(Fault::InterruptedAfter),
        3 => (0usize..20).prop_map(Fault::ContainerDies),
        1 => (0usize..20).prop_map(Fault::MachineLost),
    ]
}

/// What is declared first.
pub(super) fn declared() -> impl Strategy<Value = Declared> {
    let ground = prop_oneof![
        (1usize..4).prop_map(Ground::Standalone),
        (1usize..3).prop_map(Ground::Fleets),
    ];
    (
        ground,
        prop::collection::vec(1u32..4, 2),
        prop::collection::vec(shape(), 3),
    )
        .prop_map(|(ground, counts, services)| Declared {
            ground,
            counts,
            services,
            proxy: 1,
        })
}

/// What happens to it.
pub(super) fn phases() -> impl Strategy<Value = Vec<Phase>> {
    let phase = (
        prop::collection::vec(tweak(), 0..3),
        prop::collection::vec((0usize..30, fault()), 0..4),
    )
        .prop_map(|(tweaks, faults)| Phase { tweaks, faults });
    prop::collection::vec(phase, 1..5)
}

impl Declared {
    pub(super) fn change(&mut self, tweak: &Tweak) {
        match tweak {
            Tweak::Service(i, shape) => self.services[*i] = shape.clone(),
            Tweak::Version(i, version) => self.services[*i].version = *version,
            Tweak::Mode(i, mode) => self.services[*i].mode = *mode,
            Tweak::Toggle(i) => self.services[*i].there ^= true,
            Tweak::Count(fleet, count) => self.counts[*fleet] = *count,
            Tweak::Proxy(version) => self.proxy = *version,
        }
    }

    /// Fleet → machines.
    pub(super) fn scale(&self) -> BTreeMap<String, u32> {
        match self.ground {
            Ground::Standalone(_) => BTreeMap::new(),
            Ground::Fleets(n) => (0..n).map(|i| (format!("f{i}"), self.counts[i])).collect(),
        }
    }

    pub(super) fn project(&self) -> Project {
        let mut project = Project {
            name: "shop".to_owned(),
            ..Project::default()
        };
        for fleet in self.scale().into_keys() {
            let declared = Fleet {
                min: 1,
                max: 9,
                ..Fleet::default()
            };
            project.fleets.insert(fleet, declared);
        }
        for (i, shape) in self.services.iter().enumerate() {
            if shape.there {
                let service = self.service(i, shape);
                project.services.insert(service_name(i), service);
            }
        }
        let volume = VolumeDecl {
            name: "shop_data".to_owned(),
            ..VolumeDecl::default()
        };
        project.volumes.insert("data".to_owned(), volume);
        project
    }

    /// Whether the next service waits for the end of this one.
    pub(super) fn is_awaited(&self, i: usize) -> bool {
        self.services
            .get(i + 1)
            .is_some_and(|s| s.there && s.depends == Some(Dependency::Completed))
    }

    fn service(&self, i: usize, shape: &Shape) -> Service {
        let exposure = if self.is_awaited(i) {
            Exposure::Nothing
        } else {
            shape.exposure
        };
        let fixed = exposure == Exposure::FixedPort;
        let mode = match shape.mode {
            Mode::Replicated(n) if fixed => Mode::Replicated(n.min(1)),
            mode => mode,
        };
        let name = service_name(i);
        let before = i.checked_sub(1).filter(|b| self.services[*b].there);
        Service {
            image: format!("img-{name}:{}", shape.version),
            ports: if fixed {
                vec![Port {
                    target: 80,
                    published: Some(8001 + i as u16),
                    host_ip: None,
                    protocol: "tcp".to_owned(),
                }]
            } else {
                Vec::new()
            },
            ingress: (exposure == Exposure::Ingress).then(|| Ingress {
                host: Some(format!("{name}.example.com")),
                path: "/".to_owned(),
                port: 9000,
                listen: 80,
                health_path: None,
                drain: Duration::from_secs(5),
            }),
            volumes: if shape.volume {
                vec![ServiceVolume::Volume {
                    name: Some("data".to_owned()),
                    target: "/data".to_owned(),
                    read_only: false,
                }]
            } else {
                Vec::new()
            },
            depends_on: before
                .zip(shape.depends)
                .map(|(b, d)| (service_name(b), d))
                .into_iter()
                .collect(),
            deploy: Deploy {
                mode,
                constraints: self.constraints(shape),
                update: Update {
                    order: if fixed { Order::StopFirst } else { shape.order },
                    parallelism: shape.parallelism,
                },
            },
            ..Service::default()
        }
    }

    fn constraints(&self, shape: &Shape) -> Vec<Constraint> {
        let constraint = |key: &str, equal, value: String| {
            vec![Constraint {
                key: key.to_owned(),
                equal,
                value,
            }]
        };
        match self.ground {
            Ground::Standalone(1) | Ground::Fleets(1) => Vec::new(),
            Ground::Standalone(_) if shape.fleet == 0 => {
                constraint("node.hostname", true, "vps2".to_owned())
            }
            Ground::Standalone(_) => constraint("node.hostname", false, "nowhere".to_owned()),
            Ground::Fleets(n) => {
                constraint("node.labels.fleet", true, format!("f{}", shape.fleet % n))
            }
        }
    }
}

pub(super) fn service_name(i: usize) -> String {
    ["app", "back", "cron"][i].to_owned()
}
