//! Sessions against a real OpenSSH server on loopback.

mod harness;
mod jumps;
mod login;
mod streams;
