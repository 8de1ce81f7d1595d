//! PID 1 of a local machine: reaps, and serves SSH.

fn main() {}
