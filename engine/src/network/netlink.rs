//! Messages to and from the kernel's netfilter: attributes, batches of bytes, dumps.
//!
//! Deliberately absent: what they mean (`nft`, `conntrack`).

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};

pub const REQUEST: u16 = 1;
pub const ACKNOWLEDGE: u16 = 4;
pub const DUMP: u16 = 0x300;
pub const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// A batch of some ten thousand rules.
const SEND_BUFFER: usize = 32 * 1024 * 1024;

/// A list of netlink attributes.
#[derive(Default)]
pub struct Attributes(pub Vec<u8>);

impl Attributes {
    pub fn put(&mut self, kind: u16, data: &[u8]) {
        let length = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind | NESTED, &inner.0);
    }
}
pub fn general(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

pub fn message(
    into: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    body: &[u8; 4],
    attributes: &Attributes,
) {
    let length = (HEADER + body.len() + attributes.0.len()) as u32;
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(&flags.to_ne_bytes());
    into.extend_from_slice(&sequence.to_ne_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(body);
    into.extend_from_slice(&attributes.0);
}

pub fn open() -> anyhow::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    // In a user namespace only the ordinary limit is allowed, which is enough for some thousand rules.
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
    }
    Ok(socket)
}

pub fn send(socket: &OwnedFd, bytes: &[u8]) -> nix::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty()).map(drop)
}

/// One datagram; nothing there is `None`.
pub fn receive(socket: &OwnedFd, flags: MsgFlags) -> anyhow::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error).context("read netfilter's answer"),
        }
    }
}

/// One message of an answer.
pub struct Part<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl Part<'_> {
    /// The code of an error message; 0 is a confirmation.
    pub fn error(&self) -> Option<i32> {
        let code = self.body.get(..4)?;
        (self.kind == 2).then(|| -i32::from_ne_bytes([code[0], code[1], code[2], code[3]]))
    }
}

pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let part = Part {
            kind: half(bytes, 4)?,
            sequence: word(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(part)
    })
}

pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let data = bytes.get(4..length)?;
        if half(bytes, 2)? & 0x3fff == wanted {
            return Some(data);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

pub fn text_of(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

pub fn number_of(data: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?))
}

/// Everything that a question of this kind brings; each with its family and attributes.
pub fn dump(kind: u16, family: u8, attributes: &Attributes) -> anyhow::Result<Vec<(u8, Vec<u8>)>> {
    let socket = open()?;
    let mut request = Vec::new();
    message(
        &mut request,
        (kind, REQUEST | DUMP, 1),
        &general(family, 0),
        attributes,
    );
    send(&socket, &request).context("ask netfilter")?;
    let mut found = Vec::new();
    loop {
        let Some(answer) = receive(&socket, MsgFlags::empty())? else {
            continue;
        };
        for part in parts(&answer) {
            match part.kind {
                2 => match part.error() {
                    Some(0) | None => {}
                    Some(code) => {
                        return Err(std::io::Error::from_raw_os_error(code))
                            .context("ask netfilter");
                    }
                },
                3 => return Ok(found),
                _ => {
                    if let Some((head, body)) = part.body.split_first_chunk::<4>() {
                        found.push((head[0], body.to_vec()));
                    }
                }
            }
        }
    }
}
