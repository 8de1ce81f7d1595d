//! From a destination to a live connection: names, jump hosts, TCP, handshake, login, pin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::auth::{self, Identities};
use crate::config::{ConfigError, Hop, HostConfig};
use crate::connection::{Connection, Greeted};
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::host_key::{Accepted, Expected, FirstUse, Role, bracketed};

/// How long an address may be silent before the next one is tried too.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Told about each host key that was pinned.
pub(crate) type OnFirstUse<'a> = &'a (dyn Fn(&FirstUse) + Send + Sync);

/// As many hops as anybody has; more is a circle.
const MOST_HOPS: usize = 8;
/// How long sent bytes may stay unacknowledged, for a host that vanishes in the middle of an upload.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// One host on the way, resolved.
#[derive(Debug)]
struct Stop {
    host: String,
    port: u16,
    user: String,
    identities: Identities,
    role: Role,
}

/// Connects through all jump hosts and logs in.
pub(crate) async fn connect(
    destination: &Destination,
    limit: Duration,
    on_first_use: OnFirstUse<'_>,
) -> Result<Arc<Connection>> {
    let mut below: Option<Arc<Connection>> = None;
    for stop in route(destination)? {
        below = Some(hop(destination, &stop, below, limit, on_first_use).await?);
    }
    below.ok_or_else(|| Error::Config(ConfigError::Circle(destination.host.clone())))
}

async fn hop(
    destination: &Destination,
    stop: &Stop,
    below: Option<Arc<Connection>>,
    limit: Duration,
    on_first_use: OnFirstUse<'_>,
) -> Result<Arc<Connection>> {
    let expected = Expected::read(
        &stop.host,
        stop.port,
        stop.role,
        &destination.known_hosts,
        destination.user_known_hosts.as_deref(),
    )?;
    let alive = destination.alive_interval;
    let mut greeted = match &below {
        None => Greeted::over(tcp(stop, limit).await?, expected, limit, alive).await?,
        Some(jump) => {
            let opening = jump.tcp_channel(&stop.host, stop.port);
            let channel = tokio::time::timeout(limit, opening)
                .await
                .map_err(|_| timed_out(stop, limit))??;
            Greeted::over(channel.into_stream(), expected, limit, alive).await?
        }
    };
    // A login may have to wait for somebody to touch a security key, so it gets more time than the network does.
    let login_limit = limit.max(Duration::from_secs(60));
    let login = auth::log_in(&mut greeted, &stop.user, &stop.identities);
    tokio::time::timeout(login_limit, login)
        .await
        .map_err(|_| timed_out(stop, login_limit))??;
    if let Accepted::New { known_to_user } = greeted.accepted
        && let Some(first) = greeted.expected.pin(&greeted.key, known_to_user)?
    {
        on_first_use(&first);
    }
    tracing::debug!(host = %stop.host, port = stop.port, user = %stop.user, "logged in over SSH");
    Ok(Arc::new(greeted.logged_in(stop.user.clone(), below)))
}

async fn tcp(stop: &Stop, limit: Duration) -> Result<TcpStream> {
    let address = format!("{}:{}", bracketed(&stop.host), stop.port);
    let connecting = async {
        let lookup = tokio::net::lookup_host((stop.host.as_str(), stop.port)).await;
        let addresses: Vec<SocketAddr> = lookup
            .map_err(|source| Error::Resolve {
                host: stop.host.clone(),
                source,
            })?
            .collect();
        let stream = first_of(addresses).await;
        stream.map_err(|source| Error::Unreachable {
            address: address.clone(),
            source,
        })
    };
    let stream = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|_| timed_out(stop, limit))??;
    let options = || -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        socket.set_keepalive(true)
    };
    options().map_err(|source| Error::Unreachable { address, source })?;
    Ok(stream)
}

