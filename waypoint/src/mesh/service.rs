//! A service, with its routes and the endpoints that requests go to.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use mesh_api::{
    identity::Identity,
    proto::l7::{self, RetryOn},
    workload::{
        AppProtocol, Balancing, Health, IpFamilies, Service, ServiceKey, TunnelProtocol, Workload,
    },
};
use tokio::sync::Notify;

use super::{
    binding::Binding,
    preamble::{Preamble, Unsupported},
    snapshot::Snapshot,
};
use crate::{
    balance::{Cluster, Endpoint, Instance, Policy, Statistics},
    policy::ServicePolicies,
    route::{HttpRoute, RouteTable, RouteTables, ServiceRoutes},
};

/// Name of the route of services without routes.
const DEFAULT_ROUTE: &str = "default";

/// Tries after the first one where no route says otherwise.
const DEFAULT_RETRIES: u32 = 2;

/// Endpoints that are put together before anybody asks for them: more take so long, about a microsecond
/// each, that a request should not wait for it.
pub(super) const MANY_ENDPOINTS: usize = 256;

/// Port that workloads take tunnels on.
const HBONE_PORT: u16 = 15008;

/// A service as requests use it.
#[derive(Debug)]
pub struct ServiceView {
    service: Arc<Service>,
    ports: Arc<HashMap<u16, Port>>,
    policies: ServicePolicies,
    /// None if it is not bound to this waypoint, which then only sends it what is for others.
    binding: Option<Arc<Binding>>,
    /// Where requests go if nobody says anything.
    default_route: Arc<HttpRoute>,
}

/// A port of a service.
#[derive(Debug)]
struct Port {
    protocol: AppProtocol,
    routes: RouteTables,
    /// By the names of subsets; the whole service has no name.
    backends: Arc<HashMap<Box<str>, Arc<Backend>>>,
}

/// A port of a service, or a subset of its endpoints there. A few endpoints are put together when they
/// are first asked for: most never are.
#[derive(Debug)]
pub struct Backend {
    /// What access logs call it.
    pub name: Arc<str>,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// Told when a connection is free or gone.
    pub released: Arc<Notify>,
    members: Members,
    preamble: Result<Preamble, Unsupported>,
    policy: Arc<Policy>,
    own: Instance,
    /// What it was before: endpoints keep their standing.
    previous: Option<Arc<Cluster>>,
    pub(super) cluster: OnceLock<Arc<Cluster>>,
}

/// Who the endpoints are.
#[derive(Clone, Debug)]
enum Members {
    /// Those of a port of a service.
    OfService(Arc<Service>, u16, Arc<[Instance]>),
    /// A workload itself.
    Alone(Instance, SocketAddr),
}

/// How an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Through a tunnel to this address, where one of these identities must answer.
    Tunnel(SocketAddr, Arc<[Identity]>),
    /// As it is.
    Plain,
    /// Not at all: a destination rule wants something done that this waypoint cannot do, and without
    /// it nothing may pass.
    Unsupported(Unsupported),
}

// === impl ServiceView ===

impl ServiceView {
    /// Puts together what `mesh` knows of a service. What is as before is taken from `previous`.
    pub(super) fn new(
        mesh: &Snapshot,
        service: &Arc<Service>,
        previous: Option<&Arc<Self>>,
    ) -> Self {
        let instances: Arc<[Instance]> = mesh.instances_of(&service.key).collect();
        let destination = mesh.destinations.get(&service.key);
        let variants = destination.map_or(&[][..], |destination| &destination.variants);
        let subsets: BTreeSet<&str> =
            variants.iter().map(|variant| &*variant.subset).chain([""]).collect();
        let ports = service.ports.iter().map(|port| {
            let number = port.service_port;
            let before = previous.and_then(|previous| previous.ports.get(&number));
            let backends = subsets.iter().filter_map(|subset| {
                let variant = variant_of(variants, number, subset);
                let policy = match variant {
                    // It was checked when it was read.
                    Some(variant) => Policy::try_from(variant).ok()?,
                    None if subset.is_empty() => Policy::default(),
                    None => return None,
                };
                let before = before.and_then(|before| before.backends.get(*subset));
                let backend = Backend {
                    name: name_of(service, number, subset),
                    protocol: port.protocol,
                    released: before.map_or_else(Arc::default, |before| before.released.clone()),
                    members: Members::OfService(service.clone(), number, instances.clone()),
                    preamble: variant.map_or_else(
                        || Ok(Preamble::default()),
                        |variant| preamble(mesh, service, variant),
                    ),
                    // An equal policy is kept, which says that endpoints are judged as before.
                    policy: before
                        .map(|before| before.policy.clone())
                        .filter(|before| **before == policy)
                        .unwrap_or_else(|| Arc::new(policy)),
                    own: mesh.own.clone(),
                    previous: before.and_then(|before| before.last()),
                    cluster: OnceLock::new(),
                };
                if backend.previous.is_some() || instances.len() >= MANY_ENDPOINTS {
                    // Requests do not wait for it then.
                    backend.cluster();
                }
                Some(((*subset).into(), Arc::new(backend)))
            });
            let routes = mesh.routes.get(&service.key).map(|routes| routes.tables(number));
            let port = Port {
                protocol: port.protocol,
                routes: routes.unwrap_or_default(),
                backends: Arc::new(backends.collect()),
            };
            (number, port)
        });
        let default_route = match previous {
            Some(previous) => previous.default_route.clone(),
            None => Arc::new(route_to(&service.key)),
        };
        let policies = mesh.policies.of(&mesh.gateway, Some(&service.key));
        let ports = Arc::new(ports.collect());
        let binding = mesh.stands_in_for_service(service).then(|| {
            let before = previous.and_then(|previous| previous.binding.clone());
            before.unwrap_or_default()
        });
        Self { service: service.clone(), ports, policies, binding, default_route }
    }

