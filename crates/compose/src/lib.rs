//! The declared file: parse, interpolate, merge, check; the result is a [`Project`](model::Project). Pure.
//!
//! Deliberately absent: reading files and the environment; both are handed in. What becomes of a project is for `windlass-deploy`.

pub mod model;