/// The next address is tried when one fails, and beside it when that is silent: a network without a way for IPv6 must not use up all the
/// time of a host that has both.
async fn first_of(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = std::io::Error::other("the name has no address");
    loop {
        if let Some(address) = left.next() {
            tries.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            tried = tries.join_next() => match tried {
                None => return Err(last),
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = error,
                Some(Err(error)) => last = std::io::Error::other(error),
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if left.len() > 0 => {}
        }
    }
}

fn timed_out(stop: &Stop, after: Duration) -> Error {
    Error::TimedOut {
        address: format!("{}:{}", bracketed(&stop.host), stop.port),
        after,
    }
}

/// The hosts to pass, the machine itself last.
fn route(destination: &Destination) -> Result<Vec<Stop>> {
    let machine = Hop {
        host: destination.host.clone(),
        port: destination.port,
        user: destination.user.clone(),
    };
    let mut stops = Vec::new();
    add_stops(destination, &machine, &mut Vec::new(), &mut stops)?;
    Ok(stops)
}

/// Adds the hops before `hop`, then itself. Of a list of hops only the first is reached by its own `ProxyJump`, as in OpenSSH.
fn add_stops(
    destination: &Destination,
    hop: &Hop,
    trail: &mut Vec<String>,
    stops: &mut Vec<Stop>,
) -> Result<()> {
    if trail.contains(&hop.host) || trail.len() + stops.len() >= MOST_HOPS {
        let circle = format!("ProxyJump of {}", hop.host);
        return Err(Error::Config(ConfigError::Circle(circle)));
    }
    let config = destination
        .config
        .resolve(&hop.host)
        .map_err(Error::Config)?;
    trail.push(hop.host.clone());
    for (n, before) in config.proxy_jump.iter().enumerate() {
        if n == 0 {
            add_stops(destination, before, trail, stops)?;
        } else {
            let jump = destination
                .config
                .resolve(&before.host)
                .map_err(Error::Config)?;
            stops.push(stop(destination, before, jump, Role::Jump));
        }
    }
    trail.pop();
    let role = if trail.is_empty() {
        Role::Machine
    } else {
        Role::Jump
    };
    stops.push(stop(destination, hop, config, role));
    Ok(())
}

fn stop(destination: &Destination, hop: &Hop, config: HostConfig, role: Role) -> Stop {
    let given = destination.keys.iter().cloned();
    let files = match role {
        Role::Machine => given.chain(config.identity_files).collect(),
        Role::Jump => config.identity_files.into_iter().chain(given).collect(),
    };
    let user = hop.user.clone().or(config.user);
    Stop {
        host: config.host_name,
        port: hop.port.or(config.port).unwrap_or(22),
        user: user.unwrap_or_else(|| "root".to_owned()),
        identities: Identities {
            files,
            agent: destination.agent.clone(),
            only_files: config.identities_only,
        },
        role,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ClientConfig;

    fn hosts(text: &str, host: &str) -> Result<Vec<String>> {
        let mut destination = Destination::new(host, "/nowhere/pins");
        destination.config = ClientConfig::parse(text, Path::new("/nowhere"), "ann").unwrap();
        let stops = route(&destination)?;
        Ok(stops
            .iter()
            .map(|s| format!("{}@{}:{}", s.user, s.host, s.port))
            .collect())
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_others() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let open = tokio::net::TcpListener::bind(any).await.unwrap();
        let open = (open.local_addr().unwrap(), open);
        let closed = {
            let listener = tokio::net::TcpListener::bind(any).await.unwrap();
            listener.local_addr().unwrap()
        };
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind(any).unwrap();
        let full = full.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(silent)).await
        {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 64, "it is never full");
        }
        for first in [closed, silent] {
            let found = tokio::time::timeout(Duration::from_secs(5), first_of(vec![first, open.0]));
            let peer = found.await.unwrap().unwrap().peer_addr().unwrap();
            assert_eq!(peer, open.0);
        }
        let refused = first_of(vec![closed]).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(first_of(Vec::new()).await.is_err());
    }

    #[test]
    fn hops_come_in_order_and_only_the_first_jumps_itself() {
        let text = "Host web\n ProxyJump b,c:2200\nHost b\n User bob\n ProxyJump a\nHost c\n ProxyJump zzz\n HostName 192.0.2.3\n";
        assert_eq!(
            hosts(text, "web").unwrap(),
            [
                "root@a:22",
                "bob@b:22",
                "root@192.0.2.3:2200",
                "root@web:22"
            ]
        );
    }

    #[test]
    fn a_circle_of_jumps_is_an_error() {
        let circle = "Host a\n ProxyJump b\nHost b\n ProxyJump a\n";
        assert!(matches!(hosts(circle, "a"), Err(Error::Config(_))));
        let own = "Host *\n ProxyJump bastion\n";
        assert!(matches!(hosts(own, "web"), Err(Error::Config(_))));
    }
}
