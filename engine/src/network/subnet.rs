//! IPv4 networks as values: reading, containing, overlapping, and the ranges that new networks are taken from.

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    length: u8,
}

impl Subnet {
    /// The network of that length around an address.
    pub fn around(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self {
            base: address.to_bits() & mask(length),
            length,
        }
    }

    /// `10.1.0.0/16`; an address within (`10.1.0.1/16`) means its network.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let length = length.parse().ok().filter(|l| *l <= 32)?;
        Some(Self::around(address.parse().ok()?, length))
    }

    /// Its first address.
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// Bits of the prefix.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The prefix as a mask.
    pub fn mask(self) -> Ipv4Addr {
        mask(self.length).into()
    }

    /// How many addresses there are, the unusable first and last among them.
    pub fn size(self) -> u64 {
        1 << (32 - u64::from(self.length))
    }

    /// The address at this place.
    pub fn at(self, place: u32) -> Ipv4Addr {
        self.base.saturating_add(place).into()
    }

    /// The place of an address.
    pub fn place(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address)
            .then(|| address.to_bits() - self.base)
    }

    /// Whether it is one of ours.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.length) == self.base
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

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// The first private range, in a fixed order, that overlaps with none of these.
pub fn choose(taken: &[Subnet]) -> Option<Subnet> {
    let wide = (18..=30)
        .rev()
        .map(|second| Subnet::around(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|part| Subnet::around(Ipv4Addr::new(192, 168, part * 16, 0), 20));
    let ten = (200..=250).map(|second| Subnet::around(Ipv4Addr::new(10, second, 0, 0), 16));
    let mut all = wide.chain(small).chain(ten);
    all.find(|candidate| !taken.iter().any(|t| t.overlaps(*candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    #[test]
    fn reading() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(subnet("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(subnet("10.0.0.1/32").at(0), Ipv4Addr::new(10, 0, 0, 1));
        for bad in ["10.0.0.0", "10.0.0/8", "10.0.0.0/33", "a/8", "10.0.0.0/-1"] {
            assert_eq!(Subnet::parse(bad), None, "{bad}");
        }
        assert_eq!(
            subnet("10.1.0.0/16").place(Ipv4Addr::new(10, 1, 1, 0)),
            Some(256)
        );
        assert_eq!(
            subnet("10.1.0.0/16").place(Ipv4Addr::new(10, 2, 1, 0)),
            None
        );
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
    }
}
