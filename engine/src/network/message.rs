//! Questions and answers of the domain name system, as bytes.
//!
//! Deliberately absent: all records but addresses and names of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::subnet::octets;

const HEADER: usize = 12;
const LIFETIME: u32 = 600;
/// What surely fits into a packet.
const SMALL: usize = 512;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Well.
    Fine = 0,
    /// Nobody could be asked.
    Failure = 2,
    /// Nobody is called so.
    NoSuchName = 3,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An address of either family.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// The one question of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the last dot.
    pub name: String,
    /// [`A`], [`AAAA`], [`PTR`] or another.
    pub kind: u16,
    /// Where it ends.
    end: usize,
}

/// An IPv4 address.
pub const A: u16 = 1;
/// The name of an address.
pub const PTR: u16 = 12;
/// An IPv6 address.
pub const AAAA: u16 = 28;

/// The way a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In a packet.
    Udp,
    /// On a connection.
    Tcp,
}

impl Question {
    /// Reads a query with one question.
    pub fn read(query: &[u8]) -> Option<Self> {
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
    pub fn reverse(&self) -> Option<IpAddr> {
        if self.kind != PTR {
            return None;
        }
        if let Some(text) = self.name.strip_suffix(".in-addr.arpa") {
            let turned: Ipv4Addr = text.parse().ok()?;
            let [d, c, b, a] = turned.octets();
            return Some(Ipv4Addr::new(a, b, c, d).into());
        }
        let text = self.name.strip_suffix(".ip6.arpa")?;
        let digits: Vec<&str> = text.split('.').collect();
        let one = |digit: &&str| u128::from_str_radix(digit, 16).ok().filter(|d| *d < 16);
        let mut bits = 0;
        for digit in digits.iter().rev() {
            bits = bits << 4 | one(digit)?;
        }
        (digits.len() == 32).then(|| Ipv6Addr::from_bits(bits).into())
    }
}

/// The answer to a query; what does not fit into a packet is asked for again on a connection.
pub fn reply(
    query: &[u8],
    question: &Question,
    code: Code,
    answers: &[Answer],
    way: Way,
) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    bytes.push(0x80 | (query[2] & 1));
    bytes.push(0x80 | code as u8);
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&query[HEADER..question.end]);
    let mut count: u16 = 0;
    for answer in answers {
        let before = bytes.len();
        let (kind, data) = match answer {
            Answer::Address(address @ IpAddr::V4(_)) => (A, octets(*address)),
            Answer::Address(address @ IpAddr::V6(_)) => (AAAA, octets(*address)),
            Answer::Name(name) => (PTR, encoded(name)),
        };
        bytes.extend_from_slice(&[0xc0, HEADER as u8]);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(&LIFETIME.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&data);
        let longest = if way == Way::Udp {
            SMALL
        } else {
            usize::from(u16::MAX)
        };
        if bytes.len() > longest {
            bytes.truncate(before);
            bytes[2] |= 2;
            break;
        }
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
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
        assert_eq!(turned.reverse(), Some(Ipv4Addr::new(1, 2, 3, 4).into()));
        let long = format!(
            "{}8.b.d.0.1.0.0.2.ip6.arpa",
            "1.".to_owned() + &"0.".repeat(23)
        );
        let turned = Question::read(&query(&long, PTR)).unwrap();
        assert_eq!(turned.reverse(), "2001:db8::1".parse().ok());
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
            &[Answer::Address(Ipv4Addr::new(10, 0, 0, 2).into())],
            Way::Udp,
        );
        assert_eq!(bytes[..4], [7, 9, 0x81, 0x80]);
        assert_eq!(bytes[4..8], [0, 1, 0, 1]);
        assert_eq!(bytes[bytes.len() - 4..], [10, 0, 0, 2]);
        assert_eq!(bytes.len(), asked.len() + 16);
        let many = vec![Answer::Address(Ipv4Addr::LOCALHOST.into()); 100];
        let small = reply(&asked, &question, Code::Fine, &many, Way::Udp);
        assert!(
            small.len() <= 512 && small[2] & 2 != 0,
            "the rest is asked for again"
        );
        let whole = reply(&asked, &question, Code::Fine, &many, Way::Tcp);
        assert_eq!((whole[2] & 2, whole[7]), (0, 100));
        let six = [Answer::Address(Ipv6Addr::LOCALHOST.into())];
        let six = reply(&asked, &question, Code::Fine, &six, Way::Udp);
        assert_eq!(six.len(), asked.len() + 28);
    }
}
