//! One live connection to one host: its handshake with the host key checked, and opening channels on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{Config, Handle, Handler, Msg};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure, Preferred};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, Result, Sent};
use crate::host_key::{Accepted, Expected};

/// Unanswered questions after which a connection is given up.
const ALIVE_MAX: usize = 3;

/// A live connection. The connections of the jump hosts that it runs through live as long as it does.
pub(crate) struct Connection {
    pub handle: Handle<HostKeyCheck>,
    pub address: String,
    pub user: String,
    _below: Option<Arc<Connection>>,
}

/// A connection whose host is known, but not yet who we are.
pub(crate) struct Greeted {
    pub handle: Handle<HostKeyCheck>,
    pub key: PublicKey,
    pub accepted: Accepted,
    pub expected: Expected,
}

/// Checks the host's key before anything is sent to it.
pub(crate) struct HostKeyCheck {
    expected: Expected,
    verdict: Arc<Mutex<Option<Verdict>>>,
}

type Verdict = Result<(PublicKey, Accepted)>;

impl Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            return Ok(false);
        };
        let verdict = self.expected.check(key);
        let good = verdict.is_ok();
        let verdict = verdict.map(|accepted| (key.clone(), accepted));
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        Ok(good)
    }
}

impl Greeted {
    /// The handshake over a stream that is open already.
    pub async fn over<S>(
        stream: S,
        expected: Expected,
        limit: Duration,
        alive_interval: Duration,
    ) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let verdict = Arc::new(Mutex::new(None));
        let handler = HostKeyCheck {
            expected: expected.clone(),
            verdict: verdict.clone(),
        };
        let config = Arc::new(client_config(&expected, alive_interval));
        let address = expected.address.clone();
        let handshake = russh::client::connect_stream(config, stream, handler);
        let outcome = tokio::time::timeout(limit, handshake).await;
        let verdict = verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (outcome, verdict) {
            (_, Some(Err(refused))) => Err(refused),
            (Ok(Ok(handle)), Some(Ok((key, accepted)))) => Ok(Self {
                handle,
                key,
                accepted,
                expected,
            }),
            (Ok(Ok(_)), None) => Err(Error::Handshake {
                address,
                source: russh::Error::UnknownKey,
            }),
            (Ok(Err(source)), _) => Err(Error::Handshake { address, source }),
            (Err(_), _) => Err(Error::TimedOut {
                address,
                after: limit,
            }),
        }
    }

    /// The login has worked.
    pub fn logged_in(self, user: String, below: Option<Arc<Connection>>) -> Connection {
        Connection {
            handle: self.handle,
            address: self.expected.address,
            user,
            _below: below,
        }
    }
}

fn client_config(expected: &Expected, alive_interval: Duration) -> Config {
    let defaults = Preferred::default();
    let key = expected.algorithms(&defaults.key);
    Config {
        preferred: Preferred {
            key: key.into(),
            ..defaults
        },
        keepalive_interval: Some(alive_interval),
        keepalive_max: ALIVE_MAX,
        nodelay: true,
        ..Config::default()
    }
}

impl Connection {
    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Opens a channel.
    pub async fn open(&self, wanted: Wanted<'_>) -> Result<Channel<Msg>, OpenError> {
        let (what, opened) = match wanted {
            Wanted::Session => (
                "a session".to_owned(),
                self.handle.channel_open_session().await,
            ),
            Wanted::Unix(path) => (
                format!("a connection to {path}"),
                self.handle.channel_open_direct_streamlocal(path).await,
            ),
        };
        opened.map_err(|e| {
            let error = self.open_error(&what, &e);
            match e {
                russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => {
                    OpenError::NotThere(error)
                }
                russh::Error::ChannelOpenFailure(_) => OpenError::NotDone(error),
                _ => OpenError::Other(error),
            }
        })
    }

    /// A channel to a TCP port as the host sees it: the next hop.
    pub async fn tcp_channel(&self, host: &str, port: u16) -> Result<Channel<Msg>> {
        self.handle
            .channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0)
            .await
            .map_err(|e| self.open_error(&format!("a connection to {host}:{port}"), &e))
    }

    /// The error for a request that may have arrived.
    pub fn lost(&self, during: &str, sent: Sent) -> Error {
        Error::Closed {
            address: self.address.clone(),
            during: during.to_owned(),
            sent,
        }
    }

    fn open_error(&self, what: &str, error: &russh::Error) -> Error {
        let reason = match error {
            russh::Error::ChannelOpenFailure(reason) => match reason {
                ChannelOpenFailure::AdministrativelyProhibited => "the server forbids it",
                ChannelOpenFailure::ConnectFailed => "nobody answers there",
                ChannelOpenFailure::UnknownChannelType => "the server cannot do it",
                ChannelOpenFailure::ResourceShortage => "too many channels",
                ChannelOpenFailure::Other { reason, .. } => reason,
            },
            _ => return self.lost(&format!("the request for {what}"), Sent::Nothing),
        };
        Error::ChannelRefused {
            address: self.address.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// What a channel is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// A command or a shell.
    Session,
    /// A unix socket of the host.
    Unix(&'a str),
}

/// Why a channel was not opened.
pub(crate) enum OpenError {
    /// Nobody answers there, or the login user may not connect.
    NotThere(Error),
    /// The server does not do this.
    NotDone(Error),
    /// Something else.
    Other(Error),
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotThere(e) | OpenError::NotDone(e) | OpenError::Other(e) => e,
        }
    }
}
