//! One upstream: its requests in progress and what is known of its health.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::table::{HealthCheck, Upstream, UpstreamStatus};

const FIRST_EJECTION: Duration = Duration::from_millis(500);
const LONGEST_EJECTION: Duration = Duration::from_secs(10);
/// Connections that break in a row, without an answer, before an upstream is ejected.
const BREAKS_BEFORE_EJECTION: u32 = 3;

/// An upstream across tables: the same id at the same address keeps its counts and its health.
#[derive(Debug)]
pub struct Backend {
    pub upstream: Upstream,
    active: AtomicU64,
    probed: AtomicU8,
    breaks: AtomicU32,
    ejection: Mutex<Ejection>,
    check: Mutex<Option<Check>>,
}

/// What the active check has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Probed {
    /// Not probed yet.
    Unknown = 0,
    Healthy = 1,
    Unhealthy = 2,
}

/// How willingly an upstream is chosen. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Healthy,
    /// Not probed yet: better than no answer.
    Unknown,
    /// Refused a connection a moment ago: trying again costs little when there is no other.
    Ejected,
    /// Its check fails: never.
    Never,
}

#[derive(Debug, Default)]
struct Ejection {
    until: Option<Instant>,
    length: Duration,
}

#[derive(Debug)]
struct Check {
    settings: HealthCheck,
    task: tokio::task::AbortHandle,
}

/// A request in progress; it is over when this is dropped.
#[derive(Debug)]
pub struct Active(Arc<Backend>);

impl Backend {
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            active: AtomicU64::new(0),
            probed: AtomicU8::new(Probed::Unknown as u8),
            breaks: AtomicU32::new(0),
            ejection: Mutex::default(),
            check: Mutex::default(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::SeqCst);
        Active(Arc::clone(self))
    }

    pub fn active(&self) -> u64 {
        self.active.load(Ordering::SeqCst)
    }

    pub fn tier(&self, now: Instant) -> Tier {
        let probed = self.probed();
        if probed == Probed::Unhealthy {
            return Tier::Never;
        }
        if self.is_ejected(now) {
            return Tier::Ejected;
        }
        if probed == Probed::Healthy {
            Tier::Healthy
        } else {
            Tier::Unknown
        }
    }

    pub fn status(&self, now: Instant) -> UpstreamStatus {
        UpstreamStatus {
            id: self.upstream.id.clone(),
            address: self.upstream.address,
            healthy: self.tier(now) == Tier::Healthy,
            active_requests: self.active(),
            draining: false,
        }
    }

    /// Nobody listens there, or nobody answers in time.
    pub fn refused(&self) {
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        ejection.length = (ejection.length * 2).clamp(FIRST_EJECTION, LONGEST_EJECTION);
        ejection.until = Some(Instant::now() + ejection.length);
    }

    /// A connection ended without an answer.
    pub fn broke(&self) {
        if self.breaks.fetch_add(1, Ordering::Relaxed) + 1 >= BREAKS_BEFORE_EJECTION {
            self.breaks.store(0, Ordering::Relaxed);
            self.refused();
        }
    }

    /// It answered.
    pub fn answered(&self) {
        if self.breaks.load(Ordering::Relaxed) > 0 {
            self.breaks.store(0, Ordering::Relaxed);
        }
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        if ejection.until.is_some() {
            *ejection = Ejection::default();
        }
    }

    pub fn probed(&self) -> Probed {
        match self.probed.load(Ordering::Relaxed) {
            1 => Probed::Healthy,
            2 => Probed::Unhealthy,
            _ => Probed::Unknown,
        }
    }

    pub fn set_probed(&self, probed: Probed) {
        self.probed.store(probed as u8, Ordering::Relaxed);
    }

    /// Starts, keeps or ends the probing, as the table says.
    pub fn set_check(self: &Arc<Self>, settings: Option<&HealthCheck>) {
        let mut check = self.check.lock().unwrap_or_else(PoisonError::into_inner);
        if check.as_ref().map(|c| &c.settings) == settings
            && (settings.is_some() || self.probed() == Probed::Healthy)
        {
            return;
        }
        if let Some(former) = check.take() {
            former.task.abort();
        }
        match settings {
            None => self.set_probed(Probed::Healthy),
            Some(settings) => {
                let task = tokio::spawn(super::health::probe_for_ever(
                    Arc::clone(self),
                    settings.clone(),
                ));
                *check = Some(Check {
                    settings: settings.clone(),
                    task: task.abort_handle(),
                });
            }
        }
    }

    /// Ends the probing: it is in no table any more.
    pub fn retire(&self) {
        if let Some(check) = self
            .check
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            check.task.abort();
        }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .until
            .is_some_and(|until| now < until)
    }
}

impl Active {
    pub fn backend(&self) -> &Backend {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}
