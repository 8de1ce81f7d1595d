//! The table in force, and the choice of an upstream by it.
//!
//! The invariant that drained stops rest on: an upstream is chosen and counted as active under the read lock, a table
//! is swapped under the write lock. So once a swap has returned, every request that was given an upstream of the former table is in that
//! upstream's count, and no other can be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::Config;
use super::backend::{Active, Backend, Tier};
use super::pool::Pool;
use super::router::Router;
use crate::table::{Balance, RouteTable, Status, Upstream};

/// What all tasks of the proxy share.
pub struct State {
    in_force: RwLock<Compiled>,
    /// Upstreams of former tables that may still have requests.
    leaving: Mutex<Vec<Arc<Backend>>>,
    /// One table change at a time; held while the file is written.
    changing: tokio::sync::Mutex<()>,
    state_file: PathBuf,
    pub pool: Pool,
}

/// A table, ready for look-ups.
#[derive(Default)]
struct Compiled {
    table: RouteTable,
    router: Router,
    routes: Vec<CompiledRoute>,
    backends: HashMap<Upstream, Arc<Backend>>,
}

struct CompiledRoute {
    backends: Vec<Arc<Backend>>,
    balance: Balance,
    turn: AtomicUsize,
}

/// What a request is given.
pub enum Pick {
    /// Send it there.
    Upstream(Active),
    /// No route matches.
    NoRoute,
    /// The route has no upstream that may be tried.
    NoUpstream,
}

/// Why a table was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] crate::table::TableError),
    /// A newer one, or another of the same generation, is in force.
    #[error("generation {offered} is stale: {in_force} is in force")]
    Stale { offered: u64, in_force: u64 },
    /// It could not be kept, so it was not taken.
    #[error("cannot keep the table: {0}")]
    Keep(std::io::Error),
}

impl State {
    /// With the table that a former process kept, if there is a readable one.
    pub fn load(config: &Config) -> Self {
        let state = Self {
            in_force: RwLock::default(),
            leaving: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            state_file: config.state_file.clone(),
            pool: Pool::new(config.connect_timeout, config.idle_timeout),
        };
        match read_table(&config.state_file) {
            Ok(Some(table)) => state.swap(table),
            Ok(None) => {}
            // Serving nothing until the next table beats not starting: that one comes over the admin socket.
            Err(e) => {
                tracing::warn!(file = %config.state_file.display(), error = %e, "the kept table is not usable")
            }
        }
        state
    }

    /// Brings a table in force. When this returns, no new request can use a former one.
    pub async fn put(&self, table: RouteTable) -> Result<u64, PutError> {
        table.validate()?;
        let _changing = self.changing.lock().await;
        let (in_force, same) = {
            let compiled = self.read();
            (compiled.table.generation, compiled.table == table)
        };
        if same {
            return Ok(in_force);
        }
        if table.generation <= in_force {
            return Err(PutError::Stale {
                offered: table.generation,
                in_force,
            });
        }
        let generation = table.generation;
        let file = self.state_file.clone();
        let kept = table.clone();
        tokio::task::spawn_blocking(move || write_table(&file, &kept))
            .await
            .map_err(|e| PutError::Keep(std::io::Error::other(e)))?
            .map_err(PutError::Keep)?;
        self.swap(table);
        Ok(generation)
    }

    /// Chooses an upstream that is not in `tried` and counts the request there.
    pub fn pick(&self, authority: &str, path: &str, tried: &[Upstream]) -> Pick {
        let compiled = self.read();
        let Some(route) = compiled
            .router
            .find(authority, path)
            .and_then(|i| compiled.routes.get(i))
        else {
            return Pick::NoRoute;
        };
        match route.choose(tried) {
            Some(backend) => Pick::Upstream(backend.begin()),
            None => Pick::NoUpstream,
        }
    }

    pub fn table(&self) -> RouteTable {
        self.read().table.clone()
    }

