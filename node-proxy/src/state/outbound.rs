//! Where a pod's connection goes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fairlead_ebpf::HBONE_PORT;
use mesh_api::{
    identity::{Identity, Namespace},
    workload::{
        Balancing, GatewayAddress, IpFamilies, Service, TunnelProtocol, UnknownDestinations,
        Workload,
    },
};

use super::{
    endpoints::Candidate,
    menu::{Choice, MAX_ATTEMPTS, Purpose},
    snapshot::{MeshState, ServiceEntry},
    standing::{Moment, Standing},
    waypoint,
};
use crate::telemetry::reason::CloseReason;

/// What this node's operator decides about connections that pods open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    /// What becomes of a connection whose waypoint is not there.
    pub without_waypoint: WithoutWaypoint,
    /// What becomes of a connection to an address that the mesh does not know, if the mesh leaves it
    /// to this node.
    pub unknown: UnknownDestinations,
}

/// What becomes of a connection whose waypoint is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutWaypoint {
    /// It is refused: nobody would apply the policies that are the waypoint's.
    #[default]
    Refuse,
    /// It goes to its destination without them.
    GoDirectly,
}

/// What the mesh knows of the address of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Destination<'a> {
    /// It is a service's.
    Service(ServiceEntry<'a>),
    /// It is a workload's own.
    Workload(&'a Arc<Workload>),
    /// It is a node's, which workloads of the host network share.
    Host,
    /// Nothing.
    Unknown,
}

/// How bytes travel to the next hop.
#[derive(Clone, Debug)]
pub enum Transport {
    /// As they are.
    Plaintext,
    /// Through an HBONE tunnel to the destination's own proxy.
    Hbone {
        /// Identities of which the peer must present one.
        expected: Arc<[Identity]>,
    },
    /// Through an HBONE tunnel to a waypoint, which goes on from there.
    Waypoint {
        /// Where the waypoint takes tunnels.
        address: SocketAddr,
        /// Identities of which the waypoint must present one.
        expected: Arc<[Identity]>,
    },
    /// Through an HBONE tunnel to the gateway of another network, and in that through one of its own
    /// to whom the gateway gives it.
    Gateway {
        /// Where the gateway takes tunnels.
        address: SocketAddr,
        /// Identities of which the gateway must present one.
        expected: Arc<[Identity]>,
        /// How the gateway has been doing, if it is one of several.
        gateway: Option<Arc<Standing>>,
        /// What the gateway is asked for. Who is behind it must present one of its identities.
        service: Arc<Service>,
    },
}

/// A connection that a way is asked for.
#[derive(Clone, Copy)]
pub(super) struct Inquiry<'a> {
    /// Who connects.
    pub(super) source: &'a Workload,
    /// Where to.
    pub(super) target: SocketAddr,
    /// When.
    pub(super) now: Moment,
    /// Returns a random number below its argument.
    pub(super) pick: &'a dyn Fn(u64) -> u64,
}

/// One way to reach the destination.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Address of the application, or the one that a waypoint or a gateway stands in for.
    pub address: SocketAddr,
    /// Name by which the peer's address is to be found, of which only the port is known.
    pub hostname: Option<Arc<str>>,
    /// Workload at the other end of the hop, if the mesh knows it.
    pub workload: Option<Arc<Workload>>,
    /// How to get there.
    pub transport: Transport,
    /// How the endpoint has been doing, if it is one of several.
    pub standing: Option<Arc<Standing>>,
}

/// The ways to reach the destination, best first, and the service it was reached by.
#[derive(Clone, Debug)]
pub struct Route {
    /// Never empty.
    pub hops: Vec<Hop>,
    /// Service whose address the client used.
    pub service: Option<Arc<Service>>,
}

// === impl MeshState ===

