//! Workloads and services as the data plane uses them: validated, with a type for each kind of name.
//!
//! The wire form (`istio.workload` in `proto/workload.proto`) and the local configuration file are
//! both converted into these types; nothing behind the conversion sees an unchecked value.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    identity::{Identity, Namespace},
    policy::WAYPOINT_DEMAND_PREFIX,
};

/// Key of a workload, such as `Kubernetes//Pod/shop/cart-0`. Not the Kubernetes UID of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadUid(pub Arc<str>);

/// Network a workload's addresses belong to; addresses are unique within one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(pub Arc<str>);

/// Name of a node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(pub Arc<str>);

/// Key of a service: `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace that defines the service.
    pub namespace: Namespace,
    /// Fully qualified host name.
    pub hostname: Arc<str>,
}

/// Key of a policy: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Namespace of the policy object.
    pub namespace: Namespace,
    /// Name of the policy object.
    pub name: Arc<str>,
}

/// How a workload receives mesh traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// Plain TCP only.
    None,
    /// HTTP/2 CONNECT over mutual TLS on port 15008.
    Hbone,
}

/// Whether a workload may be chosen as an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready for traffic.
    Healthy,
    /// Known, not ready.
    Unhealthy,
}

/// What becomes of a connection to an address that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownDestinations {
    /// It passes as it is.
    #[default]
    Pass,
    /// It is refused.
    Refuse,
}

/// How a workload wants connections that came through a tunnel: it is a proxy itself, behind the
/// node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// Whether a header of the PROXY protocol, version 2, says what each connection is for.
    pub proxy_header: bool,
    /// Port that takes the connections, whatever they are for.
    pub port: Option<u16>,
}

/// Which network namespace a workload lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own.
    Standard,
    /// Its node's; its address is not unique to it.
    HostNetwork,
}

/// Where a workload runs, from the widest to the narrowest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region label of the node.
    pub region: Arc<str>,
    /// Zone label of the node.
    pub zone: Arc<str>,
    /// Subzone label of the node.
    pub subzone: Arc<str>,
}

/// A proxy that takes connections for others, as those name it: a waypoint, or the gateway of a
/// network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// Where it is found.
    pub destination: GatewayDestination,
    /// Port on which it takes HBONE: of its service, or of the workload itself.
    pub hbone_port: u16,
}

/// Where such a proxy is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayDestination {
    /// By a host name: behind the service that has it or, if there is none, at the workload.
    Hostname(ServiceKey),
    /// At an address of a service or of a workload.
    Address(Network, IpAddr),
}

/// A waypoint with its share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub waypoint: GatewayAddress,
    /// Its share, compared with those of the others; 0 takes none.
    pub weight: u32,
}

/// A running instance that traffic comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique key.
    pub uid: WorkloadUid,
    /// Name of the pod or entry.
    pub name: Arc<str>,
    /// SPIFFE identity; its namespace is the workload's.
    pub identity: Identity,
    /// Addresses of the workload in `network`; none if they are found by its host name, or only a
    /// gateway leads there.
    pub addresses: Vec<IpAddr>,
    /// Host name by which it may be referred to, and by which its addresses are found if it has none.
    pub hostname: Option<Arc<str>>,
    /// Network of the addresses.
    pub network: Network,
    /// Gateway through which other networks reach it.
    pub network_gateway: Option<GatewayAddress>,
    /// How the workload receives mesh traffic.
    pub tunnel_protocol: TunnelProtocol,
    /// Node the workload runs on.
    pub node: NodeName,
    /// Name of the owner, such as a Deployment; used in telemetry.
    pub workload_name: Arc<str>,
    /// `pod`, `deployment`, `cronjob` or `job`: the key of the baggage entry that names the owner.
    pub workload_type: WorkloadType,
    /// Canonical service name; used in telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical revision; used in telemetry.
    pub canonical_revision: Arc<str>,
    /// Cluster the workload belongs to.
    pub cluster_id: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// Services that select it, with the ports it maps for each: service port to target port.
    pub services: BTreeMap<ServiceKey, BTreeMap<u16, u16>>,
    /// Waypoint that connections to its own addresses pass.
    pub waypoint: Option<GatewayAddress>,
    /// Policies that name it.
    pub authorization_policies: Vec<PolicyKey>,
    /// Whether it takes traffic.
    pub health: Health,
    /// Which network namespace it lives in.
    pub network_mode: NetworkMode,
    /// How it wants what comes through tunnels, if it is a proxy itself.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// What becomes of its connections to addresses that the mesh does not know, if the mesh has a
    /// say in it.
    pub unknown_destinations: Option<UnknownDestinations>,
    /// Relative share of connections; 0 takes none.
    pub capacity: u32,
}