    /// Returns the same with other policies.
    pub(super) fn with_policies(&self, policies: ServicePolicies) -> Self {
        let (service, ports) = (self.service.clone(), self.ports.clone());
        let (binding, default_route) = (self.binding.clone(), self.default_route.clone());
        Self { service, ports, policies, binding, default_route }
    }

    /// Returns the same with other routes.
    pub(super) fn with_routes(&self, routes: Option<&Arc<ServiceRoutes>>) -> Self {
        let ports = self.ports.iter().map(|(number, port)| {
            let routes = routes.map(|routes| routes.tables(*number)).unwrap_or_default();
            let (protocol, backends) = (port.protocol, port.backends.clone());
            (*number, Port { protocol, routes, backends })
        });
        let (service, policies) = (self.service.clone(), self.policies.clone());
        let (binding, default_route) = (self.binding.clone(), self.default_route.clone());
        Self { service, ports: Arc::new(ports.collect()), policies, binding, default_route }
    }

    /// Returns that it is bound to this waypoint, if it is.
    pub fn binding(&self) -> Option<&Binding> {
        self.binding.as_deref()
    }

    /// Returns the policies of the service.
    pub fn policies(&self) -> &ServicePolicies {
        &self.policies
    }

    /// Returns the service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Returns whether the service has a port.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// Returns what is spoken on a port, as far as that is declared.
    pub fn protocol(&self, port: u16) -> AppProtocol {
        self.ports.get(&port).map_or(AppProtocol::Unknown, |port| port.protocol)
    }

    /// Returns the routes of a port for the clients of a namespace; none if the service has no such
    /// port.
    pub fn routes(&self, port: u16, client_namespace: &str) -> Option<&RouteTable> {
        self.ports.get(&port).map(|port| port.routes.of(client_namespace))
    }

    /// Has endpoints that were set aside used again once their time is over.
    pub(super) fn tick(&self, now: Instant) {
        for backend in self.ports.values().flat_map(|port| port.backends.values()) {
            if let Some(cluster) = backend.cluster.get() {
                cluster.tick(now);
            }
        }
    }

    /// Returns what is counted for each port and subset that is in use, by name.
    pub(super) fn statistics(&self) -> impl Iterator<Item = (Arc<str>, Statistics)> {
        let backends = self.ports.values().flat_map(|port| port.backends.values());
        backends
            .filter_map(|backend| Some((backend.name.clone(), backend.cluster.get()?.statistics())))
    }

    /// Returns the route of requests where there is no other.
    pub fn default_route(&self) -> &Arc<HttpRoute> {
        &self.default_route
    }

    /// Returns what stands behind a port, or a subset of it, if there is such.
    pub fn backend(&self, port: u16, subset: &str) -> Option<&Arc<Backend>> {
        self.ports.get(&port)?.backends.get(subset)
    }

    /// Returns the port that is meant where none is named: the only one, or else the one that the
    /// traffic was addressed to.
    pub fn port_or(&self, addressed: u16) -> u16 {
        match &*self.service.ports {
            [only] => only.service_port,
            _ => addressed,
        }
    }
}

/// Returns the route of all requests to a service, with the retries that Istio has by default.
pub(super) fn route_to(service: &ServiceKey) -> HttpRoute {
    let on = [
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::GrpcUnavailable,
        RetryOn::GrpcCancelled,
    ];
    let retry = l7::Retry {
        attempts: DEFAULT_RETRIES,
        on: on.map(Into::into).into(),
        ..Default::default()
    };
    let service = l7::ServiceRef {
        namespace: service.namespace.to_string(),
        hostname: service.hostname.to_string(),
    };
    let destination =
        l7::WeightedDestination { service: Some(service), weight: 1, ..Default::default() };
    let forward =
        l7::Forward { destinations: vec![destination], retry: Some(retry), ..Default::default() };
    let action = Some(l7::http_route::Action::Forward(forward));
    let route = l7::HttpRoute { action, ..Default::default() };
    // The name of a service that has been read is valid, and nothing else here depends on input.
    #[expect(clippy::expect_used, reason = "see above")]
    HttpRoute::compile(route, DEFAULT_ROUTE.into()).expect("the default route is valid")
}