impl MeshState {
    /// Decides where a connection of `source` to `target` goes. `pick` returns a random number
    /// below its argument.
    pub fn route(
        &self,
        source: &Workload,
        target: SocketAddr,
        policy: OutboundPolicy,
        now: Moment,
        pick: impl Fn(u64) -> u64,
    ) -> Result<Route, CloseReason> {
        let inquiry = Inquiry { source, target, now, pick: &pick };
        let destination = self.destination(target, source.namespace());
        let direct = || self.direct_hops(destination, inquiry);
        let hops = match self.binding(destination, source, &pick) {
            Some(waypoint) => {
                let mut hops = self.hops_through(waypoint, destination.service(), inquiry);
                match policy.without_waypoint {
                    WithoutWaypoint::GoDirectly => hops.extend(direct()),
                    WithoutWaypoint::Refuse if hops.is_empty() => {
                        return Err(CloseReason::WaypointUnavailable);
                    }
                    WithoutWaypoint::Refuse => {}
                }
                hops
            }
            None if destination.is_refused(source, policy) => {
                return Err(CloseReason::DestinationUnknown);
            }
            None => direct(),
        };
        if hops.is_empty() {
            return Err(destination.unavailable(inquiry));
        }
        Ok(Route { hops, service: destination.service().cloned() })
    }

    /// Returns what a client in `namespace` means by `target`.
    pub(super) fn destination(&self, target: SocketAddr, namespace: &Namespace) -> Destination<'_> {
        let address = target.ip();
        if let Some(entry) = self.service_at(address, namespace) {
            return Destination::Service(entry);
        }
        match self.workload_at(address) {
            Some(workload) => Destination::Workload(workload),
            None if self.is_host(address) => Destination::Host,
            None => Destination::Unknown,
        }
    }

    /// Returns the waypoint that a connection of `source` passes. What comes from the waypoint of a
    /// workload has passed it; services are reached through theirs whoever asks.
    pub(super) fn binding<'a>(
        &self,
        destination: Destination<'a>,
        source: &Workload,
        pick: impl FnOnce(u64) -> u64,
    ) -> Option<&'a GatewayAddress> {
        match destination {
            Destination::Service(entry) => waypoint::choose(entry.service, pick),
            Destination::Workload(workload) => {
                let waypoint = workload.waypoint.as_ref()?;
                (!self.is_instance(source, waypoint)).then_some(waypoint)
            }
            Destination::Host | Destination::Unknown => None,
        }
    }

    /// Returns the ways that pass no waypoint.
    fn direct_hops(&self, destination: Destination<'_>, inquiry: Inquiry<'_>) -> Vec<Hop> {
        let Inquiry { source, target, now, pick } = inquiry;
        match destination {
            Destination::Service(entry) if entry.service.balancing == Balancing::Passthrough => {
                vec![Hop::unknown(target)]
            }
            Destination::Service(entry) => {
                let hops = |Candidate { choice, way }: Candidate| match way.place(target) {
                    Some((address, hostname)) => vec![Hop::to_endpoint(choice, address, hostname)],
                    None => self.hops_across(
                        &choice.workload,
                        Some(&choice.standing),
                        entry.service,
                        inquiry,
                    ),
                };
                let candidates = entry.candidates(source, target, Purpose::Serve, now, pick);
                candidates.into_iter().flat_map(hops).take(MAX_ATTEMPTS).collect()
            }
            Destination::Workload(workload) => {
                let expected = [workload.identity.clone()].into();
                let transport = Transport::to(workload.tunnel_protocol, expected);
                let workload = Some(workload.clone());
                vec![Hop { address: target, hostname: None, workload, transport, standing: None }]
            }
            Destination::Host | Destination::Unknown => vec![Hop::unknown(target)],
        }
    }
}

// === impl Destination ===

impl<'a> Destination<'a> {
    fn service(self) -> Option<&'a Arc<Service>> {
        match self {
            Self::Service(entry) => Some(entry.service),
            Self::Workload(_) | Self::Host | Self::Unknown => None,
        }
    }

    /// Returns why there is no way to it.
    fn unavailable(self, Inquiry { source, target, .. }: Inquiry<'_>) -> CloseReason {
        match self {
            // Those that there are cannot be reached.
            Self::Service(entry)
                if !entry.menu(source, target.port(), Purpose::Serve).tiers().is_empty() =>
            {
                CloseReason::GatewayUnavailable
            }
            Self::Service(_) | Self::Workload(_) | Self::Host | Self::Unknown => {
                CloseReason::NoHealthyEndpoint
            }
        }
    }

    fn is_refused(self, source: &Workload, policy: OutboundPolicy) -> bool {
        match (self, source.unknown_destinations.unwrap_or(policy.unknown)) {
            (Self::Unknown, UnknownDestinations::Refuse) => true,
            (Self::Unknown, UnknownDestinations::Pass)
            | (Self::Service(_) | Self::Workload(_) | Self::Host, _) => false,
        }
    }
}

