//! One client's connection: who may log in, and what its channels ask for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig};
use tokio::sync::oneshot;

use super::command::{self, Request};
use super::forward::{self, Target};
use super::inbox::{Inbox, Outlet, inbox};
use super::keys::is_authorized;
use crate::children::Children;
use crate::terminal::{Master, Size};

/// The way back to the client on one channel.
pub type Writer = Arc<ChannelWriteHalf<Msg>>;

/// Tells that a channel was closed by the client, or its connection has ended.
pub struct Closed(oneshot::Receiver<()>);

impl Closed {
    /// Returns when it has.
    pub async fn wait(self) {
        let _ = self.0.await;
    }
}

/// An open channel. Dropping it closes what runs on it.
struct Open {
    /// Gone after the client's end of input.
    inbox: Option<Inbox>,
    /// Taken when something runs.
    ready: Option<(Writer, Outlet, Closed)>,
    request: Request,
    running: Option<(i32, Option<Master>)>,
    _closes: oneshot::Sender<()>,
}

/// One connection.
pub struct Connection {
    authorized_keys: PathBuf,
    children: Children,
    ends: (SocketAddr, SocketAddr),
    channels: HashMap<ChannelId, Open>,
}

impl Connection {
    /// `ends` are the client's address and ours.
    pub fn new(
        authorized_keys: PathBuf,
        children: Children,
        ends: (SocketAddr, SocketAddr),
    ) -> Self {
        Self {
            authorized_keys,
            children,
            ends,
            channels: HashMap::new(),
        }
    }

    fn judge(&self, user: &str, key: &russh::keys::PublicKey) -> Auth {
        if user == "root" && is_authorized(&self.authorized_keys, key) {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    /// Keeps a new channel.
    fn open(&mut self, channel: Channel<Msg>) -> ChannelId {
        let id = channel.id();
        // Data comes through the handler: russh's own queue would stop the connection when it is full.
        let (_, writer) = channel.split();
        let (inbox, outlet) = inbox();
        let (closes, closed) = oneshot::channel();
        let open = Open {
            inbox: Some(inbox),
            ready: Some((Arc::new(writer), outlet, Closed(closed))),
            request: Request::default(),
            running: None,
            _closes: closes,
        };
        self.channels.insert(id, open);
        id
    }

    fn forward(&mut self, channel: Channel<Msg>, target: Target, reply: ChannelOpenHandle) {
        let id = self.open(channel);
        if let Some((writer, outlet, closed)) =
            self.channels.get_mut(&id).and_then(|c| c.ready.take())
        {
            tokio::spawn(forward::run(target, reply, writer, outlet, closed));
        }
    }

    fn start(
        &mut self,
        id: ChannelId,
        command: Option<Vec<u8>>,
        session: &mut Session,
    ) -> Result<()> {
        let Some(open) = self.channels.get_mut(&id) else {
            return Ok(session.channel_failure(id)?);
        };
        let Some((writer, outlet, closed)) = open.ready.take() else {
            return Ok(session.channel_failure(id)?);
        };
        open.request.command = command;
        match command::start(&open.request, &self.children, self.ends) {
            Ok(process) => {
                open.running = Some((process.pid, process.terminal()));
                session.channel_success(id)?;
                tokio::spawn(command::run(
                    process,
                    writer,
                    session.handle(),
                    outlet,
                    closed,
                ));
            }
            Err(error) => {
                session.channel_success(id)?;
                let text = format!("windlass-local-init: cannot start a shell: {error}\r\n");
                session.extended_data(id, 1, text.into_bytes())?;
                session.exit_status_request(id, 126)?;
                session.eof(id)?;
                session.close(id)?;
            }
        }
        Ok(())
    }

    /// Answers a request that `change` may or may not be able to do.
    fn answer(
        &mut self,
        id: ChannelId,
        session: &mut Session,
        change: impl FnOnce(&mut Open) -> bool,
    ) -> Result<()> {
        let done = self.channels.get_mut(&id).is_some_and(change);
        match done {
            true => session.channel_success(id)?,
            false => session.channel_failure(id)?,
        }
        Ok(())
    }
}

/// What a client may set: as sshd's usual `AcceptEnv`, and what tells about colours.
fn may_set(name: &str) -> bool {
    name == "LANG" || name.starts_with("LC_") || ["COLORTERM", "NO_COLOR"].contains(&name)
}

impl Handler for Connection {
    type Error = anyhow::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth> {
        Ok(self.judge(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        self.open(channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        match u16::try_from(port) {
            Ok(port) => self.forward(channel, Target::Tcp(host.to_owned(), port), reply),
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<()> {
        self.forward(channel, Target::Unix(path.to_owned()), reply);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<()> {
        if let Some(inbox) = self.channels.get(&id).and_then(|open| open.inbox.as_ref()) {
            inbox.put(Bytes::copy_from_slice(data)).await;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<()> {
        if let Some(open) = self.channels.get_mut(&id) {
            open.inbox = None;
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<()> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<()> {
        self.answer(id, session, |open| {
            let good = may_set(name) && !value.contains('\0') && open.request.env.len() < 64;
            if good {
                open.request.env.push((name.to_owned(), value.to_owned()));
            }
            good
        })
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<()> {
        let pixels = (width, height);
        let size = Size {
            columns,
            rows,
            pixels,
        };
        self.answer(id, session, |open| {
            let good = !term.contains('\0') && open.ready.is_some();
            if good {
                open.request.terminal = Some((term.to_owned(), size));
            }
            good
        })
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<()> {
        let pixels = (width, height);
        let size = Size {
            columns,
            rows,
            pixels,
        };
        self.answer(id, session, |open| match &open.running {
            Some((_, Some(master))) => master.resize(size).is_ok(),
            _ => false,
        })
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<()> {
        if data.contains(&0) {
            return Ok(session.channel_failure(id)?);
        }
        self.start(id, Some(data.to_vec()), session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<()> {
        self.start(id, None, session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<()> {
        Ok(session.channel_failure(id)?)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<()> {
        Ok(session.channel_failure(id)?)
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool> {
        session.channel_failure(id)?;
        Ok(false)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<()> {
        let running = self
            .channels
            .get(&id)
            .and_then(|open| open.running.as_ref());
        if let (Some((pid, _)), Some(number)) = (running, command::signal_number(&signal)) {
            let group = nix::unistd::Pid::from_raw(*pid);
            if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
                // It may have ended already.
                let _ = nix::sys::signal::killpg(group, signal);
            }
        }
        Ok(())
    }
}
