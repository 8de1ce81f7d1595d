//! Bridges, veth pairs, addresses and routes, by rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::Context as _;
use fs_err as fs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use super::namespace;
use super::rules::Bridge;
use super::subnet::Subnet;

/// Names of the host's ends begin so.
pub const PREFIX: &str = "wlv";
const INSIDE: &str = "eth0";

/// A container's interface.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name of the host's end.
    pub host: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Bits of the prefix.
    pub length: u8,
    /// Hardware address.
    pub mac: [u8; 6],
    /// The default route, if it has one.
    pub gateway: Option<Ipv4Addr>,
}

/// The host's interfaces.
#[derive(Debug, Clone)]
pub struct Links {
    handle: Handle,
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Success where the kernel says that it is so already.
fn unless(code: i32, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if errno(&error) == Some(code) => Ok(()),
        other => other,
    }
}

fn name_of(link: &LinkMessage) -> Option<&str> {
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

    /// Makes a bridge as it should be; answers whether there was none.
    pub async fn ensure_bridge(&self, bridge: &Bridge, gateway: Ipv4Addr) -> anyhow::Result<bool> {
        if self.find(&bridge.name).await?.is_some() {
            return Ok(false);
        }
        self.make_bridge(bridge, gateway)
            .await
            .with_context(|| format!("make bridge {}", bridge.name))?;
        Ok(true)
    }

    async fn make_bridge(&self, bridge: &Bridge, gateway: Ipv4Addr) -> anyhow::Result<()> {
        // A hardware address of its own, or it would change with every port.
        let link = LinkBridge::new(&bridge.name).address(mac(gateway).to_vec());
        unless(
            libc::EEXIST,
            self.handle.link().add(link.build()).execute().await,
        )?;
        let index = self
            .find(&bridge.name)
            .await?
            .context("it was removed at once")?;
        let added = self
            .handle
            .address()
            .add(index, IpAddr::V4(gateway), bridge.subnet.length())
            .execute();
        unless(libc::EEXIST, added.await)?;
        // For 127.0.0.1 of published ports; the early rule keeps containers from using it.
        set(&bridge.name, "ipv4", "route_localnet", "1")?;
        if let Err(error) = set(&bridge.name, "ipv6", "disable_ipv6", "1") {
            tracing::debug!(%error, "no IPv6 to switch off");
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await?;
        Ok(())
    }

    /// Removes an interface; not there is success.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        let removed = self.handle.link().del(index).execute().await;
        unless(libc::ENODEV, removed).with_context(|| format!("remove interface {name}"))
    }

    /// Makes a namespace at `path` with an interface on the bridge.
    pub async fn attach(
        &self,
        path: &Path,
        bridge: &str,
        endpoint: Endpoint,
    ) -> anyhow::Result<()> {
        self.remove(&endpoint.host).await?;
        let host = endpoint.host.clone();
        namespace::make(path, move |home| {
            alone(async {
                let links = Self::open()?;
                links.furnish(home, &endpoint).await
            })
        })
        .await?;
        let bridge = self
            .find(bridge)
            .await?
            .with_context(|| format!("bridge {bridge} is gone"))?;
        let end = self.find(&host).await?.context("the pair is gone")?;
        let join = LinkUnspec::new_with_index(end).controller(bridge).up();
        self.handle.link().set(join.build()).execute().await?;
        // So that a container reaches itself by its published port.
        let hairpin = LinkBridgePort::new(end).hairpin(true).build();
        self.handle.link().set_port(hairpin).execute().await?;
        Ok(())
    }

    /// In a new namespace: loopback, a pair whose other end is at home, address, route.
    async fn furnish(&self, home: &std::fs::File, endpoint: &Endpoint) -> anyhow::Result<()> {
        let link = self.handle.link();
        link.set(LinkUnspec::new_with_index(1).up().build())
            .execute()
            .await?;
        let other = LinkUnspec::new_with_name(&endpoint.host).setns_by_fd(home.as_raw_fd());
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(INSIDE)
            .address(endpoint.mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
        link.add(pair.build())
            .execute()
            .await
            .context("make a veth pair")?;
        if let Err(error) = set(INSIDE, "ipv6", "disable_ipv6", "1") {
            tracing::debug!(%error, "no IPv6 to switch off");
        }
        let index = self.find(INSIDE).await?.context("the pair is gone")?;
        self.handle
            .address()
            .add(index, IpAddr::V4(endpoint.address), endpoint.length)
            .execute()
            .await?;
        link.set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await?;
        if let Some(gateway) = endpoint.gateway {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .build();
            self.handle.route().add(route).execute().await?;
        }
        Ok(())
    }

    /// Networks that the host knows a way to, but for those of the interface that is left out.
    pub async fn routed(&self, but: Option<u32>) -> anyhow::Result<Vec<Subnet>> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = self.handle.route().get(all).execute();
        let mut found = Vec::new();
        while let Some(route) = routes.try_next().await.context("list routes")? {
            let mut subnet = None;
            let mut interface = None;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        let length = route.header.destination_prefix_length;
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
fn alone<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(work)
}

/// A setting of an interface in the calling thread's namespace.
fn set(interface: &str, family: &str, name: &str, value: &str) -> anyhow::Result<()> {
    setting(
        &format!("/proc/sys/net/{family}/conf/{interface}/{name}"),
        value,
    )
}

fn setting(path: &str, value: &str) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    Ok(fs::write(path, value)?)
}

/// Lets the host forward packets.
pub fn forwarding() -> anyhow::Result<()> {
    setting("/proc/sys/net/ipv4/ip_forward", "1")
        .context("containers need the host to forward packets")
}

/// A hardware address that belongs to an address: neighbours that remember it are never wrong.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
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
        let address = mac(Ipv4Addr::new(10, 1, 0, 255));
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
