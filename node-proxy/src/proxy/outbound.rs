//! Connections that a pod opens.

mod across;
mod first_bytes;
mod retry;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_api::{
    identity::Identity,
    workload::{Service, Workload},
};
use tokio::{io::Interest, net::TcpStream, sync::oneshot};

pub(super) use self::first_bytes::FirstBytes;
use self::retry::is_worth_another_endpoint;
use super::{
    admission::PROXY_PORTS,
    connections::Registration,
    explain,
    flow::{Addresses, FlowLog, Meter},
    hostnames,
    inbound::{self, Application, LocalDelivery},
    node::Node,
    pod::Pod,
    relay::{self, TunnelEnd},
    upstream::{self, Peer, Unopened},
    worker::{Worker, accept::Accepted},
};
use crate::{
    state::{Hop, LocalWorkload, Route, Standing, Transport},
    telemetry::{
        metrics::{ConnectionLabels, End, Outside, Reporter},
        reason::CloseReason,
    },
};
use fairlead_sys::socket::reset_on_close;
use fairlead_tunnel::hbone::{
    client::Stream,
    headers::{Authority, connect_request},
    transport::PathReport,
};
use fairlead_tunnel::tls::{HandshakeFailure, TrustedChain};

/// Status by which a peer says that a policy denies the connection.
const DENIED: u16 = 401;

/// A captured connection and what is known of its origin.
struct Captured {
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    source: Arc<Workload>,
    client: SocketAddr,
    target: SocketAddr,
    started: Instant,
}

/// The way on from this proxy.
enum Onward {
    /// A socket to the destination or its node's plaintext port, and the time it took to connect.
    Plain(TcpStream, Duration),
    /// A stream of a tunnel, and how much of the application's bytes went ahead.
    Tunnel(Stream, usize),
    /// A stream of a tunnel through a gateway, and who is at its end.
    Across(Box<(Stream, Identity)>),
    /// A pod of this node, without a tunnel, and the certificates of both.
    Local(Box<(LocalDelivery, [Arc<TrustedChain>; 2])>),
}

// === impl Onward ===

impl Onward {
    /// Returns who has proven to be behind a gateway.
    fn proven(&self) -> Option<&Identity> {
        match self {
            Self::Across(end) => Some(&end.1),
            Self::Plain(..) | Self::Tunnel(..) | Self::Local(_) => None,
        }
    }
}

/// Serves a connection from accept to close. It is registered at once: nothing that ends the
/// connections of its pod comes in between.
pub(super) fn serve(accepted: Accepted) -> impl Future<Output = ()> {
    let Accepted { worker, pod, socket, client, target, share, counted, .. } = accepted;
    let open = worker.metrics.socket(Reporter::Source);
    let mut registration = worker.connections.register(counted, None);
    let started = Instant::now();
    async move {
        let (_open, _share) = (open, share);
        let known = tokio::select! {
            biased;
            reason = &mut registration.closed => Err(reason.unwrap_or(CloseReason::Drained)),
            known = worker.node.local_workload(&pod.name, &pod.identity) => {
                known.ok_or(CloseReason::WorkloadUnknown)
            }
        };
        let routed = match known {
            Ok(LocalWorkload { workload, .. }) => {
                let pick = |below| rand::random_range(0..below);
                let routed = pod
                    .admit(&worker.node)
                    .and_then(|()| route(&worker.node, &pod, &workload, target, started, pick));
                match routed {
                    Ok(route) => Ok((workload, route)),
                    Err(reason) => Err((Some(workload), reason)),
                }
            }
            Err(reason) => Err((None, reason)),
        };
        match routed {
            Ok((source, route)) => {
                let captured = Captured { worker, pod, source, client, target, started };
                captured.forward(socket, &route, &mut registration).await;
            }
            Err((workload, reason)) => {
                let source = End { workload, identity: None };
                let refused = reason == CloseReason::DestinationUnknown;
                let outside = refused.then_some(Outside::Refused);
                let nobody = End { workload: None, identity: None };
                let labels = ConnectionLabels { outside, ..labels(source, nobody, None) };
                let addresses = Addresses { source: client, destination: target, hbone: None };
                refuse(socket, FlowLog::open(&worker, labels, addresses, started), &reason);
            }
        }
    }
}

