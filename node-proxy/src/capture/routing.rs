//! The rule, the route and the sysctls that keep a pod's captured packets inside the pod.

use std::{collections::BTreeMap, fs, io, net::IpAddr};

use fairlead_ebpf::{CAPTURE_MARK, datagrams::RESOLVER_PORT};
use fairlead_sys::netns::Netns;
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        AddressFamily, IpProtocol,
        address::{AddressAttribute, AddressMessage, AddressScope},
        route::{RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
    },
};

/// Routing table of the marked packets, in the pod's namespace.
const TABLE: u32 = 15001;

/// Priority of the rule: after the table of local addresses (0), before the main table (32766).
const RULE_PRIORITY: u32 = 100;

/// Index of the loopback interface in every namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// Sysctls that let answers to the proxy inherit its mark, so that they come back although they are
/// addressed to a client: of the application's accepted sockets, and the kernel's own resets.
const SYSCTLS: [&str; 3] = [
    "/proc/sys/net/ipv4/tcp_fwmark_accept",
    "/proc/sys/net/ipv4/fwmark_reflect",
    "/proc/sys/net/ipv6/fwmark_reflect",
];

/// Values of sysctls by their paths.
pub type Sysctls = BTreeMap<String, String>;

/// Why a pod's routing could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The pod's namespace has no usable address.
    #[error(
        "the network namespace has no global address on an interface other than lo; enrol the pod \
         after its network is set up"
    )]
    NoAddress,
    /// The kernel refused a change.
    #[error("netlink: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// A namespace or a sysctl could not be used.
    #[error("{what}: {cause}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        cause: io::Error,
    },
}

/// A netlink connection to one pod's namespace.
pub(super) struct PodRouting<'a> {
    netns: &'a Netns,
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

// === impl PodRouting ===

impl<'a> PodRouting<'a> {
    pub(super) fn open(netns: &'a Netns) -> Result<Self, RoutingError> {
        let (connection, handle, _) = netns
            .within(new_connection)
            .and_then(|opened| opened)
            .map_err(|cause| RoutingError::Io { what: "opening netlink in the pod", cause })?;
        Ok(Self { netns, handle, connection: tokio::spawn(connection) })
    }

    /// Returns the pod's addresses: global ones of interfaces other than `lo`, one a family.
    pub(super) async fn addresses(&self) -> Result<Vec<IpAddr>, RoutingError> {
        let found: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.iter().filter_map(pod_address) {
            if !addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(RoutingError::NoAddress) } else { Ok(addresses) }
    }

    /// Routes marked packets of `addresses` to the loopback interface, and DNS queries that are
    /// led to the proxy if there are any. Repeating it is no error.
    pub(super) async fn divert(
        &self,
        addresses: &[IpAddr],
        queries: bool,
    ) -> Result<(), RoutingError> {
        let sysctls = self.sysctls()?.into_keys();
        self.set_sysctls(&sysctls.map(|path| (path, "1".to_owned())).collect())?;
        for address in addresses {
            let route = self.handle.route().add(route(*address)).replace().execute();
            route.await?;
            ignore_present(self.add_rule(marked(*address)).await)?;
            if queries {
                ignore_present(self.add_rule(query(*address)).await)?;
            } else {
                ignore_absent(self.handle.rule().del(query(*address)).execute().await)?;
            }
        }
        Ok(())
    }

    /// Undoes [`Self::divert`]. Absent parts are no error.
    pub(super) async fn restore(
        &self,
        addresses: &[IpAddr],
        sysctls: &Sysctls,
    ) -> Result<(), RoutingError> {
        for address in addresses {
            for rule in [marked(*address), query(*address)] {
                ignore_absent(self.handle.rule().del(rule).execute().await)?;
            }
            ignore_absent(self.handle.route().del(route(*address)).execute().await)?;
        }
        self.set_sysctls(sysctls)
    }

    /// Returns the values of the sysctls that [`Self::divert`] changes. A namespace without IPv6
    /// lacks that family's.
    pub(super) fn sysctls(&self) -> Result<Sysctls, RoutingError> {
        let mut values = Sysctls::new();
        for path in SYSCTLS {
            match self.netns.within(|| fs::read_to_string(path)).and_then(|read| read) {
                Ok(value) => drop(values.insert(path.to_owned(), value.trim().to_owned())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(RoutingError::Io { what: path, cause }),
            }
        }
        Ok(values)
    }

    async fn add_rule(&self, rule: RuleMessage) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule;
        request.execute().await
    }

    /// Ignores paths that are none of the sysctls: a record on disk does not choose what is written.
    fn set_sysctls(&self, values: &Sysctls) -> Result<(), RoutingError> {
        for path in SYSCTLS {
            let Some(value) = values.get(path) else { continue };
            self.netns
                .within(|| fs::write(path, value))
                .and_then(|written| written)
                .map_err(|cause| RoutingError::Io { what: path, cause })?;
        }
        Ok(())
    }
}

impl Drop for PodRouting<'_> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Returns the address if a pod is known by it.
pub(super) fn pod_address(message: &AddressMessage) -> Option<IpAddr> {
    if message.header.index == LOOPBACK_IFINDEX || message.header.scope != AddressScope::Universe {
        return None;
    }
    message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
    })
}

fn route(pod: IpAddr) -> RouteMessage {
    // `src` is set, or the kernel would choose the destination as the source address too.
    match pod {
        IpAddr::V4(pod) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .table_id(TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .output_interface(LOOPBACK_IFINDEX)
            .pref_source(pod)
            .build(),
        IpAddr::V6(pod) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .table_id(TABLE)
            .kind(RouteType::Local)
            .output_interface(LOOPBACK_IFINDEX)
            .pref_source(pod)
            .build(),
    }
}

/// Packets with the mark.
fn marked(pod: IpAddr) -> RuleMessage {
    rule(pod, [RuleAttribute::FwMark(CAPTURE_MARK), RuleAttribute::FwMask(u32::MAX)])
}

/// Datagrams that are led to the proxy one by one.
fn query(pod: IpAddr) -> RuleMessage {
    let port = RulePortRange { start: RESOLVER_PORT, end: RESOLVER_PORT };
    let what =
        [RuleAttribute::IpProtocol(IpProtocol::Udp), RuleAttribute::DestinationPortRange(port)];
    rule(pod, what)
}

fn rule(pod: IpAddr, what: [RuleAttribute; 2]) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = match pod {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![RuleAttribute::Table(TABLE), RuleAttribute::Priority(RULE_PRIORITY)];
    rule.attributes.extend(what);
    rule
}

fn ignore_present(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    ignore(result, nix::libc::EEXIST)
}

fn ignore_absent(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    ignore(ignore(result, nix::libc::ENOENT), nix::libc::ESRCH)
}

fn ignore(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -errno => Ok(()),
        other => other,
    }
}
