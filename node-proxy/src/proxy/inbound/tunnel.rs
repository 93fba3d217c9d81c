//! Tunnels to a pod, and the streams in them.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use fairlead_component::shares::Part;
use fairlead_sys::socket::reset_on_close;
use fairlead_tunnel::{
    hbone::{
        headers::{self, Authority, Forwarded},
        server::{Stream, Tunnel},
        transport::{self, Wire},
    },
    tls::{HandshakeFailure, TrustedChain},
};
use h2::{RecvStream, server::SendResponse};
use http::{Method, Response};
use mesh_api::{identity::Identity, workload::Network};
use tokio::net::TcpStream;

use super::{Application, Arrival, status};
use crate::{
    proxy::{
        connections::{Counted, Registration},
        flow::{FlowLog, Meter},
        node::Node,
        pod::Pod,
        relay::{self, TunnelEnd},
        worker::{Worker, accept::Accepted, cut, dropped, spawn},
    },
    telemetry::{
        metrics::{End, Reporter},
        reason::CloseReason,
    },
};

/// What the streams of a tunnel have in common.
struct Source {
    worker: Rc<Worker>,
    pod: Arc<Pod>,
    identity: Identity,
    client: SocketAddr,
    target: SocketAddr,
    wire: Rc<Wire>,
    /// Whether the tunnel was cut because the peer is not trusted any more.
    distrusted: Cell<bool>,
}

/// A tunnel that is counted for as long as the value lives.
struct OpenTunnel(Arc<Node>);

/// Serves a tunnel from accept to close.
pub(in crate::proxy) async fn serve_tunnel(accepted: Accepted) {
    let _open = accepted.worker.metrics.socket(Reporter::Destination);
    let started = Instant::now();
    let Accepted {
        worker,
        pod,
        socket,
        client,
        target,
        draining,
        share: _share,
        handshake: turn,
        counted,
    } = accepted;
    // In boxes: the tunnel lasts, and its beginning is not kept.
    let begun = Box::pin(begin(&worker.node, &pod, socket, client)).await;
    let (io, identity, chain, _part) = match begun {
        Ok(begun) => begun,
        Err(reason) => return refused(&worker, counted, (client, target), started, &reason),
    };
    drop(turn);
    let _open_tunnel = OpenTunnel::new(worker.node.clone());
    // From here on it is a tunnel, and its streams are the connections.
    drop(counted);
    let distrusted = Cell::new(false);
    let wire = io.wire();
    let source = Rc::new(Source { worker, pod, identity, client, target, wire, distrusted });
    let serve = |stream| spawn(source.clone().serve(stream));
    let served = match Box::pin(Tunnel::accept(io)).await {
        Ok(tunnel) => tokio::select! {
            served = tunnel.run(dropped(draining.clone()), serve) => served,
            () = cut(draining) => Ok(()),
            () = chain.revoked() => {
                source.distrusted.set(true);
                Ok(())
            }
        },
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        if error.is_excess() {
            source.worker.node.metrics.limit("tunnel_frames").inc();
        }
        tracing::debug!(%client, pod = %source.pod.name, %error, "tunnel closed");
    }
}

/// Begins a tunnel, if its peer may have one more.
async fn begin(
    node: &Node,
    pod: &Pod,
    socket: TcpStream,
    client: SocketAddr,
) -> Result<(transport::Stream, Identity, TrustedChain, Part), CloseReason> {
    let peer = client.ip();
    let admitted = pod.peers.admit_handshake(node, peer);
    let admitted = admitted.and_then(|turn| Ok((turn, node.admit_tunnel(peer)?)));
    let (_turn, part) = admitted.inspect_err(|_| {
        // Fails only on a socket that is already gone.
        let _ = reset_on_close(&socket);
    })?;
    let configs = pod.certificate().await?;
    let accepted = transport::accept(configs.server(), socket).await.map_err(|error| {
        tracing::debug!(%client, pod = %pod.name, %error, "TLS handshake failed");
        CloseReason::TlsHandshake(HandshakeFailure::from(&error))
    })?;
    let checked = configs.check_client(accepted.peer_certificates.as_deref());
    let (identity, chain) = checked.map_err(|e| CloseReason::TlsHandshake((&e).into()))?;
    Ok((accepted.stream, identity, chain, part))
}

/// Accounts for a tunnel that came to nothing.
fn refused(
    worker: &Worker,
    counted: Counted,
    (client, target): (SocketAddr, SocketAddr),
    started: Instant,
    reason: &CloseReason,
) {
    let workload = worker.node.state().workload_at(client.ip()).cloned();
    let peer = End { workload, identity: None };
    let arrival = Arrival {
        client,
        keep_client_port: false,
        peer,
        target,
        requested: target,
        application: Application::at(target),
        hostname: None,
        started,
    };
    let pod = counted.pod().clone();
    let (log, _registration) = arrival.register(worker, &pod, counted);
    log.close(reason);
}

// === impl Source ===

