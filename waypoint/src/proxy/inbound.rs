//! Tunnels from node proxies and gateways, and the connections in them.

use std::{
    cell::OnceCell,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fairlead_component::shares::Part;
use fairlead_tunnel::{
    hbone::{
        duplex::{Duplex, Lingering},
        headers::{self, Authority, client_address},
        server::{Stream, Tunnel},
        transport,
    },
    identity::NoCertificate,
    tls::PeerError,
};
use h2::server::SendResponse;
use http::{HeaderValue, Method, Response, StatusCode};
use mesh_api::{
    identity::Identity,
    workload::{AppProtocol, Workload},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{
    clients::{Handshake, TooMany},
    counted::Counted,
    detect::{Detected, ENOUGH_BYTES, detect},
    http::{self as requests, Version},
    prefixed::Prefixed,
    tcp,
    worker::{Worker, spawn},
};
use crate::{
    balance::Labels,
    limits::CLIENT_IDLE_TIMEOUT,
    mesh::{Backend, Binding, ServiceView, Target},
    policy::{Decision, Peer, Subject, Verdict},
    route::{Client, HttpRoute, Normalisation, RequestHead, RouteTable, forwarded_client_cert},
};

/// Where log lines are from about what policies want told.
const AUDIT: &str = "policy::audit";

/// Where log lines are from about policies on trial.
const DRY_RUN: &str = "policy::dry_run";

/// A connection of a client, which came through a tunnel.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    /// Whom the tunnel is of.
    pub(super) source: Identity,
    /// The same as policies see it.
    peer: Peer,
    /// Address of the client, as its node says.
    pub(super) client: SocketAddr,
    /// The client, if it is known.
    pub(super) client_workload: Option<Arc<Workload>>,
    /// What the client connected to.
    pub(super) target: Target,
    /// The same as an address, where it named one.
    pub(super) address: Option<SocketAddr>,
    /// Where its requests are counted.
    pub(super) counted: Counted,
    /// Made once it is needed: most traffic is addressed to services.
    direct: OnceCell<(Arc<Backend>, Arc<HttpRoute>)>,
    /// What endpoints are told of whom it is of; made once a request needs it.
    client_cert: OnceCell<Option<HeaderValue>>,
    /// Its place among those of its client.
    _part: Part,
}

/// What a connection is served as.
pub(super) type Io = Prefixed<Duplex<()>>;

/// The same for requests.
pub(super) type RequestIo = Prefixed<Lingering<()>>;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),
    #[error("TLS handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("the client is not trusted: {0}")]
    Peer(#[from] PeerError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// Serves a tunnel from accept to close.
pub(super) async fn serve_tunnel(
    worker: Rc<Worker>,
    socket: TcpStream,
    peer: SocketAddr,
    turn: Handshake,
) {
    let shared = worker.shared.clone();
    let handshake = async {
        let _turn = (turn, shared.clients.handshake(peer.ip(), &shared.metrics)?);
        let part = shared.clients.tunnel(peer.ip(), &shared.metrics)?;
        let configs = worker.shared.identity.current()?;
        let accepted = transport::accept(configs.server(), socket).await?;
        let (identity, chain) = configs.check_client(accepted.peer_certificates.as_deref())?;
        Ok::<_, Refused>((accepted.stream, identity, chain, part))
    };
    let (io, source, chain, _part) = match Box::pin(handshake).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::info!(%peer, %error, "tunnel refused");
            return;
        }
    };
    let tunnel = match Box::pin(Tunnel::accept(io)).await {
        Ok(tunnel) => tunnel,
        Err(error) => {
            tracing::debug!(%peer, %error, "tunnel refused");
            return;
        }
    };
    let mut draining = worker.draining.clone();
    let drained = async move {
        // An error means that the process ends at once.
        let _ = draining.wait_for(|draining| *draining).await;
    };
    let serve = |stream| spawn(serve_stream(worker.clone(), source.clone(), peer, stream));
    tokio::select! {
        ended = tunnel.run(drained, serve) => {
            if let Err(error) = ended {
                if error.is_excess() {
                    shared.metrics.limit("tunnel_frames").inc();
                }
                tracing::debug!(%peer, %error, "tunnel closed");
            }
        }
        () = chain.revoked() => tracing::info!(%peer, %source, "tunnel closed: its certificate is revoked"),
    }
}

