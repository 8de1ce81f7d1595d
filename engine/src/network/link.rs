//! The host's interfaces: bridges, the host's ends of veth pairs, routes, by rtnetlink.
//!
//! Deliberately absent: what is inside a container's namespace (`interface`).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context as _;
use fs_err as fs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Error, Handle, LinkBridge, LinkBridgePort, LinkUnspec, RouteMessageBuilder};

use super::interface::{self, Interface, Kind, Ways};
use super::namespace;
use super::rules::Bridge;
use super::subnet::{Family, Subnet};
use crate::userns::Maps;

/// Names of the host's ends begin so.
pub const PREFIX: &str = "wlv";

/// Whether a namespace is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// It is made, and belongs to a user namespace with these ids, or to the host's.
    New(Option<Maps>),
    /// It is there.
    Old,
}

/// The host's interfaces.
#[derive(Debug, Clone)]
pub struct Links {
    pub(super) handle: Handle,
}

pub(super) fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Success where the kernel says that it is so already.
pub(super) fn unless(code: i32, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if errno(&error) == Some(code) => Ok(()),
        other => other,
    }
}

pub(super) fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

impl Links {
    /// Those of the calling thread's network namespace.
    pub fn open() -> anyhow::Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// An interface's number, if it is there.
    pub async fn find(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("look for interface {name}")),
        }
    }

    /// The host's ends of all veth pairs of ours on these bridges.
    pub async fn ends(&self, bridges: &[u32]) -> anyhow::Result<Vec<String>> {
        let mut links = self.handle.link().get().execute();
        let mut found = Vec::new();
        while let Some(link) = links.try_next().await.context("list interfaces")? {
            let on_ours = link
                .attributes
                .iter()
                .any(|a| matches!(a, LinkAttribute::Controller(i) if bridges.contains(i)));
            if let Some(name) = name_of(&link).filter(|n| on_ours && n.starts_with(PREFIX)) {
                found.push(name.to_owned());
            }
        }
        Ok(found)
    }

    /// Names of all interfaces.
    pub async fn names(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut links = self.handle.link().get().execute();
        let mut found = BTreeSet::new();
        while let Some(link) = links.try_next().await.context("list interfaces")? {
            found.extend(name_of(&link).map(str::to_owned));
        }
        Ok(found)
    }

    /// Makes a bridge as it should be; answers whether there was none.
    pub async fn ensure_bridge(&self, bridge: &Bridge) -> anyhow::Result<bool> {
        if self.find(&bridge.name).await?.is_some() {
            return Ok(false);
        }
        self.make_bridge(bridge)
            .await
            .with_context(|| format!("make bridge {}", bridge.name))?;
        Ok(true)
    }

    async fn make_bridge(&self, bridge: &Bridge) -> anyhow::Result<()> {
        let spans = || bridge.v4.iter().chain(&bridge.v6);
        // A hardware address of its own, or it would change with every port.
        let mut link =
            LinkBridge::new(&bridge.name).address(mac(spans().find_map(|s| s.gateway)).to_vec());
        if let Some(mtu) = bridge.mtu {
            link = link.mtu(mtu);
        }
        unless(
            libc::EEXIST,
            self.handle.link().add(link.build()).execute().await,
        )?;
        let index = self
            .find(&bridge.name)
            .await?
            .context("it was removed at once")?;
        // For 127.0.0.1 of published ports; the early rule keeps containers from using it.
        set(&bridge.name, "ipv4", "route_localnet", "1")?;
        let without = if bridge.v6.is_some() { "0" } else { "1" };
        let switched = set(&bridge.name, "ipv6", "disable_ipv6", without);
        match switched {
            Err(error) if bridge.v6.is_some() => return Err(error),
            Err(error) => tracing::debug!(%error, "no IPv6 to switch off"),
            Ok(()) if bridge.v6.is_some() => set(&bridge.name, "ipv6", "accept_ra", "0")?,
            Ok(()) => {}
        }
        for span in spans() {
            if let Some(gateway) = span.gateway {
                self.add_address(index, gateway, span.subnet.length())
                    .await?;
            }
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await?;
        Ok(())
    }

    /// An address, usable at once; there already is success.
    pub(super) async fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        length: u8,
    ) -> anyhow::Result<()> {
        let mut request = self.handle.address().add(index, address, length);
        if address.is_ipv6() {
            // The engine gives each address once: nobody has to be asked whether it is in use.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        unless(libc::EEXIST, request.execute().await)
            .with_context(|| format!("give address {address}"))
    }

    /// Removes an interface; not there is success.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        let removed = self.handle.link().del(index).execute().await;
        unless(libc::ENODEV, removed).with_context(|| format!("remove interface {name}"))
    }

    /// Gives a namespace at `path` interfaces and ways out.
    pub async fn attach(
        &self,
        path: &Path,
        home: Home,
        interfaces: Vec<Interface>,
        ways: Ways,
    ) -> anyhow::Result<()> {
        for interface in &interfaces {
            self.remove(&interface.host).await?;
        }
        let beside: Vec<_> = interfaces
            .iter()
            .filter(|i| !matches!(i.kind, Kind::Pair { .. }))
            .cloned()
            .collect();
        let new = match home {
            Home::New(user) => Some(user),
            Home::Old => None,
        };
        if let Some(user) = new.clone().filter(|_| !beside.is_empty()) {
            namespace::make(path, user, |_| {
                alone(async { Self::open()?.raise_loopback().await })
            })
            .await?;
        }
        for interface in &beside {
            self.put_beside(path, interface).await?;
        }
        let inside = interfaces.clone();
        let furnish = move |home: &std::fs::File| {
            alone(async { interface::furnish(&Self::open()?, home, &inside, ways).await })
        };
        if let Some(user) = new.filter(|_| beside.is_empty()) {
            namespace::make(path, user, furnish).await?;
        } else {
            let host = fs::File::open("/proc/thread-self/ns/net")?.into_parts().0;
            namespace::within(path, move || furnish(&host)).await?;
        }
        for interface in &interfaces {
            if let Kind::Pair { bridge, isolated } = &interface.kind {
                self.join(&interface.host, bridge, *isolated).await?;
            }
        }
        Ok(())
    }

    /// The host's end becomes a port of the bridge.
    async fn join(&self, end: &str, bridge: &str, isolated: bool) -> anyhow::Result<()> {
        let bridge = self
            .find(bridge)
            .await?
            .with_context(|| format!("bridge {bridge} is gone"))?;
        let end = self.find(end).await?.context("the pair is gone")?;
        let join = LinkUnspec::new_with_index(end).controller(bridge).up();
        self.handle.link().set(join.build()).execute().await?;
        // Hairpin, so that a container reaches itself by its published port.
        let port = LinkBridgePort::new(end).hairpin(true).isolated(isolated);
        self.handle.link().set_port(port.build()).execute().await?;
        Ok(())
    }

    /// Changes the ways out of a namespace.
    pub async fn reroute(&self, path: &Path, ways: Ways) -> anyhow::Result<()> {
        namespace::within(path, move || {
            alone(async { interface::route(&Self::open()?, ways).await })
        })
        .await
    }

    /// Removes an interface inside a namespace, known by its address.
    pub async fn remove_inside(&self, path: &Path, address: IpAddr) -> anyhow::Result<()> {
        namespace::within(path, move || {
            alone(async { interface::remove(&Self::open()?, address).await })
        })
        .await
    }

    pub(super) async fn raise_loopback(&self) -> anyhow::Result<()> {
        let up = LinkUnspec::new_with_index(1).up().build();
        Ok(self.handle.link().set(up).execute().await?)
    }

    /// Networks that the host knows a way to, but for those of the interface that is left out.
    pub async fn routed(&self, but: Option<u32>) -> anyhow::Result<Vec<Subnet>> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut found = self.routes(v4, but).await?;
        match self.routes(v6, but).await {
            Ok(more) => found.extend(more),
            Err(error) => tracing::debug!(%error, "no IPv6 routes"),
        }
        Ok(found)
    }

    async fn routes(&self, all: RouteMessage, but: Option<u32>) -> anyhow::Result<Vec<Subnet>> {
        let mut routes = self.handle.route().get(all).execute();
        let mut found = Vec::new();
        while let Some(route) = routes.try_next().await.context("list routes")? {
            let mut subnet = None;
            let mut interface = None;
            let length = route.header.destination_prefix_length;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        subnet = Some(Subnet::around(*address, length));
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                        subnet = Some(Subnet::around(*address, length));
                    }
                    RouteAttribute::Oif(index) => interface = Some(*index),
                    _ => {}
                }
            }
            let main = route.header.table == RouteHeader::RT_TABLE_MAIN;
            if main && (but.is_none() || interface != but) {
                found.extend(subnet.filter(|s| s.length() > 0));
            }
        }
        Ok(found)
    }
}

