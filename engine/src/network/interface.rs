//! A container's interfaces, seen from inside its namespace: addresses, routes, settings; and those beside an interface of the host.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, IpVlanMode, MacVlanMode,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::link::{Links, name_of, set, setting, unless};

/// How it is connected with the host.
#[derive(Debug, Clone)]
pub enum Kind {
    /// By a pair whose other end is a port of a bridge.
    Pair {
        /// The bridge.
        bridge: String,
        /// It does not see the other ports.
        isolated: bool,
    },
    /// Beside an interface of the host, with a hardware address of its own.
    Macvlan {
        /// That interface.
        parent: String,
        /// `bridge`, `private`, `vepa`, `passthru`.
        mode: String,
    },
    /// Beside an interface of the host, with its hardware address.
    Ipvlan {
        /// That interface.
        parent: String,
        /// `l2`, `l3`, `l3s`.
        mode: String,
    },
}

/// A container's interface.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Name of the host's end.
    pub host: String,
    /// The beginning of its name inside; a number follows.
    pub prefix: String,
    /// Its whole name inside, if it was asked for.
    pub name: Option<String>,
    /// How it is connected.
    pub kind: Kind,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Addresses with the bits of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Settings of the kernel (`net.ipv4.conf.IFNAME.log_martians`, `1`).
    pub sysctls: Vec<(String, String)>,
}

/// Where packets to everywhere else go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// For IPv4.
    pub v4: Option<IpAddr>,
    /// For IPv6.
    pub v6: Option<IpAddr>,
}

/// In a namespace: loopback, each interface, the ways out. The pairs' other ends are at home.
pub async fn furnish(
    links: &Links,
    home: &File,
    interfaces: &[Interface],
    ways: Ways,
) -> anyhow::Result<()> {
    links.raise_loopback().await?;
    let mut taken = names(links).await?;
    for interface in interfaces {
        let name = match &interface.name {
            Some(name) => name.clone(),
            None => free(&interface.prefix, &taken),
        };
        match &interface.kind {
            Kind::Pair { .. } => pair(links, home, interface, &name).await?,
            _ => rename(links, &interface.host, &name).await?,
        }
        settle(links, interface, &name).await?;
        taken.push(name);
    }
    route(links, ways).await
}

async fn names(links: &Links) -> anyhow::Result<Vec<String>> {
    let mut all = links.handle.link().get().execute();
    let mut names = Vec::new();
    while let Some(link) = all.try_next().await.context("list interfaces")? {
        names.extend(name_of(&link).map(str::to_owned));
    }
    Ok(names)
}

fn free(prefix: &str, taken: &[String]) -> String {
    let mut all = (0..).map(|number| format!("{prefix}{number}"));
    all.find(|name| !taken.contains(name)).unwrap_or_default()
}

async fn pair(links: &Links, home: &File, interface: &Interface, name: &str) -> anyhow::Result<()> {
    let mut other = LinkUnspec::new_with_name(&interface.host).setns_by_fd(home.as_raw_fd());
    let mut pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .address(interface.mac.to_vec());
    if let Some(mtu) = interface.mtu {
        other = other.mtu(mtu);
        pair = pair.mtu(mtu);
    }
    let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
    let added = links.handle.link().add(pair.build()).execute().await;
    added.context("make a veth pair")
}

async fn rename(links: &Links, from: &str, to: &str) -> anyhow::Result<()> {
    let index = links.find(from).await?.context("the interface is gone")?;
    let named = LinkUnspec::new_with_index(index).name(to).build();
    let renamed = links.handle.link().set(named).execute().await;
    renamed.with_context(|| format!("name an interface {to}"))
}