/// Decides where a connection of `pod` goes that was accepted at `started`. `pick` returns a random
/// number below its argument.
pub(super) fn route(
    node: &Node,
    pod: &Pod,
    source: &Workload,
    target: SocketAddr,
    started: Instant,
    pick: impl Fn(u64) -> u64,
) -> Result<Route, CloseReason> {
    // Reached by connecting to the listener itself: forwarding it would reach it again.
    if (target.ip().is_loopback() || pod.owns(target.ip())) && PROXY_PORTS.contains(&target.port())
    {
        return Err(CloseReason::IllegalPort);
    }
    let (policy, now) = (node.options.outbound, node.moment(started));
    node.state().route(source, target, policy, now, pick)
}

/// Ends a connection that cannot be forwarded: the application sees a reset and no byte.
fn refuse(socket: TcpStream, log: FlowLog, reason: &CloseReason) {
    // Fails only on a socket that is already gone.
    let _ = reset_on_close(&socket);
    drop(socket);
    log.close(reason);
}

// === impl Captured ===

impl Captured {
    /// Tries the hops of the route in turn and relays through the first that works. A hop is the
    /// last one if it may have carried a byte of the application.
    async fn forward(&self, socket: TcpStream, route: &Route, registration: &mut Registration) {
        let mut failure = CloseReason::NoHealthyEndpoint;
        let mut last = None;
        for hop in &route.hops {
            last = Some(hop);
            // In a box, so that what opening needs is not kept for as long as the relay runs.
            let open = Box::pin(self.find_and_open(hop, route.service.as_ref(), &socket));
            let opened = tokio::select! {
                biased;
                reason = &mut registration.closed => {
                    failure = reason.unwrap_or(CloseReason::Drained);
                    break;
                }
                opened = open => opened,
                // The readiness itself fails only when the runtime ends.
                _ = socket.ready(Interest::ERROR) => {
                    failure = CloseReason::ClientReset;
                    break;
                }
            };
            match opened {
                Ok((onward, found)) => {
                    if let Some(standing) = &hop.standing {
                        standing.succeeded();
                    }
                    let hop = found.as_deref().unwrap_or(hop);
                    return self.relay(socket, hop, route, onward, registration).await;
                }
                Err(Unopened { reason, may_have_delivered }) => {
                    let reason = self.with_denial(reason, hop);
                    let is_its_fault = is_worth_another_endpoint(&reason);
                    if is_its_fault {
                        self.note_failure(hop.standing.as_deref(), hop, &reason);
                    }
                    let again = !may_have_delivered && is_its_fault;
                    failure = reason;
                    if !again {
                        break;
                    }
                }
            }
        }
        refuse(socket, self.log(last, route, None), &failure);
    }

    /// Adds to a refusal what the policies of the destination say, as far as this node knows them.
    fn with_denial(&self, reason: CloseReason, hop: &Hop) -> CloseReason {
        if reason != (CloseReason::RefusedByPeer { status: DENIED, denial: None }) {
            return reason;
        }
        let state = self.worker.node.state();
        let denial = explain::denial(&state, &self.pod, &self.source, hop);
        CloseReason::RefusedByPeer { status: DENIED, denial }
    }

    /// Counts against what has this standing that a connection could not be made by `hop`.
    fn note_failure(&self, standing: Option<&Standing>, hop: &Hop, reason: &CloseReason) {
        let Some(standing) = standing else { return };
        let node = &self.worker.node;
        if let Some(time) = standing.failed(node.moment(Instant::now())) {
            node.metrics.endpoints_set_aside.inc();
            let (seconds, endpoint) = (time.as_secs(), hop.endpoint());
            let reason = reason.as_str();
            tracing::info!(endpoint, reason, seconds, "set aside an endpoint that keeps failing");
        }
    }

