//! The CPU of machines as their engines tell it, over the one session that reaches them anyway.
//!
//! A machine is as busy as the tighter of two budgets: all its containers against its processors, and the containers that have a
//! CPU limit (`deploy.resources.limits.cpus`) against the sum of their limits. The second matters where a machine shares its
//! processors with others, as machines on this computer do: there `/proc/stat` tells the load of the whole computer, and a fleet scaled by
//! it would follow its neighbours. On a host of its own the load outside containers is the engine's, a few per mille.
//!
//! Deliberately absent: which machines there are ([`Roster`]), and any agent on them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use windlass_engine_api::{Client, ListContainers};

use crate::metrics::{BoxError, Cpu, Metrics, Sample};

/// The machines of a fleet, as the store and the sessions know them.
#[async_trait]
pub trait Roster: Send + Sync {
    /// All of them, unreachable and unfinished ones too, without those that are leaving.
    async fn members(&self) -> Result<Vec<Member>, BoxError>;
}

/// One machine.
pub struct Member {
    /// Its name.
    pub name: String,
    /// For how long it has served; `None` while it is being made.
    pub ready_for: Option<Duration>,
    /// Its engine, or why it is not reached.
    pub engine: Result<Client, String>,
}

/// Reads container statistics from each machine's engine; the mean since the former sample.
pub struct EngineMetrics<R> {
    roster: R,
    timeout: Duration,
    former: Mutex<HashMap<String, Counters>>,
}

/// What one machine's counters said.
#[derive(Clone, Debug, Default)]
struct Counters {
    at: Duration,
    processors: f64,
    containers: HashMap<String, Container>,
}

#[derive(Clone, Copy, Debug)]
struct Container {
    used: Duration,
    limit: Option<f64>,
}

impl<R: Roster> EngineMetrics<R> {
    /// Machines of the roster; one that does not answer within `timeout` counts as missing.
    pub fn new(roster: R, timeout: Duration) -> Self {
        Self {
            roster,
            timeout,
            former: Mutex::new(HashMap::new()),
        }
    }

    async fn measure(&self, member: &Member, now: Duration) -> Cpu {
        let client = match &member.engine {
            Ok(client) => client,
            Err(reason) => {
                return Cpu::Missing {
                    reason: reason.clone(),
                };
            }
        };
        let former = self.lock().get(&member.name).cloned();
        match tokio::time::timeout(self.timeout, read(client, former.as_ref(), now)).await {
            Err(_) => Cpu::missing(format!(
                "its engine did not answer within {} s",
                self.timeout.as_secs_f64()
            )),
            Ok(Err(e)) => Cpu::missing(e.to_string()),
            Ok(Ok(counters)) => {
                let cpu = match &former {
                    Some(former) => busy(former, &counters),
                    None => Cpu::missing("its first sample is being taken".to_owned()),
                };
                self.lock().insert(member.name.clone(), counters);
                cpu
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Counters>> {
        self.former
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl<R: Roster> Metrics for EngineMetrics<R> {
    async fn sample(&self, now: Duration) -> Result<Vec<Sample>, BoxError> {
        let members = self.roster.members().await?;
        self.lock()
            .retain(|name, _| members.iter().any(|m| m.name == *name));
        let samples = members.iter().map(|member| async move {
            Sample {
                machine: member.name.clone(),
                ready_at: member.ready_for.map(|age| now.saturating_sub(age)),
                cpu: self.measure(member, now).await,
            }
        });
        Ok(join_all(samples).await)
    }
}

/// Reads the counters. Limits and the number of processors are asked for once a container and once a machine.
async fn read(
    client: &Client,
    former: Option<&Counters>,
    now: Duration,
) -> Result<Counters, windlass_engine_api::Error> {
    let processors = match former {
        Some(former) => former.processors,
        None => client.info().await?.ncpu.max(1) as f64,
    };
    let running = client.list_containers(&ListContainers::default()).await?;
    let containers = join_all(running.into_iter().map(|c| async move {
        let known = former.and_then(|f| f.containers.get(&c.id));
        let read = read_container(client, &c.id, known).await;
        (c.id, read)
    }))
    .await;
    let mut counters = Counters {
        at: now,
        processors,
        containers: HashMap::new(),
    };
    for (id, container) in containers {
        match container {
            Ok(container) => {
                counters.containers.insert(id, container);
            }
            // It went away between the list and the question.
            Err(e) if matches!(e.status(), Some(404 | 409)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(counters)
}

async fn read_container(
    client: &Client,
    id: &str,
    known: Option<&Container>,
) -> Result<Container, windlass_engine_api::Error> {
    let stats = client.stats_one_shot(id).await?;
    let limit = match known {
        Some(known) => known.limit,
        None => {
            let host = client.inspect_container(id).await?.host_config;
            let quota = (host.cpu_quota > 0).then(|| {
                host.cpu_quota as f64
                    / if host.cpu_period > 0 {
                        host.cpu_period as f64
                    } else {
                        100_000.0
                    }
            });
            (host.nano_cpus > 0)
                .then(|| host.nano_cpus as f64 / 1e9)
                .or(quota)
        }
    };
    Ok(Container {
        used: Duration::from_nanos(stats.cpu_stats.cpu_usage.total_usage),
        limit,
    })
}

/// The machine's load between two readings.
fn busy(former: &Counters, latter: &Counters) -> Cpu {
    let elapsed = latter.at.saturating_sub(former.at).as_secs_f64();
    if elapsed <= 0.0 {
        return Cpu::missing("no time has passed since its last sample".to_owned());
    }
    let (mut all, mut limited, mut limits) = (0.0, 0.0, 0.0);
    for (id, container) in &latter.containers {
        // A container that was not there has used all of its time since; one that restarted counts from nothing.
        let before = former.containers.get(id).map_or(Duration::ZERO, |c| c.used);
        let used = container
            .used
            .checked_sub(before)
            .unwrap_or(container.used)
            .as_secs_f64();
        all += used;
        if let Some(limit) = container.limit {
            limited += used;
            limits += limit;
        }
    }
    let of_processors = all / (elapsed * latter.processors);
    let of_limits = if limits > 0.0 {
        limited / (elapsed * limits)
    } else {
        0.0
    };
    Cpu::Percent {
        value: 100.0 * of_processors.max(of_limits),
        at: latter.at,
    }
}

impl Cpu {
    fn missing(reason: String) -> Self {
        Self::Missing { reason }
    }
}
