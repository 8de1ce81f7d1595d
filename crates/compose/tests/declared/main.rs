//! The declared file from outside: everything through `load`.

mod environment;
mod errors;
mod examples;
mod guide;
mod keys;
mod merge;
mod properties;
mod support;
