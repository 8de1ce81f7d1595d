//! The lifecycle against the in-memory cloud: crashes at every point, lost replies, two at once; nothing paid for is ever unknown.

mod crash;
mod faults;
mod host;
mod store;
mod upgrade;