    pub fn status(&self) -> Status {
        let now = Instant::now();
        let compiled = self.read();
        let mut upstreams: Vec<_> = compiled.backends.values().map(|b| b.status(now)).collect();
        let leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        for backend in leaving.iter().filter(|b| b.active() > 0) {
            let mut status = backend.status(now);
            status.draining = true;
            upstreams.push(status);
        }
        upstreams
            .sort_by(|a, b| (a.draining, a.address, &a.id).cmp(&(b.draining, b.address, &b.id)));
        Status {
            generation: compiled.table.generation,
            upstreams,
        }
    }

    fn swap(&self, table: RouteTable) {
        let mut in_force = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = Compiled::new(table, &in_force.backends, &leaving);
        let former = std::mem::replace(&mut *in_force, compiled);
        leaving.retain(|b| b.active() > 0 && !in_force.backends.contains_key(&b.upstream));
        for (upstream, backend) in former.backends {
            if !in_force.backends.contains_key(&upstream) {
                backend.retire();
                leaving.push(backend);
            }
        }
        let compiled = &*in_force;
        self.pool.retain(|address| compiled.table.contains(address));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Compiled> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections that nobody has used for a while, and forgets upstreams that have drained.
pub async fn upkeep(state: Arc<State>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.pool.expire();
        state
            .leaving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|b| b.active() > 0);
    }
}

impl Compiled {
    /// Upstreams that are known already keep their counts and their health.
    fn new(
        table: RouteTable,
        former: &HashMap<Upstream, Arc<Backend>>,
        leaving: &[Arc<Backend>],
    ) -> Self {
        let mut backends: HashMap<Upstream, Arc<Backend>> = HashMap::new();
        let mut routes = Vec::with_capacity(table.routes.len());
        for route in &table.routes {
            let mut chosen = Vec::with_capacity(route.upstreams.len());
            for upstream in &route.upstreams {
                let backend = backends.entry(upstream.clone()).or_insert_with(|| {
                    let known = former
                        .get(upstream)
                        .or_else(|| leaving.iter().find(|b| b.upstream == *upstream));
                    let backend = known
                        .cloned()
                        .unwrap_or_else(|| Arc::new(Backend::new(upstream.clone())));
                    // The first route that names an upstream says how it is probed.
                    backend.set_check(route.health.as_ref());
                    backend
                });
                chosen.push(Arc::clone(backend));
            }
            routes.push(CompiledRoute {
                backends: chosen,
                balance: route.balance,
                turn: AtomicUsize::new(0),
            });
        }
        let router = Router::new(&table.routes);
        Self {
            table,
            router,
            routes,
            backends,
        }
    }
}

impl CompiledRoute {
    fn choose(&self, tried: &[Upstream]) -> Option<&Arc<Backend>> {
        let count = self.backends.len();
        if count == 0 {
            return None;
        }
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut best: Option<((Tier, u64), &Arc<Backend>)> = None;
        for step in 0..count {
            let Some(backend) = self.backends.get(turn.wrapping_add(step) % count) else {
                continue;
            };
            let tier = backend.tier(now);
            if tier == Tier::Never || tried.contains(&backend.upstream) {
                continue;
            }
            let load = match self.balance {
                Balance::LeastRequests => backend.active(),
                Balance::RoundRobin => 0,
            };
            if best.as_ref().is_none_or(|(rank, _)| (tier, load) < *rank) {
                best = Some(((tier, load), backend));
            }
        }
        best.map(|(_, backend)| backend)
    }
}

fn read_table(file: &Path) -> std::io::Result<Option<RouteTable>> {
    let text = match fs_err::read(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let table: RouteTable = serde_json::from_slice(&text)?;
    table.validate().map_err(std::io::Error::other)?;
    Ok(Some(table))
}

/// Replaces the file as a whole: a crash leaves the old or the new table.
fn write_table(file: &Path, table: &RouteTable) -> std::io::Result<()> {
    use std::io::Write;
    if let Some(parent) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = file.with_file_name(name);
    let mut out = fs_err::File::create(&temporary)?;
    out.write_all(&serde_json::to_vec(table)?)?;
    out.sync_data()?;
    fs_err::rename(&temporary, file)
}
