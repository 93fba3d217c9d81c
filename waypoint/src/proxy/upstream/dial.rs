//! Makes connections to endpoints.

use std::{convert::Infallible, future::pending, net::SocketAddr, rc::Rc, sync::Arc};

use fairlead_tunnel::{
    hbone::{
        TunnelError,
        client::{OpenError, Tunnel},
        duplex::Duplex,
        headers::{Authority, connect_request},
        pool::{Pool, PoolError},
        transport,
    },
    tls,
};
use mesh_api::identity::Identity;
use prometheus_client::metrics::gauge::Gauge;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::timeout};

use super::{Io, UpstreamError, Wanted, origin::Originator};
use crate::{balance::Keepalive, mesh::Way, proxy::worker::Shared};

/// Times that a stream moves on to another tunnel because the one it got had just closed.
const MAX_TUNNELS_TRIED: usize = 3;

/// What a tunnel belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    address: SocketAddr,
    expected: Arc<[Identity]>,
}

/// Makes connections to endpoints, and keeps the tunnels that they share.
pub(in crate::proxy) struct Dialler {
    shared: Arc<Shared>,
    tunnels: Pool<Peer, UpstreamError>,
    originator: Originator,
}

// === impl Dialler ===

impl Dialler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, tunnels: Pool::new(), originator: Originator::default() }
    }

    /// Lets go of tunnels that are not used.
    pub(super) fn sweep(&self) {
        self.tunnels.sweep();
        self.originator.sweep();
    }

    /// Connects to an endpoint.
    pub(super) async fn connect(&self, wanted: &Wanted) -> Result<Box<dyn Io>, UpstreamError> {
        let connecting = async {
            let io = match &wanted.way {
                Way::Tunnel(address, expected) => {
                    let peer = Peer { address: *address, expected: expected.clone() };
                    Box::new(self.through_tunnel(peer, wanted).await?) as Box<dyn Io>
                }
                Way::Unsupported(what) => return Err(UpstreamError::Unsupported(what.clone())),
                Way::Plain => {
                    let socket = TcpStream::connect(wanted.address).await?;
                    socket.set_nodelay(true)?;
                    if let Some(keepalive) = &wanted.cluster.policy().pool.keepalive {
                        SockRef::from(&socket).set_tcp_keepalive(&probes(*keepalive))?;
                    }
                    Box::new(socket)
                }
            };
            match &wanted.opening {
                Some(opening) => opening.perform(io, &self.originator, wanted.version).await,
                None => Ok(io),
            }
        };
        let limit = wanted.cluster.policy().pool.connect_timeout;
        timeout(limit, connecting).await.unwrap_or(Err(UpstreamError::ConnectTimeout(limit)))
    }

    async fn through_tunnel(
        &self,
        peer: Peer,
        wanted: &Wanted,
    ) -> Result<impl Io + use<>, UpstreamError> {
        let authority = Authority::Address(wanted.address);
        let snapshot = self.shared.snapshot.load();
        let host = wanted.backend.hostname();
        let request = connect_request(authority, wanted.client, snapshot.own(), host)
            .map_err(|error| UpstreamError::Connect(error.to_string()))?;
        drop(snapshot);
        let mut tried = 1;
        loop {
            let dial = || dial(self.shared.clone(), peer.clone());
            let slot = self.tunnels.reserve(&peer, dial).await?;
            let nothing_ahead = async |_: &mut _| pending::<Infallible>().await;
            match slot.open(request.clone(), nothing_ahead).await {
                Ok(stream) => return Ok(Duplex::from(stream)),
                Err(OpenError::NotProcessed | OpenError::TunnelLost)
                    if tried < MAX_TUNNELS_TRIED =>
                {
                    tried += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}

async fn dial(shared: Arc<Shared>, peer: Peer) -> Result<Rc<Tunnel>, UpstreamError> {
    let configs = shared.identity.current();
    let configs = configs.map_err(|error| UpstreamError::NoCertificate(error.to_string()))?;
    let socket = TcpStream::connect(peer.address).await?;
    socket.set_nodelay(true)?;
    let (config, name) = (configs.client(&peer.expected), tls::server_name(peer.address.ip()));
    let secured = transport::connect(config, name, socket).await;
    let secured = secured.map_err(|error| UpstreamError::Tls(error.to_string()))?;
    let checked = configs.check_server(secured.peer_certificates.as_deref(), &peer.expected);
    let chain = checked.map_err(|error| UpstreamError::Tls(error.to_string()))?;
    let distrust = async move { chain.revoked().await };
    Ok(Tunnel::connect(secured.stream, Gauge::default(), distrust).await?)
}

/// Returns how the system is to probe a connection.
fn probes(Keepalive { probes, time, interval }: Keepalive) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(probes) = probes {
        keepalive = keepalive.with_retries(probes);
    }
    if let Some(time) = time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(interval);
    }
    keepalive
}

// === impl UpstreamError ===

impl From<TunnelError> for UpstreamError {
    fn from(error: TunnelError) -> Self {
        Self::Connect(error.to_string())
    }
}

impl From<OpenError> for UpstreamError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused(status) => Self::Refused(status.as_u16()),
            OpenError::NotProcessed
            | OpenError::TunnelLost
            | OpenError::Http2(_)
            | OpenError::Timeout => Self::Connect(error.to_string()),
        }
    }
}

impl From<PoolError<UpstreamError>> for UpstreamError {
    fn from(error: PoolError<UpstreamError>) -> Self {
        match error {
            PoolError::Dial(error) => error,
            PoolError::NoRoom => Self::Connect("tunnels were made and took no stream".to_owned()),
        }
    }
}
