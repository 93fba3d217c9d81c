//! Interfaces, addresses and routes of a namespace, over netlink.

use std::{fs, net::IpAddr, os::fd::AsRawFd as _, time::Duration};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth},
    },
};

use crate::{netns::Netns, wait::wait_for};

/// Time for an interface to become usable: the kernel looks at link changes at least once a second.
const USABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Flag of an IPv6 address that is not used yet (`linux/if_addr.h`).
const IFA_F_TENTATIVE: u32 = 0x40;

/// Netlink access to the namespace of the calling thread.
pub(crate) struct Links(Handle);

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    /// Chosen by the kernel if 0.
    pub(crate) index: u32,
    /// Chosen by the kernel if absent.
    pub(crate) mac: Option<[u8; 6]>,
}

/// Waits until `interface` of `netns` has a link-local address: without one the kernel asks for no
/// neighbour, and the first packet that it forwards waits a second for the next attempt.
pub(crate) fn wait_usable(netns: &Netns, interface: &str) -> Result<()> {
    let what = format!("{interface} in {} is usable", netns.name());
    netns.enter(|| {
        wait_for(&what, USABLE_TIMEOUT, || {
            let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
            let usable = addresses.lines().any(|line| is_usable_link_local(line, interface));
            Ok(usable.then_some(()))
        })
    })
}

/// Runs `work` with netlink access to `netns`.
pub(crate) fn configure<T: Send>(
    netns: &Netns,
    work: impl AsyncFnOnce(&Links) -> Result<T> + Send,
) -> Result<T> {
    netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = new_connection()?;
            let connection = tokio::spawn(connection);
            let result = work(&Links(handle)).await;
            connection.abort();
            result
        })
    })
}

// === impl Links ===

impl Links {
    /// Makes the bridge `name`, up. Without a `mac` of its own it would have that of one of its ports,
    /// and another one when ports come and go, and the pods' neighbour tables would be wrong.
    pub(crate) async fn add_bridge(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        let message = LinkBridge::new(name).address(mac.to_vec()).up().build();
        self.0.link().add(message).execute().await.with_context(|| format!("bridge {name}"))
    }

    /// Makes a veth pair: `end` here, its peer in the namespace `other`.
    ///
    /// The two ends need different indices. The kernel takes an interface whose index equals its
    /// peer's, be it in another namespace, for one without a peer, and looks at it a second later.
    pub(crate) async fn add_veth(
        &self,
        end: VethEnd<'_>,
        peer: VethEnd<'_>,
        other: &Netns,
    ) -> Result<()> {
        let other = other.open()?;
        let peer = peer.message().setns_by_fd(other.as_raw_fd()).build();
        let message = LinkVeth::new(end.name, "")
            .index(end.index)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let context = || format!("veth {}", end.name);
        self.0.link().add(message).execute().await.with_context(context)
    }

    /// Removes the interface `name`, and with it the other end of a pair.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.0.link().del(index_of(name)?).execute().await.with_context(|| format!("delete {name}"))
    }

    /// Makes the interface `name` a port of `bridge`.
    pub(crate) async fn join_bridge(&self, name: &str, bridge: &str) -> Result<()> {
        let message =
            LinkUnspec::new_with_index(index_of(name)?).controller(index_of(bridge)?).build();
        self.0.link().set(message).execute().await.with_context(|| format!("{name} into {bridge}"))
    }

    /// Brings the interface `name` up.
    pub(crate) async fn set_up(&self, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index_of(name)?).up().build();
        self.0.link().set(message).execute().await.with_context(|| format!("{name} up"))
    }

    /// Gives the interface `name` an address, usable at once.
    pub(crate) async fn add_address(&self, name: &str, address: IpNet) -> Result<()> {
        let index = index_of(name)?;
        let mut request = self.0.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            let no_duplicate_detection = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(no_duplicate_detection);
        }
        request.execute().await.with_context(|| format!("address {address} on {name}"))
    }

    /// Routes `destination` through `gateway`.
    pub(crate) async fn add_route(&self, destination: IpNet, gateway: IpAddr) -> Result<()> {
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())?
            .gateway(gateway)?
            .build();
        let context = || format!("route {destination} via {gateway}");
        self.0.route().add(message).execute().await.with_context(context)
    }
}

// === impl VethEnd ===

impl VethEnd<'_> {
    fn message(&self) -> LinkMessageBuilder<LinkUnspec> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().name(self.name).index(self.index);
        match self.mac {
            Some(mac) => message.address(mac.to_vec()),
            None => message,
        }
    }
}

/// Parses a line of `/proc/net/if_inet6`: address, index, prefix length, scope, flags, interface.
fn is_usable_link_local(line: &str, interface: &str) -> bool {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, "20", flags, name] if name == interface => {
            u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & IFA_F_TENTATIVE == 0)
        }
        _ => false,
    }
}

fn index_of(name: &str) -> Result<u32> {
    if_nametoindex(name).with_context(|| format!("interface {name}"))
}