/// A small runtime on this thread, for work in another namespace.
pub(super) fn alone<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(work)
}

/// A setting of an interface in the calling thread's namespace.
pub(super) fn set(interface: &str, family: &str, name: &str, value: &str) -> anyhow::Result<()> {
    setting(
        &format!("/proc/sys/net/{family}/conf/{interface}/{name}"),
        value,
    )
}

pub(super) fn setting(path: &str, value: &str) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    Ok(fs::write(path, value)?)
}

/// Whether the host forwards packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It does.
    On,
    /// It does not.
    Off,
}

fn forward_path(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// Whether the host forwards packets of a family.
pub fn forwards(family: Family) -> anyhow::Result<bool> {
    let now = fs::read_to_string(forward_path(family))
        .context("containers need the host to forward packets")?;
    Ok(now.trim() != "0")
}

/// Lets the host forward packets of a family, or not.
pub fn forwarding(family: Family, switch: Switch) -> anyhow::Result<()> {
    if family == Family::V6 && switch == Switch::On {
        keep_advertised()?;
    }
    let value = if switch == Switch::On { "1" } else { "0" };
    setting(forward_path(family), value).context("containers need the host to forward packets")
}

/// A host that forwards takes no more router advertisements, and would lose its own addresses, unless it is told to go on.
fn keep_advertised() -> anyhow::Result<()> {
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let path = entry?.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
            fs::write(&path, "2")?;
        }
    }
    Ok(())
}

/// A hardware address that belongs to an address: neighbours that remember it are never wrong.
pub fn mac(address: Option<IpAddr>) -> [u8; 6] {
    let [a, b, c, d] = match address {
        Some(IpAddr::V4(address)) => address.octets(),
        Some(IpAddr::V6(address)) => {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(address.octets());
            [digest[0], digest[1], digest[2], digest[3]]
        }
        None => rand::random(),
    };
    [0x02, 0x42, a, b, c, d]
}

/// `02:42:0a:01:00:02`.
pub fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// [`shown`], backwards.
pub fn read_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split([':', '-']).map(|b| u8::from_str_radix(b, 16));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()?.ok()?;
    }
    (bytes.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        let address = mac(Some(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 255))));
        assert_eq!(shown(address), "02:42:0a:01:00:ff");
        assert_eq!(read_mac("02:42:0a:01:00:ff"), Some(address));
        for bad in [
            "",
            "02:42",
            "03:42:0a:01:00:ff",
            "02:42:0a:01:00:ff:00",
            "zz:42:0a:01:00:ff",
        ] {
            assert_eq!(read_mac(bad), None, "{bad}");
        }
    }
}
