//! Machines: names, records, the store that keeps them, and the lifecycle that makes and removes them.
//!
//! Deliberately absent: SSH and the install of the engine, which come in through [`HostAccess`]; concrete providers.

mod access;
pub mod lifecycle;
mod name;
mod record;
mod report;
pub mod store;

pub use access::{AccessError, HostAccess, HostKeys};
pub use lifecycle::{
    CreateSpec, Lifecycle, LifecycleError, Orphans, PowerAction, Remove, Upgraded,
};
pub use name::{MachineName, NameError};
pub use record::{Engine, EngineKind, Machine, Slot, State};
pub use report::{Event, Phase, Reporter, Silent, Step};
pub use store::{
    Intent, IntentKind, IntentStep, Lock, Release, SqliteStore, Store, StoreError, Write,
};