/// Kind of a workload's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadType {
    /// A Deployment.
    Deployment,
    /// A `CronJob`.
    CronJob,
    /// A bare pod.
    Pod,
    /// A Job.
    Job,
}

/// A virtual address of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAddress {
    /// Network the address belongs to.
    pub network: Network,
    /// One address, or a range.
    pub address: IpNet,
}

/// A port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Port that clients use.
    pub service_port: u16,
    /// Port of the endpoints; `None` where each endpoint maps a named port itself.
    pub target_port: Option<u16>,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// What is spoken on a port of a service, as far as that is declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    /// Not declared: the first bytes tell.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS of the application.
    Tls,
}

/// A name of a port of a service, by which clients find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// The name; letters of either case count as the same.
    pub name: Arc<str>,
    /// What is below what the port speaks.
    pub transport: PortTransport,
    /// Port that clients use.
    pub service_port: u16,
}

/// What is below what a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortTransport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Address families a service may be reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilies {
    /// Any family an endpoint has.
    Automatic,
    /// IPv4 endpoints only.
    V4Only,
    /// IPv6 endpoints only.
    V6Only,
    /// Both.
    Dual,
}

/// Something that two workloads may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The network of their addresses.
    Network,
    /// The region.
    Region,
    /// The zone.
    Zone,
    /// The subzone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
}

/// Which endpoint a connection to a service goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// Any.
    Even,
    /// One that has all of these in common with the client, or none at all.
    Strict(Arc<[Scope]>),
    /// One that has more of these in common with the client than others have; the first counts most.
    Failover(Arc<[Scope]>),
    /// None: connections pass to the address that the client named.
    Passthrough,
}

/// A named group of workloads with virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique key.
    pub key: ServiceKey,
    /// Short name; used in telemetry.
    pub name: Arc<str>,
    /// Virtual addresses; none for a headless service.
    pub addresses: Vec<ServiceAddress>,
    /// Ports, in the order given.
    pub ports: Vec<ServicePort>,
    /// Names of ports; none if name servers know them better.
    pub port_names: Vec<PortName>,
    /// Identities that its endpoints may present besides their own.
    pub subject_alt_names: Vec<Identity>,
    /// Waypoint that connections to the service pass.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints that share the connections in place of `waypoint`, if any has a weight.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Address families of its endpoints.
    pub ip_families: IpFamilies,
    /// Whether it wins over services of the same address in other namespaces.
    pub canonical: bool,
    /// Whether only its own namespace sees it.
    pub namespace_local: bool,
    /// Whether unhealthy workloads are endpoints too.
    pub allow_unhealthy: bool,
    /// Which of its endpoints a connection goes to.
    pub balancing: Balancing,
}

// === impl WorkloadUid ===

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ServiceKey ===

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

// === impl PolicyKey ===

impl PolicyKey {
    /// Returns whether the policy denies everybody but waypoints.
    pub fn demands_waypoint(&self) -> bool {
        self.name.starts_with(WAYPOINT_DEMAND_PREFIX)
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Workload ===

impl Workload {
    /// Returns the namespace of the workload.
    pub fn namespace(&self) -> &Namespace {
        &self.identity.namespace
    }
}