/// Serves a stream from its CONNECT to its end.
async fn serve_stream(
    worker: Rc<Worker>,
    source: Identity,
    peer: SocketAddr,
    (request, mut respond): Stream,
) {
    let (head, body) = request.into_parts();
    for limit in headers::unreadable(&head.headers) {
        worker.shared.metrics.limit(limit).inc();
    }
    let asked = head.uri.authority().filter(|_| head.method == Method::CONNECT);
    let Some(asked) = asked.and_then(|asked| headers::parse_authority(asked.as_str())) else {
        return refuse(respond, StatusCode::BAD_REQUEST);
    };
    let snapshot = worker.snapshot();
    let (target, address) = match asked {
        Authority::Address(address) => (snapshot.target_at(address), Some(address)),
        Authority::Name(hostname, port) => (snapshot.target_named(hostname, port), None),
    };
    let Some(target) = target else {
        tracing::info!(%peer, %source, destination = %asked, "connection refused: it is for nothing that is bound to this waypoint");
        return refuse(respond, StatusCode::NOT_FOUND);
    };
    let shared = &worker.shared;
    let Ok(part) = shared.clients.connection(peer.ip(), &shared.metrics) else {
        return refuse(respond, StatusCode::SERVICE_UNAVAILABLE);
    };
    let client = client_address(peer.ip(), &headers::parse_forwarded(&head.headers));
    let client_workload = snapshot.workload_at(client.ip()).cloned();
    drop((snapshot, head));
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    let stream = Duplex::new(send, body, ());
    let peer = Peer::new(client.ip(), Some(source.clone()));
    let connection = Connection {
        worker,
        source,
        peer,
        client,
        client_workload,
        target,
        address,
        counted: Counted::default(),
        direct: OnceCell::new(),
        client_cert: OnceCell::new(),
        _part: part,
    };
    serve(Rc::new(connection), stream).await;
}

async fn serve(connection: Rc<Connection>, stream: Duplex<()>) {
    match connection.protocol() {
        AppProtocol::Tcp | AppProtocol::Tls => {
            tcp::serve(connection, Prefixed::new(Bytes::new(), stream)).await;
        }
        AppProtocol::Unknown | AppProtocol::Http1 | AppProtocol::Http2 | AppProtocol::Grpc => {
            let (detected, first, stream) =
                look(stream, connection.worker.shared.patience.head).await;
            let version = match detected {
                Detected::Http1 => Version::Http1,
                Detected::Http2 => Version::Http2,
                // Where HTTP is declared, its server says what is wrong with this.
                Detected::Bytes | Detected::Unclear if connection.speaks_http() => Version::Http1,
                Detected::Bytes | Detected::Unclear => {
                    return tcp::serve(connection, Prefixed::new(first, stream)).await;
                }
            };
            let io = Prefixed::new(first, Lingering::from(stream));
            requests::serve(connection, io, version).await;
        }
    }
}

/// Looks at the first bytes of a connection, as many as it takes.
async fn look(mut stream: Duplex<()>, head: Duration) -> (Detected, Bytes, Duplex<()>) {
    let mut first = BytesMut::with_capacity(ENOUGH_BYTES);
    let detected = loop {
        match detect(&first) {
            Detected::Unclear => {}
            clear @ (Detected::Http1 | Detected::Http2 | Detected::Bytes) => break clear,
        }
        // Before the first byte, a client may wait for as long as it does between two requests.
        let limit = if first.is_empty() { CLIENT_IDLE_TIMEOUT } else { head };
        // An end or an error shows again when the connection is read.
        if !matches!(timeout(limit, stream.read_buf(&mut first)).await, Ok(Ok(1..))) {
            break Detected::Unclear;
        }
    };
    (detected, first.freeze(), stream)
}

fn refuse(mut respond: SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // Fails only if the peer has reset the stream already.
    let _ = respond.send_response(response, true);
}

// === impl Connection ===

impl Connection {
    /// Returns what is spoken where the client connected to, as far as that is declared.
    fn protocol(&self) -> AppProtocol {
        match &self.target {
            Target::Service(view, port) => view.protocol(*port),
            Target::Workload(..) => AppProtocol::Unknown,
        }
    }

