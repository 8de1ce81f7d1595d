//! The real proxy process before real upstreams.
fn main() {}
