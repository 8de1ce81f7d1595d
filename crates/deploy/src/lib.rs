//! Deploying a project: observe → plan (pure) → apply.
//!
//! Deliberately absent: providers and SSH, which come in through [`Hosts`].

mod hosts;

pub use hosts::{BoxError, Host, Hosts};
