//! The command line as its users meet it: every message and exit code that needs no engine on a host.
//!
//! The OpenSSH server on loopback is real; what comes after the login (install, deploy) is tested in `tests/e2e`.

mod declared;
mod docker_host;
mod help;
mod interrupted;
mod machines;
mod sandbox;
mod ssh;
mod sshd;
