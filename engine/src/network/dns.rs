//! Names in users' networks: a small resolver that each container reaches at 127.0.0.11 in its own namespace, as in Docker.
//! It answers for neighbours and passes other questions on to the host's name servers. It listens inside, so that
//! neither the host's firewall nor a name server of the host is in its way.
//!
//! Deliberately absent: TCP (an answer too long for UDP says so, and is the client's business), caching.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::namespace;
use super::nft::{Batch, Hook};
use super::rule::{Protocol, Rule, Side};
use super::state::State;
use super::subnet::Subnet;

/// Where containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "windlass_dns";
const PORT: u16 = 53;
const HEADER: usize = 12;
const LONGEST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions of one container that wait for an answer at a time.
const AT_ONCE: usize = 64;
const LIFETIME: u32 = 5;
/// As many as surely fit into the smallest allowed packet.
const MOST_ANSWERS: usize = 16;

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
    /// In this network.
    pub network: String,
    /// Nothing from outside.
    pub internal: bool,
}

impl Resolvers {
    /// Starts (again) the one of a container.
    pub async fn start(&self, container: &str, netns: &Path, scope: Scope) -> anyhow::Result<()> {
        let socket = namespace::within(netns, listen)
            .await
            .context("resolver of names")?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let task = tokio::spawn(serve(socket, scope)).abort_handle();
        let former = self.lock().insert(container.to_owned(), task);
        if let Some(former) = former {
            former.abort();
        }
        Ok(())
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
fn listen() -> anyhow::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((ADDRESS, 0))?;
    socket.set_nonblocking(true)?;
    let port = socket.local_addr()?.port();
    let mut batch = Batch::default();
    batch.replace_table(TABLE);
    let hook = Hook {
        kind: "nat",
        number: 3,
        priority: -100,
    };
    batch.chain(TABLE, "output", Some(hook));
    let rule = Rule::new()
        .address(Side::To, Subnet::around(ADDRESS, 32))
        .port(Protocol::Udp, PORT);
    batch.append(TABLE, "output", &rule.rewrite(ADDRESS, port));
    batch.commit()?;
    Ok(socket)
}

async fn serve(socket: Arc<UdpSocket>, scope: Scope) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Left over from an answer that could not be delivered.
                tracing::debug!(%error, "resolver");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let query = buffer[..length].to_vec();
        let Some(question) = Question::read(&query) else {
            continue;
        };
        if let Some(reply) = local(&query, &question, &scope) {
            socket.send_to(&reply, from).await.ok();
            continue;
        }
        // Too many at once: the client asks again.
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let socket = socket.clone();
        tokio::spawn(async move {
            let reply = match elsewhere(&query).await {
                Some(reply) => reply,
                None => reply(&query, &question, Code::Failure, &[]),
            };
            socket.send_to(&reply, from).await.ok();
            drop(slot);
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Fine = 0,
    Failure = 2,
    NoSuchName = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Address(Ipv4Addr),
    Name(String),
}

/// The one question of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    /// In lower case, without the last dot.
    name: String,
    kind: u16,
    /// Where it ends.
    end: usize,
}

const A: u16 = 1;
const PTR: u16 = 12;

impl Question {
    fn read(query: &[u8]) -> Option<Self> {
        let flags = *query.get(2)?;
        let is_query = flags & 0x80 == 0 && flags & 0x78 == 0;
        if !is_query || query.get(4..6)? != [0, 1] {
            return None;
        }
        let mut at = HEADER;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            match length {
                0 => break,
                1..=63 => {
                    let label = query.get(at..at + length)?;
                    labels.push(String::from_utf8_lossy(label).to_lowercase());
                    at += length;
                }
                _ => return None,
            }
        }
        let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
        query.get(at + 2..at + 4)?;
        Some(Self {
            name: labels.join("."),
            kind,
            end: at + 4,
        })
    }