    /// Decides by policy whether a request goes on; without one, the connection itself. Says what policies
    /// want told.
    pub(super) fn judge(&self, request: Option<&RequestHead<'_>>) -> Verdict {
        let decision = self.decide(request);
        self.tell(&decision);
        decision.verdict
    }

    /// Does so without a word.
    pub(super) fn decide(&self, request: Option<&RequestHead<'_>>) -> Decision {
        let (ip, port) = match (&self.target, self.address) {
            (_, Some(address)) => (address.ip(), address.port()),
            (Target::Service(_, port), None) => (Ipv4Addr::UNSPECIFIED.into(), *port),
            (Target::Workload(_, address), None) => (address.ip(), address.port()),
        };
        let subject = Subject {
            peer: &self.peer,
            remote: self.client.ip(),
            destination: SocketAddr::new(ip, port),
            server_name: None,
            token: None,
        };
        if let Some((view, _)) = self.service() {
            return view.policies().decide(&subject, request);
        }
        let snapshot = self.worker.shared.snapshot.load();
        snapshot.direct_policies().decide(&subject, request)
    }

    /// Says what policies want told, and what those on trial would have decided.
    fn tell(&self, decision: &Decision) {
        let (client, source, to) = (self.client, &self.source, &self.target);
        if let Some(policy) = &decision.audited {
            tracing::info!(target: AUDIT, %client, %source, %to, %policy, "audited");
        }
        match &decision.on_trial {
            Some(Verdict::Deny(denied)) => {
                tracing::info!(target: DRY_RUN, %client, %source, %to, %denied, "would be denied");
            }
            Some(Verdict::Allow(Some(policy))) => {
                tracing::info!(target: DRY_RUN, %client, %source, %to, %policy, "would be allowed");
            }
            Some(Verdict::Allow(None)) | None => {}
        }
    }

    /// Returns how paths are spelled before anything is decided by them.
    pub(super) fn normalisation(&self) -> Normalisation {
        self.worker.shared.snapshot.load().normalisation()
    }

    /// Returns the service as it is now, which may be younger than the connection, and its port.
    pub(super) fn service(&self) -> Option<(Arc<ServiceView>, u16)> {
        let Target::Service(view, port) = &self.target else { return None };
        let now = self.worker.shared.snapshot.load().service(&view.service().key).cloned();
        Some((now.unwrap_or_else(|| view.clone()), *port))
    }

    /// Returns whether what the client connected to is not bound to this waypoint any longer: nothing
    /// is said here of its routes then, nor of TLS to its endpoints.
    pub(super) fn is_unbound(&self) -> bool {
        self.binding().is_some_and(Binding::is_over)
    }

    /// Waits until it is not.
    pub(super) async fn unbound(&self) {
        match self.binding() {
            Some(binding) => binding.over().await,
            None => pending().await,
        }
    }

    fn binding(&self) -> Option<&Binding> {
        let Target::Service(view, _) = &self.target else { return None };
        view.binding()
    }

    /// Returns the client, of which [`Connection::client_labels`] are the labels, as routes see it.
    pub(super) fn client_with<'a>(&'a self, labels: Option<&'a Labels>) -> Client<'a> {
        Client { namespace: self.source.namespace.as_str(), labels }
    }

    /// Returns the client's labels as they are now, where routes depend on them.
    pub(super) fn client_labels(&self, routes: &RouteTable) -> Option<Arc<Labels>> {
        let snapshot = routes.depends_on_labels().then(|| self.worker.shared.snapshot.load())?;
        snapshot.labels_at(self.client.ip()).cloned()
    }

    /// Returns what stands behind the address of a workload; none for a service.
    pub(super) fn direct(&self) -> Option<&(Arc<Backend>, Arc<HttpRoute>)> {
        let Target::Workload(workload, address) = &self.target else { return None };
        Some(self.direct.get_or_init(|| self.worker.snapshot().direct(workload, *address)))
    }

    /// Returns what endpoints of the mesh are told of who asks.
    pub(super) fn client_cert(&self) -> Option<&HeaderValue> {
        let made = || {
            let snapshot = self.worker.shared.snapshot.load();
            forwarded_client_cert(&snapshot.own().identity, &self.source)
        };
        self.client_cert.get_or_init(made).as_ref()
    }

    fn speaks_http(&self) -> bool {
        matches!(self.protocol(), AppProtocol::Http1 | AppProtocol::Http2 | AppProtocol::Grpc)
    }
}
