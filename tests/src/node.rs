//! Nodes: network namespaces with a bridge that pods hang on, and routes to the other nodes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use anyhow::{Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    host::Host,
    link::configure,
    netns::Netns,
    pod::{Placement, Pod, PodSpec, mac_of},
};

/// The bridge that a node's pods hang on.
const BRIDGE: &str = "pods";

/// Last number of the bridge's addresses, the gateway of the pods.
const GATEWAY: u8 = 1;

/// Last number of the first pod's addresses.
const FIRST_POD: u8 = 2;

/// Prefix length of a node's IPv4 pod network.
const POD_PREFIX_V4: u8 = 24;

/// Prefix length of a node's IPv6 pod network.
const POD_PREFIX_V6: u8 = 64;

/// Every namespace: bbr's pacing would cap a stream at 20 Gbit/s, and an address is used at once.
const COMMON_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/tcp_congestion_control", "reno"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];

const NODE_SYSCTLS: &[(&str, &str)] =
    &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// Bridged packets pass no packet filter, as none is set; these files exist only with `br_netfilter`.
const BRIDGE_FILTER_SYSCTLS: &[(&str, &str)] =
    &[("net/bridge/bridge-nf-call-iptables", "0"), ("net/bridge/bridge-nf-call-ip6tables", "0")];

/// A node of the lab; clones are the same node.
#[derive(Clone, Debug)]
pub struct Node(Arc<NodeInner>);

#[derive(Debug)]
struct NodeInner {
    lab: String,
    lab_dir: PathBuf,
    number: u8,
    name: String,
    netns: Netns,
    next_pod: AtomicU8,
}

// === impl Node ===

impl Node {
    pub(crate) fn create(lab: &str, lab_dir: &Path, number: u8) -> Result<Self> {
        let name = format!("n{number}");
        let netns = prepared_netns(&format!("{lab}-{name}"))?;
        netns.set_sysctls(NODE_SYSCTLS)?;
        if Path::new("/proc/sys/net/bridge").exists() {
            netns.set_sysctls(BRIDGE_FILTER_SYSCTLS)?;
        }
        let node = Self(Arc::new(NodeInner {
            lab: lab.to_owned(),
            lab_dir: lab_dir.to_owned(),
            number,
            name,
            netns,
            next_pod: AtomicU8::new(FIRST_POD),
        }));
        configure(node.netns(), async |links| {
            links.set_up("lo").await?;
            links.add_bridge(BRIDGE, mac_of(node.ipv4())).await?;
            links.add_address(BRIDGE, node.host_v4(GATEWAY).into()).await?;
            links.add_address(BRIDGE, node.host_v6(GATEWAY).into()).await
        })?;
        Ok(node)
    }

    /// Returns the name, `n1` for the first node.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the network of its pods' IPv4 addresses.
    pub fn pods_v4(&self) -> Ipv4Net {
        self.host_v4(0)
    }

    /// Returns the network of its pods' IPv6 addresses.
    pub fn pods_v6(&self) -> Ipv6Net {
        self.host_v6(0)
    }

    /// Returns the node's own IPv4 address, the gateway of its pods.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.host_v4(GATEWAY).addr()
    }

    /// Returns the node's own IPv6 address, the gateway of its pods.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.host_v6(GATEWAY).addr()
    }

    /// Adds a pod.
    pub fn add_pod(&self, spec: PodSpec) -> Result<Pod> {
        let host = match spec.chosen_host_number() {
            Some(number) => number,
            None => self.0.next_pod.fetch_add(1, Ordering::Relaxed),
        };
        ensure!((FIRST_POD..u8::MAX).contains(&host), "no pod can have the number {host}");
        let netns = prepared_netns(&format!("{}-{}-{}", self.0.lab, self.name(), spec.name()))?;
        let place = Placement {
            node: self.name().to_owned(),
            node_netns: self.netns().clone(),
            bridge: BRIDGE,
            port: format!("pod{host}"),
            lab_dir: self.0.lab_dir.clone(),
            ipv4: self.host_v4(host),
            ipv6: self.host_v6(host),
            gateways: [self.ipv4().into(), self.ipv6().into()],
        };
        Pod::create(spec, netns, place)
    }

    /// Gives one end of the wire its addresses, and routes the pods of `peer` through it.
    pub(crate) fn join_wire(
        &self,
        interface: &str,
        own: [IpNet; 2],
        peer: &Self,
        via: [IpAddr; 2],
    ) -> Result<()> {
        configure(self.netns(), async |links| {
            links.set_up(interface).await?;
            for address in own {
                links.add_address(interface, address).await?;
            }
            links.add_route(peer.pods_v4().into(), via[0]).await?;
            links.add_route(peer.pods_v6().into(), via[1]).await
        })
    }

    fn host_v4(&self, host: u8) -> Ipv4Net {
        let address = Ipv4Addr::new(10, self.0.number, 0, host);
        Ipv4Net::new_assert(address, POD_PREFIX_V4)
    }

    fn host_v6(&self, host: u8) -> Ipv6Net {
        let address = Ipv6Addr::new(0xfd00, self.0.number.into(), 0, 0, 0, 0, 0, host.into());
        Ipv6Net::new_assert(address, POD_PREFIX_V6)
    }
}

impl Host for Node {
    fn netns(&self) -> &Netns {
        &self.0.netns
    }

    fn lab_dir(&self) -> &Path {
        &self.0.lab_dir
    }
}

fn prepared_netns(name: &str) -> Result<Netns> {
    let netns = Netns::create(name)?;
    netns.set_sysctls(COMMON_SYSCTLS)?;
    Ok(netns)
}
