//! Nodes that follow a control plane.

use std::{
    collections::HashMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::{SendStream, client::Builder};
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, sync::Notify};
use tokio_rustls::TlsConnector;

use crate::{
    process::{ControlPlane, TOKEN},
    wire::{self, ADDRESS, AUTHORIZATION, PREFIX_BYTES, Response, Text},
};

const METHOD: &str = "https://localhost/envoy.service.discovery.v3.AggregatedDiscoveryService/\
                      DeltaAggregatedResources";

/// Flow-control window, in bytes: that of Istio's clients.
const WINDOW_BYTES: u32 = 4 << 20;

/// What all nodes share.
pub(crate) struct Fleet {
    /// Bytes of responses.
    pub(crate) received: AtomicU64,
    /// Nodes that know the whole state.
    pub(crate) synced: AtomicUsize,
    /// Tells when that changes.
    pub(crate) progress: Notify,
    /// Changes that arrived.
    pub(crate) seen: Mutex<Vec<Seen>>,
    expected: RwLock<HashMap<Text, (usize, Instant)>>,
    address: SocketAddr,
    connector: TlsConnector,
    /// Names and versions that the first of the nodes was told.
    known: Mutex<HashMap<Text, Text>>,
    /// The first request of a node that comes back.
    initial: OnceLock<Bytes>,
}

/// A change that a node was told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Number of the change.
    pub(crate) change: usize,
    /// Time since it was made.
    pub(crate) micros: u32,
}

/// One node's stream.
struct Follower {
    fleet: Arc<Fleet>,
    /// Whether it keeps what it is told, for all.
    keeps: bool,
    synced: bool,
    requests: SendStream<Bytes>,
}

// === impl Fleet ===

impl Fleet {
    /// Prepares nodes that trust the control plane.
    pub(crate) fn new(control: &ControlPlane) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&fs::read(control.root())?) {
            roots.add(root?)?;
        }
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            received: AtomicU64::default(),
            synced: AtomicUsize::default(),
            progress: Notify::new(),
            seen: Mutex::default(),
            expected: RwLock::default(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, control.port)),
            connector: TlsConnector::from(Arc::new(config)),
            known: Mutex::default(),
            initial: OnceLock::new(),
        })
    }

    /// Takes the time of the change that is about to be made of the resource `name`.
    pub(crate) fn expect(&self, name: String) {
        let mut expected = self.expected.write().unwrap_or_else(PoisonError::into_inner);
        let number = expected.len();
        expected.insert(name.into_bytes().into(), (number, Instant::now()));
    }

    /// Returns the size of what a node that comes back says that it has.
    pub(crate) fn initial_bytes(&self) -> u64 {
        self.initial().len() as u64
    }

    /// Follows the control plane; `again` as one who knows most of it from before.
    pub(crate) async fn follow(self: Arc<Self>, index: usize, again: bool) -> Result<()> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from("localhost")?, socket).await?;
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await?;
        let driven = tokio::spawn(connection);
        let request = Request::post(METHOD)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(())?;
        let (response, requests) = requests.ready().await?.send_request(request, false)?;
        let mut follower =
            Follower { keeps: index == 0, synced: false, requests, fleet: Arc::clone(&self) };
        let node = format!("ztunnel~10.255.0.1~zt-{index}.istio-system~istio-system.svc");
        let first = if again { self.initial() } else { wire::subscribe(ADDRESS, &node, &[]) };
        follower.send(first).await?;
        follower.send(wire::subscribe(AUTHORIZATION, &node, &[])).await?;
        let response = response.await?;
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            self.received.fetch_add(part.len() as u64, Relaxed);
            body.flow_control().release_capacity(part.len())?;
            buffer.extend_from_slice(&part);
            follower.take(&mut buffer).await?;
        }
        driven.abort();
        bail!("the stream ended: {:?}", body.trailers().await?)
    }

    fn initial(&self) -> Bytes {
        let encode = || {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let had: Vec<_> = known.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            wire::subscribe(ADDRESS, "ztunnel~10.255.0.1~zt.istio-system~istio-system.svc", &had)
        };
        self.initial.get_or_init(encode).clone()
    }
}

// === impl Follower ===

impl Follower {
    /// Takes up the messages that are whole.
    async fn take(&mut self, buffer: &mut BytesMut) -> Result<()> {
        while let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() {
            let [_, length @ ..] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            if buffer.len() < PREFIX_BYTES + length {
                buffer.reserve(PREFIX_BYTES + length - buffer.len());
                return Ok(());
            }
            buffer.advance(PREFIX_BYTES);
            let message = buffer.split_to(length).freeze();
            let response = Response::read(&message).context("a malformed response")?;
            if response.type_url == ADDRESS.as_bytes() {
                self.note(&response);
            }
            self.send(wire::acknowledge(&response)).await?;
        }
        Ok(())
    }

    fn note(&mut self, response: &Response<'_>) {
        if self.keeps {
            let mut known = self.fleet.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.extend(response.resources().map(|(name, version)| (name.into(), version.into())));
        }
        if self.synced {
            let now = Instant::now();
            let expected = self.fleet.expected.read().unwrap_or_else(PoisonError::into_inner);
            let seen = response.resources().filter_map(|(name, _)| {
                let (change, made) = *expected.get(name)?;
                let micros = u32::try_from((now - made).as_micros()).unwrap_or(u32::MAX);
                Some(Seen { change, micros })
            });
            let mut all = self.fleet.seen.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(seen);
        } else if response.is_whole {
            self.synced = true;
            self.fleet.synced.fetch_add(1, Relaxed);
            self.fleet.progress.notify_one();
        }
    }

    async fn send(&mut self, mut message: Bytes) -> Result<()> {
        while !message.is_empty() {
            self.requests.reserve_capacity(message.len());
            let room = std::future::poll_fn(|cx| self.requests.poll_capacity(cx)).await;
            let room = room.context("the stream ended")??;
            self.requests.send_data(message.split_to(room.min(message.len())), false)?;
        }
        Ok(())
    }
}