    /// Opens a hop; returns it also, if it had a name for which an address was found.
    async fn find_and_open(
        &self,
        hop: &Hop,
        service: Option<&Arc<Service>>,
        client: &TcpStream,
    ) -> Result<(Onward, Option<Box<Hop>>), Unopened> {
        let Some(hostname) = &hop.hostname else {
            return Ok((self.open(hop, service, client).await?, None));
        };
        let families = hop.families(service.map(Arc::as_ref));
        let (node, like) = (&self.worker.node, self.target.ip());
        let resolved = hostnames::resolve(node, &self.pod, hostname, like, families).await;
        if let (Err(reason), Transport::Gateway { gateway, .. }) = (&resolved, &hop.transport) {
            self.note_failure(gateway.as_deref(), hop, reason);
        }
        let found = Box::new(hop.found_at(resolved?));
        Ok((self.open(&found, service, client).await?, Some(found)))
    }

    async fn open(
        &self,
        hop: &Hop,
        service: Option<&Arc<Service>>,
        client: &TcpStream,
    ) -> Result<Onward, Unopened> {
        let hostname = service.map(|s| &*s.key.hostname);
        match &hop.transport {
            Transport::Plaintext => {
                let socket = self.pod.outbound_socket(hop.address.ip()).await;
                let socket = socket.map_err(|e| upstream::socket_failure(&e))?;
                let (server, took) = upstream::connect_timed(socket, hop.address).await?;
                Ok(Onward::Plain(server, took))
            }
            Transport::Hbone { expected } => match self.neighbour(hop.address.ip()) {
                Some(neighbour) => Ok(self.open_local(&neighbour, hop, expected, hostname).await?),
                None => self.open_tunnel(hop, expected, hostname, client).await,
            },
            // Also if the destination, or the waypoint, is a pod of this node.
            Transport::Waypoint { expected, .. } => {
                self.open_tunnel(hop, expected, hostname, client).await
            }
            Transport::Gateway { expected, gateway, service, .. } => {
                self.open_across(hop, expected, gateway.as_deref(), service).await
            }
        }
    }

    /// Returns the pod of this node that a connection to `address` needs no tunnel to.
    fn neighbour(&self, address: IpAddr) -> Option<Arc<Pod>> {
        let encrypted = self.worker.node.options.same_node_encryption;
        if encrypted { None } else { self.worker.local_pod(address) }
    }

    async fn open_tunnel(
        &self,
        hop: &Hop,
        expected: &Arc<[Identity]>,
        hostname: Option<&str>,
        client: &TcpStream,
    ) -> Result<Onward, Unopened> {
        let authority = Authority::Address(hop.address);
        let request = connect_request(authority, self.client, &self.source, hostname)
            .map_err(|_| CloseReason::BadRequest)?;
        let address = hop.peer_address();
        let peer = Peer { pod: self.pod.id, address, expected: expected.clone() };
        let Worker { tunnels, node, .. } = &*self.worker;
        let first = FirstBytes::of(client);
        let stream =
            upstream::open(tunnels, &self.pod, &peer, &node.metrics, request, Some(&first)).await?;
        match first.take() {
            Ok(sent) => Ok(Onward::Tunnel(stream, sent)),
            Err(_) => Err(CloseReason::ClientReset.into()),
        }
    }

    /// Both identities are known to this process: the same checks as a tunnel makes, without one.
    async fn open_local(
        &self,
        neighbour: &Arc<Pod>,
        hop: &Hop,
        expected: &[Identity],
        hostname: Option<&str>,
    ) -> Result<Onward, CloseReason> {
        // No certificate, no bytes: also where none would be shown.
        let own = self.pod.certificate().await?.own_chain();
        let neighbours = neighbour.certificate().await?.own_chain();
        if own.is_revoked() || neighbours.is_revoked() {
            return Err(CloseReason::TlsHandshake(HandshakeFailure::Revoked));
        }
        if !expected.contains(&neighbour.identity) {
            return Err(CloseReason::PeerIdentityMismatch);
        }
        let arrival = inbound::Arrival {
            client: self.client,
            keep_client_port: true,
            peer: End {
                workload: Some(self.source.clone()),
                identity: Some(self.pod.identity.clone()),
            },
            target: hop.peer_address(),
            requested: hop.address,
            application: Application::of(
                &self.worker.node.state(),
                neighbour,
                hop.address.ip(),
                hop.address,
            ),
            hostname: hostname.map(str::to_owned),
            started: self.started,
        };
        let delivery = inbound::deliver_local(&self.worker, neighbour, arrival).await?;
        Ok(Onward::Local(Box::new((delivery, [own, neighbours]))))
    }

