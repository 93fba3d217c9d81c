//! Pods: network namespaces with one interface, one service account and no idea of the mesh.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    host::Host,
    leftovers,
    link::{VethEnd, configure, wait_usable},
    netns::Netns,
};

/// The one interface of a pod.
const INTERFACE: &str = "eth0";

/// First byte of a MAC address that no manufacturer has.
const LOCALLY_ADMINISTERED: u8 = 0x02;

/// For clients that open connections as fast as they can: ports must not be what limits them.
const LOAD_SYSCTLS: &[(&str, &str)] =
    &[("net/ipv4/tcp_tw_reuse", "1"), ("net/ipv4/ip_local_port_range", "1024 65535")];

/// What a pod is to be; see [`crate::Node::add_pod`].
#[derive(Clone, Debug)]
pub struct PodSpec {
    name: String,
    namespace: String,
    service_account: String,
    host_number: Option<u8>,
    for_load: bool,
}

/// A pod of the lab; clones are the same pod.
#[derive(Clone, Debug)]
pub struct Pod(Arc<PodInner>);

#[derive(Debug)]
struct PodInner {
    spec: PodSpec,
    netns: Netns,
    place: Placement,
}

/// Where on its node a pod goes.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) node: String,
    pub(crate) node_netns: Netns,
    pub(crate) bridge: &'static str,
    pub(crate) port: String,
    pub(crate) lab_dir: PathBuf,
    pub(crate) ipv4: Ipv4Net,
    pub(crate) ipv6: Ipv6Net,
    pub(crate) gateways: [IpAddr; 2],
}

// === impl PodSpec ===

impl PodSpec {
    /// Describes a pod in namespace `default` with service account `default`.
    ///
    /// The name must be unique on its node, whatever the Kubernetes namespace.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            host_number: None,
            for_load: false,
        }
    }

    /// Sets the Kubernetes namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Sets the service account.
    #[must_use]
    pub fn service_account(mut self, service_account: &str) -> Self {
        service_account.clone_into(&mut self.service_account);
        self
    }

    /// Sets the last number of the addresses, to take over the addresses of a deleted pod.
    #[must_use]
    pub fn host_number(mut self, number: u8) -> Self {
        self.host_number = Some(number);
        self
    }

    /// Lets clients in the pod use nearly all ports, and reuse those in `TIME_WAIT`.
    #[must_use]
    pub fn for_load(mut self) -> Self {
        self.for_load = true;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn chosen_host_number(&self) -> Option<u8> {
        self.host_number
    }
}

// === impl Pod ===

impl Pod {
    pub(crate) fn create(spec: PodSpec, netns: Netns, place: Placement) -> Result<Self> {
        if spec.for_load {
            netns.set_sysctls(LOAD_SYSCTLS)?;
        }
        configure(&place.node_netns, async |links| {
            let port = VethEnd { name: &place.port, index: 0, mac: None };
            let mac = Some(mac_of(place.ipv4.addr()));
            let own = VethEnd { name: INTERFACE, index: 0, mac };
            links.add_veth(port, own, &netns).await?;
            links.join_bridge(&place.port, place.bridge).await
        })?;
        configure(&netns, async |links| {
            links.set_up("lo").await?;
            links.set_up(INTERFACE).await?;
            links.add_address(INTERFACE, place.ipv4.into()).await?;
            links.add_address(INTERFACE, place.ipv6.into()).await?;
            links.add_route(IpNet::V4(Ipv4Net::default()), place.gateways[0]).await?;
            links.add_route(IpNet::V6(Ipv6Net::default()), place.gateways[1]).await
        })?;
        wait_usable(&netns, INTERFACE)?;
        wait_usable(&place.node_netns, place.bridge)?;
        Ok(Self(Arc::new(PodInner { spec, netns, place })))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// Returns the Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.0.spec.namespace
    }

    /// Returns the service account.
    pub fn service_account(&self) -> &str {
        &self.0.spec.service_account
    }

    /// Returns the name of the node it runs on.
    pub fn node(&self) -> &str {
        &self.0.place.node
    }

    /// Returns the IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.0.place.ipv4.addr()
    }

    /// Returns the IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.0.place.ipv6.addr()
    }

    /// Returns `port` on the IPv4 address.
    pub fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ipv4().into(), port)
    }

    /// Returns `port` on the IPv6 address.
    pub fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ipv6().into(), port)
    }

    /// Returns the key of the workload that it is in the mesh.
    pub fn uid(&self) -> String {
        format!("Kubernetes//Pod/{}/{}", self.namespace(), self.name())
    }

    /// Returns the SPIFFE identity of its service account.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace(), self.service_account())
    }

    /// Ends its processes and removes it, as a node does with a deleted pod.
    pub fn delete(&self) -> Result<()> {
        leftovers::end_processes_in(&self.0.netns)?;
        let Placement { node_netns, port, .. } = &self.0.place;
        configure(node_netns, async |links| links.delete(port).await)?;
        self.0.netns.delete()
    }
}

impl Host for Pod {
    fn netns(&self) -> &Netns {
        &self.0.netns
    }

    fn lab_dir(&self) -> &Path {
        &self.0.place.lab_dir
    }
}

/// Derives the MAC address from the IPv4 address, so that nobody's neighbour table is wrong when a
/// pod takes over the addresses of another.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [LOCALLY_ADMINISTERED, 0, a, b, c, d]
}
