//! Docker Engine API: wire types and a client that runs over any byte stream.
//!
//! The types cover what windlass and the usual clients use; unknown fields are ignored and `null` is the same as absent.
//! Deliberately absent: how the stream is made (a unix socket, an SSH channel); see [`Dial`] and [`UnixDial`].

mod auth;
mod client;
mod dial;
mod error;
mod filters;
mod frame;
mod json;
pub mod types;

pub use auth::RegistryAuth;
pub use client::{
    AttachedStream, BuildOptions, Client, EventStream, ExecOptions, ListContainers, LogOptions,
    LogStream, ProgressStream, RemoveContainer, RequestBody, WaitCondition,
};
pub use dial::{Dial, Stream, UnixDial};
pub use error::{ApiError, Error, Result};
pub use filters::Filters;
pub use frame::{Frame, FrameDecoder, Source, frame_header};
pub use json::from_slice;
