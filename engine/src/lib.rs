//! The bundled container engine, as a library for its binary and its tests.
//!
//! Deliberately absent: everything of the control side. The engine knows one host, its own.

pub mod assemble;
pub mod build;
mod build_id;
pub mod check;
pub mod config;
pub mod container;
pub mod dial;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod http;
pub mod image;
pub mod network;
pub mod runtime;
pub mod serve;
pub mod userns;
pub mod volume;