    /// The address of a question for a name.
    fn reverse(&self) -> Option<Ipv4Addr> {
        let text = self.name.strip_suffix(".in-addr.arpa")?;
        let turned: Ipv4Addr = text.parse().ok()?;
        let [d, c, b, a] = turned.octets();
        (self.kind == PTR).then(|| Ipv4Addr::new(a, b, c, d))
    }
}

/// An answer that needs nobody else.
fn local(query: &[u8], question: &Question, scope: &Scope) -> Option<Vec<u8>> {
    let state = scope.state.lock().unwrap_or_else(PoisonError::into_inner);
    let addresses = state.resolve(&scope.network, &question.name);
    if !addresses.is_empty() {
        let asked = question.kind == A;
        let answers: Vec<_> = addresses
            .into_iter()
            .filter(|_| asked)
            .map(Answer::Address)
            .collect();
        return Some(reply(query, question, Code::Fine, &answers));
    }
    let turned = question
        .reverse()
        .and_then(|a| state.name_of(&scope.network, a));
    if let Some(name) = turned {
        return Some(reply(query, question, Code::Fine, &[Answer::Name(name)]));
    }
    scope
        .internal
        .then(|| reply(query, question, Code::NoSuchName, &[]))
}

fn reply(query: &[u8], question: &Question, code: Code, answers: &[Answer]) -> Vec<u8> {
    let answers = &answers[..answers.len().min(MOST_ANSWERS)];
    let mut bytes = query[..2].to_vec();
    bytes.push(0x80 | (query[2] & 1));
    bytes.push(0x80 | code as u8);
    bytes.extend_from_slice(&[0, 1, 0, answers.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(&query[HEADER..question.end]);
    for answer in answers {
        let (kind, data) = match answer {
            Answer::Address(address) => (A, address.octets().to_vec()),
            Answer::Name(name) => (PTR, encoded(name)),
        };
        bytes.extend_from_slice(&[0xc0, HEADER as u8]);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&LIFETIME.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&data);
    }
    bytes
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// Asks the host's name servers, one after the other.
async fn elsewhere(query: &[u8]) -> Option<Vec<u8>> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf").await.ok()?;
    for server in servers(&text) {
        match tokio::time::timeout(PATIENCE, ask(server, query)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server"),
            Err(_) => tracing::debug!(%server, "name server does not answer"),
        }
    }
    None
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
        if length >= HEADER && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&encoded(name));
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes
    }

    #[test]
    fn questions() {
        let question = Question::read(&query("Web.Example", A)).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.example", A));
        let turned = Question::read(&query("4.3.2.1.in-addr.arpa", PTR)).unwrap();
        assert_eq!(turned.reverse(), Some(Ipv4Addr::new(1, 2, 3, 4)));
        let whole = query("web", A);
        for end in 0..whole.len() {
            assert_eq!(Question::read(&whole[..end]), None, "cut at {end}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(Question::read(&answer), None);
        let mut pointer = whole;
        pointer[HEADER] = 0xc0;
        assert_eq!(Question::read(&pointer), None);
    }

    #[test]
    fn replies() {
        let asked = query("web", A);
        let question = Question::read(&asked).unwrap();
        let bytes = reply(
            &asked,
            &question,
            Code::Fine,
            &[Answer::Address(Ipv4Addr::new(10, 0, 0, 2))],
        );
        assert_eq!(bytes[..4], [7, 9, 0x81, 0x80]);
        assert_eq!(bytes[4..8], [0, 1, 0, 1]);
        assert_eq!(bytes[bytes.len() - 4..], [10, 0, 0, 2]);
        assert_eq!(bytes.len(), asked.len() + 16);
        let many = vec![Answer::Address(Ipv4Addr::LOCALHOST); 100];
        assert!(reply(&asked, &question, Code::Fine, &many).len() <= 512);
    }

    #[test]
    fn name_servers_of_the_host() {
        let text = "# nameserver 1.1.1.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch x\n";
        assert_eq!(servers(text), ["10.0.0.2:53".parse().unwrap()]);
    }
}
