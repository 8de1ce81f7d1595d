//! The loop with made-up machines, the lock, and the metrics from an engine that is played by a server.

mod engine;
mod lock;
mod rounds;
