//! The SSH server: root only, by public key only.
//!
//! Deliberately absent: SFTP (files go through `cat`), agent and X11 forwarding, listening for the client.

mod command;
mod forward;
mod handler;
mod inbox;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};

use crate::arguments::Server;
use crate::children::Children;
use handler::Connection;

/// Serves until the future is dropped, which ends every connection.
pub async fn serve(server: Server, children: Children) -> Result<()> {
    let config = Arc::new(config(&server)?);
    let listener = TcpListener::bind(server.address)
        .await
        .with_context(|| format!("cannot listen on {}", server.address))?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(config.clone(), stream, server.clone(), children.clone()));
                }
                // Out of file descriptors, or the client has gone: neither ends the server.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn config(server: &Server) -> Result<Config> {
    Ok(Config {
        server_id: SshId::Standard(concat!("SSH-2.0-windlass_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(200),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 20,
        keys: vec![keys::host_key(&server.host_key)?],
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(30)),
        keepalive_max: 4,
        event_buffer_size: 64,
        nodelay: true,
        ..Config::default()
    })
}

async fn connection(config: Arc<Config>, stream: TcpStream, server: Server, children: Children) {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let handler = Connection::new(server.authorized_keys, children, (peer, local));
    // A connection that fails is the client's affair, who sees it too.
    if let Ok(session) = run_stream(config, stream, handler).await {
        let handle = AbortOnDrop(session.handle());
        let _ = session.await;
        drop(handle);
    }
}

/// russh runs a session as a task of its own; this one's end must be that one's too.
struct AbortOnDrop(russh::server::Handle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let handle = self.0.clone();
        tokio::spawn(async move {
            let reason = "the machine stops".to_owned();
            let _ = handle
                .disconnect(russh::Disconnect::ByApplication, reason, String::new())
                .await;
        });
    }
}
