//! What is done with a request: pure decisions over compiled routes.
//!
//! A route is compiled once, when it arrives ([`Route`]); the routes of a service and port make a
//! [`RouteTable`], which finds the first that matches a [`RequestHead`] without allocating. What
//! the route says is then asked for step by step: [`Cors`], [`Fault`], [`Forward`] or [`Redirect`].
//! Time and random numbers are arguments.

mod clients;
mod cors;
mod fault;
mod flags;
mod forward;
mod head;
mod headers;
mod http_route;
mod hygiene;
pub(crate) mod invalid;
mod matching;
mod normalise;
mod path;
pub(crate) mod pattern;
mod redirect;
mod retry;
mod rewrite;
mod split;
mod table;
mod template;
pub(crate) mod text;
pub(crate) mod wire;

use std::{num::NonZeroU16, sync::Arc};

use bytes::Bytes;
use mesh_api::{proto::l7, workload::ServiceKey};

pub use self::{
    clients::Client,
    cors::{Cors, CorsDecision},
    fault::{Abort, Fault, Injected},
    flags::{Flag, Flags, LocalReply, ResetReason, grpc_status},
    forward::{Forward, Mirror},
    head::{RequestHead, authority},
    headers::{HeaderMutation, set_authority},
    http_route::{Action, DirectResponse, HttpRoute, MAX_DIRECT_RESPONSE_BYTES},
    hygiene::{
        FORWARDED_CLIENT_CERT, Malformed, REQUEST_ID, forwarded_client_cert, remove_hop_by_hop,
        sanitise, sanitise_response,
    },
    invalid::{Invalid, Problem},
    normalise::{Normalisation, Unnormalisable, normal_path, normalise},
    pattern::MAX_PATTERN_CHARS,
    redirect::Redirect,
    retry::{ATTEMPT_COUNT, Means, Next, Outcome, RetryPolicy, Tries},
    rewrite::{ORIGINAL_PATH, Unwritable},
    split::{Destination, Split},
    table::{Found, RouteTable, RouteTables, ServiceRoutes},
    template::{Facts, MAX_TEMPLATE_BYTES, Missing, Response, Template, View},
    wire::Share,
};
use self::{
    clients::Clients,
    invalid::{At, each},
};
pub(crate) use self::{head::split_port, matching::joined};

/// A route of a service, checked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique among the routes of the service.
    pub id: Arc<str>,
    /// Whose traffic it is.
    pub service: ServiceKey,
    /// Ports of the service; none for all of them.
    ports: Arc<[NonZeroU16]>,
    /// Whose clients it is for; none for all.
    client_namespace: Option<Arc<str>>,
    /// Which of them.
    clients: Clients,
    order: Bytes,
    traffic: Traffic,
}

#[derive(Clone, Debug)]
enum Traffic {
    Http(Arc<HttpRoute>),
    Tcp(Arc<TcpRoute>),
}

/// What is done with a connection.
#[derive(Clone, Debug)]
pub struct TcpRoute {
    /// What access logs call it.
    pub name: Arc<str>,
    /// Destinations and their shares.
    pub destinations: Split,
}

// === impl Route ===

impl Route {
    /// Returns whether the route is for a port of the service.
    fn is_for(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|own| own.get() == port)
    }

    fn is_http(&self) -> bool {
        match self.traffic {
            Traffic::Http(_) => true,
            Traffic::Tcp(_) => false,
        }
    }

    /// Returns the services that it leads to.
    fn destinations(&self) -> impl Iterator<Item = &ServiceKey> {
        let (split, mirrors) = match &self.traffic {
            Traffic::Http(http) => match &http.action {
                Action::Forward(forward) => (Some(&forward.destinations), &forward.mirrors[..]),
                Action::Redirect(_) | Action::Respond(_) => (None, &[][..]),
            },
            Traffic::Tcp(tcp) => (Some(&tcp.destinations), &[][..]),
        };
        let destinations = split.into_iter().flat_map(Split::destinations);
        let services = destinations.map(|destination| &destination.service);
        services.chain(mirrors.iter().map(|mirror| &mirror.service))
    }
}

impl TryFrom<l7::Route> for Route {
    type Error = Invalid;

    fn try_from(wire: l7::Route) -> Result<Self, Invalid> {
        let l7::Route { id, service, ports, order, name, traffic, .. } = wire;
        let name: Arc<str> = name.into();
        let traffic = match traffic.ok_or(Problem::Missing).at("traffic")? {
            l7::route::Traffic::Http(http) => {
                Traffic::Http(Arc::new(HttpRoute::compile(http, name).at("http")?))
            }
            l7::route::Traffic::Tcp(tcp) => {
                let destinations = Split::try_from(tcp.destinations).at("tcp")?;
                Traffic::Tcp(Arc::new(TcpRoute { name, destinations }))
            }
        };
        let ports = each(ports, "ports", |port| wire::port(port)?.ok_or(Problem::Port(port)))?;
        let service = wire::service(service).at("service")?;
        let client_namespace =
            Some(wire.client_namespace).filter(|name| !name.is_empty()).map(Arc::from);
        Ok(Self {
            id: id.into(),
            service,
            ports: ports.into(),
            client_namespace,
            clients: Clients::new(wire.source_namespace, wire.client_labels),
            order,
            traffic,
        })
    }
}
