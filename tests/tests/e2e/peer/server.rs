//! The server's end of tunnels, standing in for the proxy of a pod.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fairlead_lab::Pod;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response, StatusCode};
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
    /// Sends back what comes, of this many streams of a tunnel at once.
    Few(u32),
    /// Once there are bytes, does this with every stream but the first of each tunnel, which is
    /// echoed.
    Late(Late),
}

/// What a server does with a stream that it has not answered until its first bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Sends back what has come and what comes.
    Echo,
    /// Answers that the application cannot be reached.
    Unavailable,
    /// Resets it with the code that says that it was not processed.
    RefuseStream,
    /// Closes the tunnel without a word.
    Vanish,
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
    let mut builder = server::Builder::new();
    if let Manner::Few(streams) = manner {
        builder.max_concurrent_streams(streams);
    }
    let mut connection = builder.handshake(io).await.context("HTTP/2")?;
    let leave = Arc::new(Notify::new());
    let tunnel = {
        let mut seen = lock(seen);
        seen.tunnels.push(leave.clone());
        seen.tunnels.len() - 1
    };
    let mut streams = JoinSet::new();
    let vanish = Arc::new(Notify::new());
    let mut first = true;
    loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(stream) => {
                    let (request, respond) = stream?;
                    let (head, body) = request.into_parts();
                    let request = Request::from_parts(head, ());
                    lock(seen).requests.push(Served { tunnel, request, client });
                    match manner {
                        Manner::Late(late) if !first => {
                            streams.spawn(serve_late(body, respond, late, vanish.clone()));
                        }
                        Manner::Echo | Manner::Few(_) | Manner::Leave | Manner::Late(_) => {
                            streams.spawn(serve_stream(body, respond, manner));
                        }
                    }
                    first = false;
                }
                None => return Ok(()),
            },
            () = vanish.notified() => return Ok(()),
            () = leave.notified() => connection.graceful_shutdown(),
        }
    }
}

async fn serve_stream(body: RecvStream, mut respond: SendResponse<Bytes>, manner: Manner) {
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    // A stream that is reset has no more to be served.
    let _ = match manner {
        Manner::Echo | Manner::Few(_) | Manner::Late(_) => {
            Stream::new(HeaderMap::new(), send, body).echo().await
        }
        Manner::Leave => leave(send),
    };
}

async fn serve_late(
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    late: Late,
    vanish: Arc<Notify>,
) {
    // A stream that ends or is reset before has no more to be served.
    let Some(Ok(first)) = body.data().await else { return };
    let answer = |status| {
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        answer
    };
    match late {
        Late::Echo => {
            let Ok(mut send) = respond.send_response(answer(StatusCode::OK), false) else { return };
            let _ = body.flow_control().release_capacity(first.len());
            if send.send_data(first, false).is_ok() {
                let _ = Stream::new(HeaderMap::new(), send, body).echo().await;
            }
        }
        Late::Unavailable => {
            let _ = respond.send_response(answer(StatusCode::SERVICE_UNAVAILABLE), true);
        }
        Late::RefuseStream => respond.send_reset(Reason::REFUSED_STREAM),
        Late::Vanish => {
            vanish.notify_one();
            // Dropping the stream would reset it.
            pending::<()>().await;
        }
    }
}

/// Ends the stream; dropping it then resets it, as the library does after a whole answer.
fn leave(mut send: SendStream<Bytes>) -> Result<()> {
    Ok(send.send_data(FAREWELL.into(), true)?)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
