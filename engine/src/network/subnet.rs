//! Networks of addresses, of both families, as values: reading, containing, overlapping, and the ranges that new networks are taken from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// How long an address is.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// All addresses of the host.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    fn address(self, bits: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The bytes of an address as they are on the wire.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: u128,
    length: u8,
    family: Family,
}

impl Subnet {
    /// The network of that length around an address.
    pub fn around(address: impl Into<IpAddr>, length: u8) -> Self {
        let address = address.into();
        let family = Family::of(address);
        let length = length.min(family.bits());
        Self {
            base: bits(address) & mask(family, length),
            length,
            family,
        }
    }

    /// `10.1.0.0/16`; an address within (`10.1.0.1/16`) means its network.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length = length.parse().ok();
        let length = length.filter(|l| *l <= Family::of(address).bits())?;
        Some(Self::around(address, length))
    }

    /// Of which addresses.
    pub fn family(self) -> Family {
        self.family
    }

    /// Its first address.
    pub fn base(self) -> IpAddr {
        self.at(0)
    }

    /// Its last address.
    pub fn last(self) -> IpAddr {
        self.at(self.size() - 1)
    }

    /// Bits of the prefix.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The prefix as bytes.
    pub fn mask(self) -> Vec<u8> {
        octets(self.family.address(mask(self.family, self.length)))
    }

    /// How many addresses there are, the unusable first and last among them.
    pub fn size(self) -> u128 {
        1u128
            .checked_shl(u32::from(self.family.bits() - self.length))
            .unwrap_or(u128::MAX)
    }

    /// The address at this place.
    pub fn at(self, place: u128) -> IpAddr {
        self.family.address(self.base.saturating_add(place))
    }

    /// The place of an address.
    pub fn place(self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| bits(address) - self.base)
    }

    /// Whether it is one of ours.
    pub fn contains(self, address: IpAddr) -> bool {
        Family::of(address) == self.family
            && bits(address) & mask(self.family, self.length) == self.base
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base()) || other.contains(self.base())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.length)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is no network of addresses"))
    }
}

fn mask(family: Family, length: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(family.bits()));
    let host = u32::from(family.bits() - length);
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// The first private range, in Docker's order, that overlaps with none of these.
pub fn choose(taken: &[Subnet]) -> Option<Subnet> {
    // The first one is where another engine's default network is.
    let wide = (18..=31)
        .chain([17])
        .map(|second| Subnet::around(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|part| Subnet::around(Ipv4Addr::new(192, 168, part * 16, 0), 20));
    let ten = (200..=250).map(|second| Subnet::around(Ipv4Addr::new(10, second, 0, 0), 16));
    let mut all = wide.chain(small).chain(ten);
    all.find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
}

/// A unique local /64 that overlaps with none of these, of the engine's own /48.
pub fn choose_local(seed: &str, taken: &[Subnet]) -> Option<Subnet> {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(seed);
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&digest[..5]);
    let mut all = (0..=u16::MAX).map(|number| {
        octets[6..8].copy_from_slice(&number.to_be_bytes());
        Subnet::around(Ipv6Addr::from(octets), 64)
    });
    all.find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn reading() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(subnet("::/0").size(), u128::MAX);
        assert_eq!(subnet("10.0.0.1/32").at(0), ip("10.0.0.1"));
        assert_eq!(subnet("fd00::5/64").to_string(), "fd00::/64");
        assert_eq!(subnet("fd00::/64").at(2), ip("fd00::2"));
        assert_eq!(subnet("10.1.0.0/16").last(), ip("10.1.255.255"));
        for bad in ["10.0.0.0", "10.0.0/8", "10.0.0.0/33", "a/8", "10.0.0.0/-1"] {
            assert_eq!(Subnet::parse(bad), None, "{bad}");
        }
        assert_eq!(subnet("10.1.0.0/16").place(ip("10.1.1.0")), Some(256));
        assert_eq!(subnet("10.1.0.0/16").place(ip("10.2.1.0")), None);
        assert_eq!(subnet("10.1.0.0/16").mask(), [255, 255, 0, 0]);
        assert_eq!(subnet("fd00::/8").mask()[..2], [255, 0]);
        assert!(!subnet("::/0").contains(ip("10.0.0.1")));
    }

    #[test]
    fn choosing_avoids_what_is_taken() {
        assert!(subnet("172.31.0.0/20").overlaps(subnet("172.31.0.0/16")));
        assert!(subnet("172.16.0.0/12").overlaps(subnet("172.31.0.0/16")));
        assert!(!subnet("172.30.0.0/16").overlaps(subnet("172.31.0.0/16")));
        let mut taken = vec![subnet("172.16.0.0/12"), subnet("192.168.0.0/24")];
        let mut found = Vec::new();
        while let Some(next) = choose(&taken) {
            found.push(next);
            taken.push(next);
        }
        assert_eq!(found[0], subnet("192.168.16.0/20"));
        assert_eq!(found.len(), 15 + 51);
        assert_eq!(choose(&[]).unwrap(), subnet("172.18.0.0/16"));
        let first = choose_local("host", &[]).unwrap();
        let second = choose_local("host", &[first]).unwrap();
        assert!(first != second && subnet("fd00::/8").contains(second.base()));
        assert_eq!(second.length(), 64);
    }
}