/// Returns how a port and a subset are used, if that is declared.
fn variant_of<'a>(variants: &'a [l7::Variant], port: u16, subset: &str) -> Option<&'a l7::Variant> {
    let variant = |number: u32| {
        variants.iter().find(|variant| variant.port == number && variant.subset == subset)
    };
    variant(port.into()).or_else(|| variant(0))
}

/// Returns what connections begin with.
fn preamble(
    mesh: &Snapshot,
    service: &Service,
    variant: &l7::Variant,
) -> Result<Preamble, Unsupported> {
    let names = service.subject_alt_names.iter().map(ToString::to_string);
    let namespace = &mesh.own.workload.identity.namespace;
    Preamble::compile(variant, names, namespace.as_str(), &mesh.credentials)
}

fn name_of(service: &Service, port: u16, subset: &str) -> Arc<str> {
    let mut name = format!("inbound-vip|{port}|http");
    if !subset.is_empty() {
        // Writing to a string never fails.
        let _ = write!(name, "/{subset}");
    }
    let _ = write!(name, "|{}", service.key.hostname);
    name.into()
}

// === impl Backend ===

impl Backend {
    /// Returns a workload as what stands behind one of its own addresses.
    pub(super) fn of_workload(own: Instance, instance: Instance, address: SocketAddr) -> Self {
        Self {
            name: format!("inbound|{}||", address.port()).into(),
            protocol: AppProtocol::Unknown,
            released: Arc::default(),
            members: Members::Alone(instance, address),
            preamble: Ok(Preamble::default()),
            policy: Arc::default(),
            own,
            previous: None,
            cluster: OnceLock::new(),
        }
    }

    /// Returns its endpoints.
    pub fn cluster(&self) -> &Arc<Cluster> {
        self.cluster.get_or_init(|| {
            let (balancing, endpoints) = match &self.members {
                Members::OfService(service, port, instances) => {
                    let endpoint = |instance| endpoint(instance, service, *port);
                    (&service.balancing, instances.iter().filter_map(endpoint).collect())
                }
                Members::Alone(instance, address) => {
                    let (instance, address) = (instance.clone(), *address);
                    (&Balancing::Even, vec![Endpoint { instance, address, ready: true }])
                }
            };
            Arc::new(Cluster::new(
                self.policy.clone(),
                balancing,
                &self.own,
                endpoints,
                self.previous.as_deref(),
                Instant::now(),
            ))
        })
    }

    /// Returns the host name of its service.
    pub fn hostname(&self) -> Option<&str> {
        match &self.members {
            Members::OfService(service, ..) => Some(&service.key.hostname),
            Members::Alone(..) => None,
        }
    }

    /// Returns what connections to its endpoints begin with.
    pub fn preamble(&self) -> Option<&Preamble> {
        self.preamble.as_ref().ok()
    }

    /// Returns how one of its endpoints is reached.
    pub fn way(&self, endpoint: &Endpoint) -> Way {
        if let Err(unsupported) = &self.preamble {
            return Way::Unsupported(unsupported.clone());
        }
        let workload = &endpoint.instance.workload;
        match workload.tunnel_protocol {
            TunnelProtocol::None => Way::Plain,
            TunnelProtocol::Hbone => {
                let others = match &self.members {
                    Members::OfService(service, ..) => &service.subject_alt_names[..],
                    Members::Alone(..) => &[],
                };
                let expected = std::iter::once(&workload.identity).chain(others).cloned();
                let address = SocketAddr::new(endpoint.address.ip(), HBONE_PORT);
                Way::Tunnel(address, expected.collect())
            }
        }
    }

    /// Returns the last cluster that was used.
    fn last(&self) -> Option<Arc<Cluster>> {
        self.cluster.get().or(self.previous.as_ref()).cloned()
    }
}

/// Returns a workload as an endpoint of a port of a service, if it is one.
fn endpoint(instance: &Instance, service: &Service, port: u16) -> Option<Endpoint> {
    let workload = &*instance.workload;
    let target = target_port(workload, service, port)?;
    let address = workload.addresses.iter().find(|address| match service.ip_families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::V4Only => address.is_ipv4(),
        IpFamilies::V6Only => address.is_ipv6(),
    })?;
    let ready = service.allow_unhealthy || workload.health == Health::Healthy;
    Some(Endpoint { instance: instance.clone(), address: SocketAddr::new(*address, target), ready })
}

/// Returns the port of an endpoint that stands behind a port of a service.
fn target_port(workload: &Workload, service: &Service, port: u16) -> Option<u16> {
    let mapped = workload.services.get(&service.key).and_then(|ports| ports.get(&port)).copied();
    let declared = || service.ports.iter().find(|declared| declared.service_port == port);
    mapped.or_else(|| declared()?.target_port)
}
