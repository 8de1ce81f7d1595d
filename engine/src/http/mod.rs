//! The Docker Engine API on a unix socket.
//!
//! Deliberately absent: TCP, TLS, and any router: a request is its method and the path's segments, matched in `route`.

mod archive;
mod attach;
mod build;
mod containers;
mod detach;
mod disk_usage;
mod exec;
mod heard;
mod images;
mod info;
mod lenient;
mod logs;
mod networks;
mod request;
mod respond;
mod route;
mod server;
mod system;
mod unread;
mod volumes;
mod websocket;

pub use server::{bind, serve};