async fn settle(links: &Links, interface: &Interface, name: &str) -> anyhow::Result<()> {
    let index = links.find(name).await?.context("the pair is gone")?;
    let with6 = interface.addresses.iter().any(|(a, _)| a.is_ipv6());
    let switched = set(name, "ipv6", "disable_ipv6", if with6 { "0" } else { "1" });
    match switched {
        Err(error) if with6 => return Err(error.context("this host has no IPv6")),
        Err(error) => tracing::debug!(%error, "no IPv6 to switch off"),
        // The engine gives addresses and routes, and nobody who happens to be in the network.
        Ok(()) if with6 => set(name, "ipv6", "accept_ra", "0")?,
        Ok(()) => {}
    }
    for (address, length) in &interface.addresses {
        links.add_address(index, *address, *length).await?;
    }
    for (key, value) in &interface.sysctls {
        // The interface's own name may hold a dot.
        let path = key
            .replace('.', "/")
            .replace("/IFNAME/", &format!("/{name}/"));
        setting(&format!("/proc/sys/{path}"), value)
            .with_context(|| format!("set {key} of {name}"))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    links.handle.link().set(up).execute().await?;
    Ok(())
}

/// The ways out, in place of the former ones.
pub async fn route(links: &Links, ways: Ways) -> anyhow::Result<()> {
    let route = links.handle.route();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new();
    match ways.v4 {
        Some(IpAddr::V4(gateway)) => {
            let added = route.add(v4.gateway(gateway).build()).replace().execute();
            added.await.context("set the default route")?;
        }
        _ => unless(libc::ESRCH, route.del(v4.build()).execute().await)?,
    }
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new();
    match ways.v6 {
        Some(IpAddr::V6(gateway)) => {
            // The kernel keeps several default routes of this family side by side.
            while route.del(v6.clone().build()).execute().await.is_ok() {}
            let added = route.add(v6.gateway(gateway).build()).execute();
            added.await.context("set the default route")?;
        }
        // Without IPv6 in the kernel there is nothing to take away.
        _ => drop(route.del(v6.build()).execute().await),
    }
    Ok(())
}

/// Takes the interface with an address away; none is success.
pub async fn remove(links: &Links, address: IpAddr) -> anyhow::Result<()> {
    let mut all = links.handle.address().get().execute();
    while let Some(found) = all.try_next().await.context("list addresses")? {
        let its =
            |a: &AddressAttribute| matches!(a, AddressAttribute::Address(own) if *own == address);
        if found.attributes.iter().any(its) {
            let removed = links.handle.link().del(found.header.index).execute().await;
            return Ok(unless(libc::ENODEV, removed)?);
        }
    }
    Ok(())
}

impl Links {
    /// Makes an interface beside one of the host, in a namespace; inside it gets its name later.
    pub(super) async fn put_beside(
        &self,
        path: &Path,
        interface: &Interface,
    ) -> anyhow::Result<()> {
        let (kind, data, parent) = match &interface.kind {
            Kind::Pair { .. } => return Ok(()),
            Kind::Macvlan { parent, mode } => {
                let mode = match mode.as_str() {
                    "private" => MacVlanMode::Private,
                    "vepa" => MacVlanMode::Vepa,
                    "passthru" => MacVlanMode::Passthrough,
                    _ => MacVlanMode::Bridge,
                };
                let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
                (InfoKind::MacVlan, data, parent)
            }
            Kind::Ipvlan { parent, mode } => {
                let mode = match mode.as_str() {
                    "l3" => IpVlanMode::L3,
                    "l3s" => IpVlanMode::L3S,
                    _ => IpVlanMode::L2,
                };
                let data = InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)]);
                (InfoKind::IpVlan, data, parent)
            }
        };
        let beside = self.find(parent).await?;
        let beside = beside.with_context(|| format!("the host has no interface {parent}"))?;
        let netns = fs_err::File::open(path)?;
        let with_mac = kind == InfoKind::MacVlan;
        let mut link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(kind)
            .name(&interface.host)
            .link(beside)
            .setns_by_fd(netns.as_raw_fd());
        if with_mac {
            link = link.address(interface.mac.to_vec());
        }
        if let Some(mtu) = interface.mtu {
            link = link.mtu(mtu);
        }
        let added = self.handle.link().add(link.set_info_data(data).build());
        let added = added.execute().await;
        added.with_context(|| format!("make an interface beside {parent}"))
    }
}