    async fn relay(
        &self,
        socket: TcpStream,
        hop: &Hop,
        route: &Route,
        onward: Onward,
        registration: &mut Registration,
    ) {
        let log = self.log(Some(hop), route, onward.proven());
        registration.describe(&log);
        let meter = Meter::from(&log);
        let closed = &mut registration.closed;
        // In boxes, so that a connection has room for the relay that it needs and not for the largest.
        let reason = match onward {
            Onward::Plain(server, took) => {
                log.measured(&PathReport { connect_time: Some(took), ..PathReport::default() });
                Box::pin(relay::sockets(socket, server, &meter, closed)).await
            }
            Onward::Tunnel(stream, sent) => {
                meter.request(sent as u64);
                Box::pin(relay_into(stream, socket, &log, closed)).await
            }
            Onward::Across(end) => Box::pin(relay_into(end.0, socket, &log, closed)).await,
            Onward::Local(delivery) => Box::pin(relay_local(socket, *delivery, &log, closed)).await,
        };
        log.close(&reason);
    }

    /// Begins the account of the connection. Who is behind a gateway is known once it has `proven` it.
    fn log(&self, hop: Option<&Hop>, route: &Route, proven: Option<&Identity>) -> FlowLog {
        let mutual = hop.filter(|hop| hop.is_mutual());
        // Without an address it has gone nowhere.
        let found = hop.filter(|hop| hop.hostname.is_none());
        let source = End {
            workload: Some(self.source.clone()),
            identity: mutual.map(|_| self.pod.identity.clone()),
        };
        let workload = hop.and_then(|hop| hop.workload.clone());
        let identity = mutual.and_then(|hop| match &hop.transport {
            Transport::Gateway { .. } => proven.cloned(),
            Transport::Plaintext | Transport::Hbone { .. } | Transport::Waypoint { .. } => {
                workload.as_ref().map(|workload| workload.identity.clone())
            }
        });
        let passed = hop.is_some() && workload.is_none() && route.service.is_none();
        let outside = passed.then_some(Outside::Passed);
        let labels = labels(source, End { workload, identity }, route.service.clone());
        let labels = ConnectionLabels { outside, ..labels };
        let addresses = Addresses {
            source: self.client,
            destination: found.map_or(self.target, Hop::peer_address),
            hbone: mutual.and(found).map(|hop| hop.address),
        };
        FlowLog::open(&self.worker, labels, addresses, self.started)
    }
}

async fn relay_into(
    stream: Stream,
    socket: TcpStream,
    log: &FlowLog,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let Stream { send, recv, slot } = stream;
    let (tunnel, meter) = (TunnelEnd { send, recv }, Meter::from(log));
    let reason = relay::client_to_tunnel(socket, tunnel, &meter, closed).await;
    log.measured(&slot.path_report());
    reason.in_tunnel(slot.is_distrusted())
}

async fn relay_local(
    socket: TcpStream,
    (delivery, chains): (LocalDelivery, [Arc<TrustedChain>; 2]),
    log: &FlowLog,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let LocalDelivery { socket: server, log: inbound, mut registration } = delivery;
    let meter = Meter { first: log, second: Some(&inbound) };
    let reason = {
        // Either side's table may end the connection, and so may a revocation.
        let [own, neighbours] = chains;
        let (end, mut ended) = oneshot::channel();
        let relay = pin!(relay::sockets(socket, server, &meter, &mut ended));
        let watch = async {
            let reason = tokio::select! {
                reason = closed => reason,
                reason = &mut registration.closed => reason,
                () = own.revoked() => Ok(CloseReason::CertificateRevoked),
                () = neighbours.revoked() => Ok(CloseReason::CertificateRevoked),
            };
            // The relay may have just ended by itself.
            let _ = end.send(reason.unwrap_or(CloseReason::Drained));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reason = relay => reason,
            () = watch => CloseReason::Drained,
        }
    };
    inbound.close(&reason);
    reason
}

fn labels(source: End, destination: End, service: Option<Arc<Service>>) -> ConnectionLabels {
    ConnectionLabels { reporter: Reporter::Source, source, destination, service, outside: None }
}
