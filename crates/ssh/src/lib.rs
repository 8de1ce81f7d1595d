//! SSH sessions: commands, uploads, tunnels to unix sockets, shells, host keys and `~/.ssh/config`, on russh.
//!
//! One [`Session`] is one multiplexed connection that everything to a host runs over; it connects again by itself when the
//! connection has died and nothing of the request was sent yet. Deliberately absent: passwords (keys and the agent only),
//! port forwards over TCP, agent forwarding, and any reading of the environment or the home directory, which is the caller's.

mod auth;
mod command;
mod config;
mod connect;
mod connection;
mod destination;
mod error;
mod glob;
mod host_key;
pub mod keys;
mod known_hosts;
mod process;
mod pump;
mod session;
mod shell;
mod tunnel;
mod upload;
mod wait;

pub use command::{Command, Output, quote};
pub use config::{ClientConfig, ConfigError, HostConfig};
pub use destination::Destination;
pub use error::{Error, HostKeyChange, Result, Sent};
pub use host_key::{FirstUse, pin};
pub use process::{ProcessEnd, ProcessInput, ProcessOutput, RemoteProcess};
pub use session::Session;
pub use shell::{PtyRequest, ShellRequest, ShellStreams, WindowSize};
pub use upload::{Encoding, Upload, Uploaded};
pub use wait::{WaitLimits, wait_until_up};