impl Source {
    /// Serves a stream from its CONNECT to its end. What the request says is taken from it at once:
    /// the rest is not kept for as long as the stream lasts.
    fn serve(self: Rc<Self>, (request, respond): Stream) -> impl Future<Output = ()> {
        let (head, body) = request.into_parts();
        let forwarded = headers::parse_forwarded(&head.headers);
        for limit in headers::unreadable(&head.headers) {
            self.worker.node.metrics.limit(limit).inc();
        }
        let asked = head.uri.authority().map(http::uri::Authority::as_str);
        let asked = asked.and_then(headers::parse_authority);
        let requested = match asked.filter(|_| head.method == Method::CONNECT) {
            Some(Authority::Address(address)) => Ok(address),
            Some(Authority::Name(hostname, port)) => self.by_name(hostname, port),
            None => Err(CloseReason::BadRequest),
        };
        let (requested, refusal) = match requested {
            Ok(requested) => (requested, None),
            Err(reason) => (self.target, Some(Box::new(reason))),
        };
        let arrival = Box::new(self.arrival(requested, forwarded, Instant::now()));
        let counted = self.worker.connections.count(&self.pod);
        let (log, mut registration) = arrival.register(&self.worker, &self.pod, counted);
        let share = self.worker.spread.own(1);
        async move {
            let _share = share;
            let reason = match refusal {
                None => self.carry(arrival, (respond, body), &log, &mut registration).await,
                Some(reason) => refuse(respond, *reason),
            };
            log.measured(&self.wire.report());
            log.close(&reason.in_tunnel(self.distrusted.get()));
        }
    }

    /// Returns the address that a peer means by a port of a service: the pod's own, or for a pod that
    /// is a proxy, which is told, the service's.
    fn by_name(&self, hostname: &str, port: u16) -> Result<SocketAddr, CloseReason> {
        let state = self.worker.node.state();
        let local = state.local_workload(&self.pod.name, &self.pod.identity);
        let local = local.ok_or(CloseReason::WorkloadUnknown)?.workload;
        let named = state.service_named(&local, hostname, port);
        let (service, own_port) = named.ok_or(CloseReason::NoHealthyEndpoint)?;
        match state.first_address(service).filter(|_| local.application_tunnel.is_some()) {
            Some(address) => Ok(SocketAddr::new(address, port)),
            None => Ok(SocketAddr::new(self.target.ip(), own_port)),
        }
    }

    async fn carry(
        &self,
        arrival: Box<Arrival>,
        (mut respond, recv): (SendResponse<Bytes>, RecvStream),
        log: &FlowLog,
        registration: &mut Registration,
    ) -> CloseReason {
        let entered = tokio::select! {
            entered = arrival.enter(&self.worker, &self.pod, registration) => entered,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => Err(CloseReason::ClientReset),
        };
        drop(arrival);
        let server = match entered {
            Ok(server) => server,
            Err(reason) => return refuse(respond, reason),
        };
        let Ok(send) = respond.send_response(self.acceptance(), false) else {
            // Fails only on a socket that is already gone.
            let _ = reset_on_close(&server);
            return CloseReason::ClientReset;
        };
        let (tunnel, closed) = (TunnelEnd { send, recv }, &mut registration.closed);
        relay::tunnel_to_server(tunnel, server, &Meter::from(log), closed).await
    }

    fn arrival(&self, requested: SocketAddr, forwarded: Forwarded, started: Instant) -> Arrival {
        let client = headers::client_address(self.client.ip(), &forwarded);
        let known = client.port() != 0;
        let state = self.worker.node.state();
        // Behind a gateway the address is the gateway's.
        let remote = forwarded.network.filter(|network| state.is_other_network(network));
        let workload = match (remote, forwarded.baggage) {
            (Some(network), baggage) => baggage.map(|baggage| {
                Arc::new(baggage.workload(self.identity.clone(), Network(network.into())))
            }),
            (None, _) => state.workload_at(self.client.ip()).cloned(),
        };
        let application = Application::of(&state, &self.pod, self.target.ip(), requested);
        Arrival {
            client: if known { client } else { self.client },
            keep_client_port: known,
            peer: End { workload, identity: Some(self.identity.clone()) },
            target: self.target,
            requested,
            application,
            hostname: forwarded.host,
            started,
        }
    }

    /// The answer to a stream that is accepted; it describes the destination.
    fn acceptance(&self) -> Response<()> {
        let mut response = Response::new(());
        let state = self.worker.node.state();
        if let Some(local) = state.local_workload(&self.pod.name, &self.pod.identity) {
            headers::describe(response.headers_mut(), &local.workload);
        }
        response
    }
}

/// Answers a stream that is not served.
fn refuse(mut respond: SendResponse<Bytes>, reason: CloseReason) -> CloseReason {
    let mut response = Response::new(());
    *response.status_mut() = status(&reason);
    // Fails only if the peer has reset the stream already.
    let _ = respond.send_response(response, true);
    reason
}

// === impl OpenTunnel ===

impl OpenTunnel {
    fn new(node: Arc<Node>) -> Self {
        node.tunnels.add();
        node.metrics.tunnels_open.inbound.inc();
        Self(node)
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.metrics.tunnels_open.inbound.dec();
        self.0.tunnels.remove();
    }
}

/// Returns what [`Source::serve`] keeps for each stream.
#[cfg(test)]
pub(in crate::proxy) fn size_of_stream() -> usize {
    crate::proxy::footprint::size(|(source, stream): (Rc<Source>, Stream)| source.serve(stream))
}