// === impl Transport ===

impl Transport {
    fn to(protocol: TunnelProtocol, expected: Arc<[Identity]>) -> Self {
        match protocol {
            TunnelProtocol::None => Self::Plaintext,
            TunnelProtocol::Hbone => Self::Hbone { expected },
        }
    }
}

// === impl Hop ===

impl Hop {
    /// Returns the hop once its name is known to stand for `address`.
    #[must_use]
    pub fn found_at(&self, found: IpAddr) -> Self {
        let mut hop = Self { hostname: None, ..self.clone() };
        let peer = match &mut hop.transport {
            Transport::Plaintext | Transport::Hbone { .. } => &mut hop.address,
            Transport::Waypoint { address, .. } | Transport::Gateway { address, .. } => address,
        };
        peer.set_ip(found);
        hop
    }

    /// Returns the families of addresses that its name may be looked up in. What a service prefers
    /// says nothing of proxies on the way.
    pub fn families(&self, service: Option<&Service>) -> IpFamilies {
        match &self.transport {
            Transport::Plaintext | Transport::Hbone { .. } => {
                service.map_or(IpFamilies::Automatic, |service| service.ip_families)
            }
            Transport::Waypoint { .. } | Transport::Gateway { .. } => IpFamilies::Automatic,
        }
    }

    /// Returns where the bytes of this hop are sent, by name if it is to be looked up.
    pub fn peer(&self) -> String {
        self.in_words(self.peer_address())
    }

    /// Returns the endpoint: the application, or the proxy which stands in for it.
    pub fn endpoint(&self) -> String {
        self.in_words(self.endpoint_address())
    }

    /// Returns what is asked for at the other end, by name if that is to be looked up.
    pub fn asked_for(&self) -> String {
        match &self.transport {
            Transport::Plaintext | Transport::Hbone { .. } => self.in_words(self.address),
            Transport::Waypoint { .. } | Transport::Gateway { .. } => self.address.to_string(),
        }
    }

    fn in_words(&self, address: SocketAddr) -> String {
        match &self.hostname {
            Some(hostname) => format!("{hostname}:{}", address.port()),
            None => address.to_string(),
        }
    }

    /// Returns where the bytes of this hop are sent.
    pub fn peer_address(&self) -> SocketAddr {
        match &self.transport {
            Transport::Plaintext => self.address,
            Transport::Hbone { .. } => SocketAddr::new(self.address.ip(), HBONE_PORT),
            Transport::Waypoint { address, .. } | Transport::Gateway { address, .. } => *address,
        }
    }

    fn endpoint_address(&self) -> SocketAddr {
        match &self.transport {
            Transport::Plaintext | Transport::Hbone { .. } => self.address,
            Transport::Waypoint { address, .. } | Transport::Gateway { address, .. } => *address,
        }
    }

    /// Returns whether both ends prove who they are.
    pub fn is_mutual(&self) -> bool {
        match &self.transport {
            Transport::Plaintext => false,
            Transport::Hbone { .. } | Transport::Waypoint { .. } | Transport::Gateway { .. } => {
                true
            }
        }
    }

    fn unknown(address: SocketAddr) -> Self {
        let (hostname, workload, standing) = (None, None, None);
        Self { address, hostname, workload, transport: Transport::Plaintext, standing }
    }

    fn to_endpoint(choice: Choice, address: SocketAddr, hostname: Option<Arc<str>>) -> Self {
        let transport = Transport::to(choice.workload.tunnel_protocol, choice.expected);
        let (workload, standing) = (Some(choice.workload), Some(choice.standing));
        Self { address, hostname, workload, transport, standing }
    }
}
