//! Connections into a pod: through tunnels, in plaintext, and from pods of the same node.

mod tunnel;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use fairlead_tunnel::proxy_header;
use http::StatusCode;
use mesh_api::workload::{ApplicationTunnel, Workload};
use tokio::net::TcpStream;

pub(super) use self::tunnel::serve_tunnel;
#[cfg(test)]
pub(super) use self::tunnel::size_of_stream;
use super::{
    admission::{Inbound, PROXY_PORTS},
    connections::{Counted, Registration},
    delivery::{deliver, deliver_to_proxy},
    flow::{Addresses, FlowLog, Meter},
    pod::Pod,
    relay,
    worker::{Worker, accept::Accepted},
};
use crate::{
    state::MeshState,
    telemetry::{
        metrics::{ConnectionLabels, End, Reporter},
        reason::CloseReason,
    },
};
use fairlead_sys::socket::reset_on_close;

/// A connection that has reached its pod and awaits judgement.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The client's end of the connection or of its tunnel.
    pub(super) client: SocketAddr,
    /// Whether the application should see the client's own port.
    pub(super) keep_client_port: bool,
    /// Who the client is.
    pub(super) peer: End,
    /// Address that the bytes were sent to: with the HBONE port, if they came through a tunnel.
    pub(super) target: SocketAddr,
    /// Address that the client asked for.
    pub(super) requested: SocketAddr,
    /// Address of the application.
    pub(super) application: Application,
    /// Host name that the client used, as far as it says.
    pub(super) hostname: Option<String>,
    /// When the connection was accepted.
    pub(super) started: Instant,
}

/// Where an application takes a connection, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Application {
    /// Its address: what the client asked for, but for proxies.
    pub(super) address: SocketAddr,
    /// Whether a header says first what the connection is for.
    pub(super) proxy_header: bool,
}

/// A connection that its pod has accepted without a tunnel.
#[derive(Debug)]
pub(super) struct LocalDelivery {
    pub(super) socket: TcpStream,
    pub(super) log: FlowLog,
    pub(super) registration: Registration,
}

/// Serves a plaintext connection from accept to close. It is registered at once: nothing that ends
/// the connections of its pod comes in between.
pub(super) fn serve_plaintext(accepted: Accepted) -> impl Future<Output = ()> {
    let Accepted { worker, pod, socket, client, target, share, counted, .. } = accepted;
    let open = worker.metrics.socket(Reporter::Destination);
    let workload = worker.node.state().workload_at(client.ip()).cloned();
    let arrival = Arrival {
        client,
        // That connection exists in this namespace already, the other way round.
        keep_client_port: false,
        peer: End { workload, identity: None },
        target,
        requested: target,
        application: Application::at(target),
        hostname: None,
        started: Instant::now(),
    };
    let (log, mut registration) = arrival.register(&worker, &pod, counted);
    async move {
        let (_open, _share) = (open, share);
        let reason = match arrival.enter(&worker, &pod, &mut registration).await {
            Ok(server) => {
                drop(arrival);
                relay::sockets(socket, server, &Meter::from(&log), &mut registration.closed).await
            }
            Err(reason) => {
                // Fails only on a socket that is already gone.
                let _ = reset_on_close(&socket);
                reason
            }
        };
        log.close(&reason);
    }
}

/// Brings a connection of a pod of this node to `pod`, with the checks and the log of a tunnel.
pub(super) async fn deliver_local(
    worker: &Worker,
    pod: &Arc<Pod>,
    arrival: Arrival,
) -> Result<LocalDelivery, CloseReason> {
    let (log, mut registration) = arrival.register(worker, pod, worker.connections.count(pod));
    match arrival.enter(worker, pod, &mut registration).await {
        Ok(socket) => Ok(LocalDelivery { socket, log, registration }),
        Err(reason) => {
            log.close(&reason);
            let status = status(&reason);
            let denial = (status == StatusCode::UNAUTHORIZED).then(|| Arc::new(reason));
            Err(CloseReason::RefusedByPeer { status: status.as_u16(), denial })
        }
    }
}

// === impl Application ===

impl Application {
    /// Returns what is at `address`, as far as connections without a tunnel know.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address, proxy_header: false }
    }

    /// Returns where `pod` takes a connection that came for `requested` through a tunnel to its
    /// address `to`: there, unless it is a proxy, and the connection is for what it stands in for.
    pub(super) fn of(state: &MeshState, pod: &Pod, to: IpAddr, requested: SocketAddr) -> Self {
        match state.local_workload(&pod.name, &pod.identity) {
            Some(local) => Self::of_workload(state, &local.workload, to, requested),
            None => Self::at(requested),
        }
    }

    /// Returns where the pod of `workload` takes such a connection.
    pub(super) fn of_workload(
        state: &MeshState,
        workload: &Workload,
        to: IpAddr,
        requested: SocketAddr,
    ) -> Self {
        if let Some(ApplicationTunnel { proxy_header, port }) = workload.application_tunnel {
            let address = SocketAddr::new(to, port.unwrap_or_else(|| requested.port()));
            return Self { address, proxy_header };
        }
        if requested.ip() != to && state.stands_in_for(workload, requested.ip()) {
            return Self::at(SocketAddr::new(to, requested.port()));
        }
        Self::at(requested)
    }
}

