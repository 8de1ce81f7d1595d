//! The real proxy process before real upstreams.

mod failures;
mod harness;
mod messages;
mod routing;
mod swaps;
