//! The server's end of tunnels, standing in for the proxy of a pod.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fairlead_lab::Pod;
use h2::{
    RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use rustls::{ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{net::TcpStream, sync::Notify, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{App, Ca, Credentials, HBONE, Stream, Task};

/// Accepts tunnels and echoes what comes through their streams.
#[derive(Debug)]
pub(crate) struct TunnelServer {
    seen: Arc<Mutex<Seen>>,
    _task: Task,
}

/// What a server does with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends back what comes.
    Echo,
    /// Says [`FAREWELL`], ends, and wants no more: `END_STREAM`, then `RST_STREAM` with `NO_ERROR`.
    Leave,
}

/// What a server says before it leaves.
pub(crate) const FAREWELL: &[u8] = b"all that there is to say";

/// A CONNECT that was served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// Number of the tunnel that it came through, from 0.
    pub(crate) tunnel: usize,
    /// The request.
    pub(crate) request: Request<()>,
    /// Address of the tunnel's client.
    pub(crate) client: SocketAddr,
}

#[derive(Debug, Default)]
struct Seen {
    /// How to ask each tunnel's client to leave.
    tunnels: Vec<Arc<Notify>>,
    requests: Vec<Served>,
    failures: Vec<String>,
}

/// Returns the configuration of a server that shows `credentials` to clients of `ca`.
pub(crate) fn server_config(ca: &Ca, credentials: &Credentials) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = Arc::new(ca.roots()?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(credentials.chain(), credentials.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

// === impl TunnelServer ===

impl TunnelServer {
    /// Starts an echoing server on the HBONE port of `pod` that shows `credentials` to clients of
    /// `ca`.
    pub(crate) fn start(pod: &Pod, ca: &Ca, credentials: &Credentials) -> Result<Self> {
        Self::start_with(Manner::Echo, pod, ca, credentials)
    }

    /// Starts such a server with other manners.
    pub(crate) fn start_with(
        manner: Manner,
        pod: &Pod,
        ca: &Ca,
        credentials: &Credentials,
    ) -> Result<Self> {
        let app = App::listen(pod, HBONE)?;
        let tls = TlsAcceptor::from(Arc::new(server_config(ca, credentials)?));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = Task::spawn(accept(app, tls, manner, seen.clone()));
        Ok(Self { seen, _task: task })
    }

    /// Returns how many tunnels were opened.
    pub(crate) fn tunnels(&self) -> usize {
        lock(&self.seen).tunnels.len()
    }

    /// Returns the requests that were served.
    pub(crate) fn requests(&self) -> Vec<Served> {
        lock(&self.seen).requests.clone()
    }

    /// Returns why connections did not become tunnels.
    pub(crate) fn failures(&self) -> Vec<String> {
        lock(&self.seen).failures.clone()
    }

    /// Asks the client of a tunnel to open no more streams there (GOAWAY).
    pub(crate) fn leave(&self, tunnel: usize) -> Result<()> {
        lock(&self.seen).tunnels.get(tunnel).context("no such tunnel")?.notify_one();
        Ok(())
    }
}

async fn accept(app: App, tls: TlsAcceptor, manner: Manner, seen: Arc<Mutex<Seen>>) {
    // Ends with this task.
    let mut tunnels = JoinSet::new();
    while let Ok((socket, client)) = app.accept().await {
        let (tls, seen) = (tls.clone(), seen.clone());
        tunnels.spawn(async move {
            if let Err(error) = serve_tunnel(socket, client, tls, manner, &seen).await {
                lock(&seen).failures.push(format!("{error:#}"));
            }
        });
    }
}

async fn serve_tunnel(
    socket: TcpStream,
    client: SocketAddr,
    tls: TlsAcceptor,
    manner: Manner,
    seen: &Mutex<Seen>,
) -> Result<()> {
    let io = tls.accept(socket).await.context("TLS")?;
    let mut connection = server::handshake(io).await.context("HTTP/2")?;
    let leave = Arc::new(Notify::new());
    let tunnel = {
        let mut seen = lock(seen);
        seen.tunnels.push(leave.clone());
        seen.tunnels.len() - 1
    };
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => {
                    let (request, respond) = stream?;
                    let (head, body) = request.into_parts();
                    let request = Request::from_parts(head, ());
                    lock(seen).requests.push(Served { tunnel, request, client });
                    streams.spawn(serve_stream(body, respond, manner));
                }
                None => return Ok(()),
            },
            () = leave.notified() => connection.graceful_shutdown(),
        }
    }
}

async fn serve_stream(body: RecvStream, mut respond: SendResponse<Bytes>, manner: Manner) {
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    // A stream that is reset has no more to be served.
    let _ = match manner {
        Manner::Echo => Stream::new(HeaderMap::new(), send, body).echo().await,
        Manner::Leave => leave(send),
    };
}

/// Ends the stream; dropping it then resets it, as the library does after a whole answer.
fn leave(mut send: SendStream<Bytes>) -> Result<()> {
    Ok(send.send_data(FAREWELL.into(), true)?)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
