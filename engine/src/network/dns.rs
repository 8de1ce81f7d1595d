//! Names in users' networks: a small resolver that each container reaches at 127.0.0.11 in its own namespace, as in Docker.
//! It answers for neighbours and passes other questions on to the host's name servers, or those that the container was given. It
//! listens inside, so that neither the host's firewall nor a name server of the host is in its way.
//!
//! Deliberately absent: caching.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::seq::SliceRandom as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::message::{A, AAAA, Answer, Code, Question, Way, reply};
use super::namespace;
use super::nft::{Batch, Hook, Table};
use super::rule::{Protocol, Rule, Side};
use super::state::State;
use super::subnet::Subnet;

/// Where containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "windlass_dns";
const PORT: u16 = 53;
const LONGEST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions of one container that wait for an answer at a time.
const AT_ONCE: usize = 64;

/// The resolvers that run.
#[derive(Debug, Default)]
pub struct Resolvers {
    running: Mutex<HashMap<String, AbortHandle>>,
}

/// Who may be told what.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Where names are looked up.
    pub state: Arc<Mutex<State>>,
    /// For this container.
    pub container: String,
}

impl Resolvers {
    /// Starts (again) the one of a container.
    pub async fn start(&self, container: &str, netns: &Path, scope: Scope) -> anyhow::Result<()> {
        let (udp, tcp) = namespace::within(netns, listen)
            .await
            .context("resolver of names")?;
        let udp = Arc::new(UdpSocket::from_std(udp)?);
        let tcp = TcpListener::from_std(tcp)?;
        let task = tokio::spawn(async move {
            tokio::join!(packets(udp, scope.clone()), connections(tcp, scope));
        });
        let former = self
            .lock()
            .insert(container.to_owned(), task.abort_handle());
        if let Some(former) = former {
            former.abort();
        }
        Ok(())
    }

    /// Whether that of a container runs.
    pub fn runs(&self, container: &str) -> bool {
        self.lock().contains_key(container)
    }

    /// Ends it.
    pub fn stop(&self, container: &str) {
        if let Some(task) = self.lock().remove(container) {
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the container's namespace: any port, so that the container can have its own name server; packets to port 53 are led there.
fn listen() -> anyhow::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let udp = std::net::UdpSocket::bind((ADDRESS, 0))?;
    udp.set_nonblocking(true)?;
    let tcp = std::net::TcpListener::bind((ADDRESS, 0))?;
    tcp.set_nonblocking(true)?;
    let mut batch = Batch::default();
    let table = Table::ip(TABLE);
    batch.replace_table(table);
    let hook = Hook {
        kind: "nat",
        number: 3,
        priority: -100,
    };
    batch.chain(table, "output", Some(hook));
    for (protocol, port) in [
        (Protocol::Udp, udp.local_addr()?.port()),
        (Protocol::Tcp, tcp.local_addr()?.port()),
    ] {
        let rule = Rule::new()
            .address(Side::To, Subnet::around(ADDRESS, 32))
            .port(protocol, PORT);
        batch.append(table, "output", &rule.rewrite(ADDRESS, port));
    }
    batch.commit()?;
    Ok((udp, tcp))
}

/// Between two tries to receive after one that failed.
const AFTER_ERROR: Duration = Duration::from_millis(10);

async fn packets(socket: Arc<UdpSocket>, scope: Scope) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Left over from an answer that could not be delivered; one that stays must not take a processor.
                tracing::debug!(%error, "resolver");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let query = buffer[..length].to_vec();
        let Some(question) = Question::read(&query) else {
            continue;
        };
        if let Some(reply) = local(&query, &question, &scope, Way::Udp) {
            socket.send_to(&reply, from).await.ok();
            continue;
        }
        // Too many at once: the client asks again.
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, scope) = (socket.clone(), scope.clone());
        tokio::spawn(async move {
            let reply = elsewhere(&query, &question, &scope, Way::Udp).await;
            socket.send_to(&reply, from).await.ok();
            drop(slot);
        });
    }
}

async fn connections(listener: TcpListener, scope: Scope) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let scope = scope.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &scope).await {
                        tracing::debug!(%error, "resolver");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors: those in use will be closed.
                tracing::debug!(%error, "resolver");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One question after the other, each behind its length.
async fn connection(mut stream: TcpStream, scope: &Scope) -> std::io::Result<()> {
    while let Ok(query) = timeout(SILENCE, framed(&mut stream)).await? {
        let Some(question) = Question::read(&query) else {
            return Ok(());
        };
        let reply = match local(&query, &question, scope, Way::Tcp) {
            Some(reply) => reply,
            None => elsewhere(&query, &question, scope, Way::Tcp).await,
        };
        send_framed(&mut stream, &reply).await?;
    }
    Ok(())
}

async fn framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send_framed(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&bytes[..usize::from(length)]);
    stream.write_all(&framed).await
}

/// An answer that needs nobody else.
fn local(query: &[u8], question: &Question, scope: &Scope, way: Way) -> Option<Vec<u8>> {
    let state = scope.state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut addresses) = state.resolve(&scope.container, &question.name) {
        // Each of several containers with the name gets its share.
        addresses.shuffle(&mut rand::rng());
        let asked = |a: &IpAddr| match question.kind {
            A => a.is_ipv4(),
            AAAA => a.is_ipv6(),
            _ => false,
        };
        let answers = addresses.into_iter().filter(asked).map(Answer::Address);
        let answers: Vec<_> = answers.collect();
        return Some(reply(query, question, Code::Fine, &answers, way));
    }
    let turned = question.reverse();
    if let Some(name) = turned.and_then(|a| state.name_of(&scope.container, a)) {
        return Some(reply(
            query,
            question,
            Code::Fine,
            &[Answer::Name(name)],
            way,
        ));
    }
    let shut = state.is_shut(&scope.container);
    shut.then(|| reply(query, question, Code::NoSuchName, &[], way))
}

/// Asks the name servers, one after the other.
async fn elsewhere(query: &[u8], question: &Question, scope: &Scope, way: Way) -> Vec<u8> {
    let own = {
        let state = scope.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = state.tenants.get(&scope.container);
        tenant.map(|t| t.dns.clone()).unwrap_or_default()
    };
    let servers = if own.is_empty() {
        let text = tokio::fs::read_to_string("/etc/resolv.conf").await;
        servers(&text.unwrap_or_default())
    } else {
        own.into_iter().map(|a| SocketAddr::new(a, PORT)).collect()
    };
    for server in servers {
        let asked = async {
            match way {
                Way::Udp => ask(server, query).await,
                Way::Tcp => ask_connected(server, query).await,
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(reply)) => return reply,
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server"),
            Err(_) => tracing::debug!(%server, "name server does not answer"),
        }
    }
    reply(query, question, Code::Failure, &[], way)
}

fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|l| {
        let mut words = l.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let addresses = lines.filter_map(|a| a.parse::<IpAddr>().ok());
    addresses.map(|a| SocketAddr::new(a, PORT)).collect()
}

async fn ask(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 12 && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_connected(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    send_framed(&mut stream, query).await?;
    framed(&mut stream).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_the_host() {
        let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch x\n";
        assert_eq!(servers(text), ["10.0.0.2:53".parse().unwrap()]);
    }
}