// === impl Arrival ===

impl Arrival {
    /// Enters the connection in the tables; what follows is judged by them.
    fn register(
        &self,
        worker: &Worker,
        pod: &Arc<Pod>,
        counted: Counted,
    ) -> (FlowLog, Registration) {
        let registration = worker.connections.register(counted, Some(self.inbound()));
        let state = worker.node.state();
        let local = state.local_workload(&pod.name, &pod.identity).map(|local| local.workload);
        let service = local.as_ref().and_then(|workload| {
            state.service_for(workload, self.application.address.port(), self.hostname.as_deref())
        });
        let identity = self.peer.identity.as_ref().map(|_| pod.identity.clone());
        let labels = ConnectionLabels {
            reporter: Reporter::Destination,
            source: self.peer.clone(),
            service: service.cloned(),
            outside: None,
            destination: End { workload: local, identity },
        };
        let tunnel = self.target != self.requested;
        let addresses = Addresses {
            source: self.client,
            destination: self.target,
            hbone: tunnel.then_some(self.requested),
        };
        let log = FlowLog::open(worker, labels, addresses, self.started);
        registration.describe(&log);
        (log, registration)
    }

    /// Judges the connection and, if it may, connects to the application.
    async fn enter(
        &self,
        worker: &Worker,
        pod: &Pod,
        registration: &mut Registration,
    ) -> Result<TcpStream, CloseReason> {
        let room = registration.admit();
        let enter = async {
            let to = self.application.address;
            if !pod.owns(to.ip()) || to.ip() != self.target.ip() {
                return Err(CloseReason::DestinationNotAllowed);
            }
            // Also of a proxy that takes everything at one port.
            if PROXY_PORTS.contains(&self.requested.port()) {
                return Err(CloseReason::IllegalPort);
            }
            room?;
            let local = worker.node.local_workload(&pod.name, &pod.identity).await;
            self.inbound().admit(&local.ok_or(CloseReason::WorkloadUnknown)?)?;
            if self.application.proxy_header {
                let identity = self.peer.identity.as_ref();
                let header = proxy_header::encode(self.client, self.requested, identity);
                return deliver_to_proxy(pod, to, &header).await;
            }
            let port = if self.keep_client_port { self.client.port() } else { 0 };
            deliver(pod, SocketAddr::new(self.client.ip(), port), to).await
        };
        tokio::select! {
            biased;
            reason = &mut registration.closed => Err(reason.unwrap_or(CloseReason::Drained)),
            entered = enter => entered,
        }
    }

    fn inbound(&self) -> Inbound {
        Inbound {
            source: self.client.ip(),
            identity: self.peer.identity.clone(),
            destination: self.application.address,
        }
    }
}

/// Returns the status that tells a peer why its stream was refused.
fn status(reason: &CloseReason) -> StatusCode {
    match reason {
        CloseReason::DeniedByPolicy { .. }
        | CloseReason::WaypointRequired { .. }
        | CloseReason::DeniedByPolicyChange { .. }
        | CloseReason::NotAllowed { .. }
        | CloseReason::UnknownPolicy { .. } => StatusCode::UNAUTHORIZED,
        CloseReason::DestinationNotAllowed | CloseReason::BadRequest => StatusCode::BAD_REQUEST,
        CloseReason::Completed
        | CloseReason::ClientReset
        | CloseReason::ServerReset
        | CloseReason::WorkloadUnknown
        | CloseReason::NoHealthyEndpoint
        | CloseReason::WaypointUnavailable
        | CloseReason::GatewayUnavailable
        | CloseReason::NameNotResolved
        | CloseReason::DestinationUnknown
        | CloseReason::IllegalPort
        | CloseReason::ConnectRefused
        | CloseReason::ConnectTimeout { .. }
        | CloseReason::ConnectFailed(_)
        | CloseReason::NoCertificate
        | CloseReason::TlsHandshake(_)
        | CloseReason::CertificateRevoked
        | CloseReason::PeerIdentityMismatch
        | CloseReason::Http2
        | CloseReason::RefusedByPeer { .. }
        | CloseReason::TunnelLost
        | CloseReason::Drained
        | CloseReason::Idle
        | CloseReason::PodReleased
        | CloseReason::LimitReached { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}
