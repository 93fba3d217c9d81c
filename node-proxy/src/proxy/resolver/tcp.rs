//! Queries over TCP.

use std::{future::Future, io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};

use super::decide::{Decision, decide, labels};
use crate::{
    dns::{failure, known_to_exist, read},
    limits::dns::{ANSWER_TIMEOUT, CLIENT_IDLE_TIME},
    proxy::{
        node::Node,
        pod::Pod,
        upstream,
        worker::{Worker, accept::Accepted},
    },
    telemetry::metrics::QueryProtocol,
};

/// Why a connection ends before its client ends it.
type Ended = io::Error;

/// A connection and what it needs to be served.
struct Connection {
    node: Arc<Node>,
    pod: Arc<Pod>,
    server: SocketAddr,
    client: TcpStream,
    /// To the name server, once a query was passed on.
    upstream: Option<TcpStream>,
}

/// Returns whether a connection is one for queries. What the mesh carries to a name server that is
/// part of it stays what it is.
pub(in crate::proxy) fn is_for_queries(worker: &Rc<Worker>, pod: &Pod, server: SocketAddr) -> bool {
    let address = server.ip();
    server.port() == fairlead_ebpf::datagrams::DNS_PORT
        && worker.node.options.naming.is_some()
        && !address.is_loopback()
        && !pod.owns(address)
        && !worker.node.state().is_meshed(address, &pod.identity.namespace)
}

/// Answers the queries of a connection until it ends.
pub(in crate::proxy) fn serve(accepted: Accepted) -> impl Future<Output = ()> {
    let Accepted { worker, pod, socket, target, share, counted, .. } = accepted;
    let mut registration = worker.connections.register(counted, None);
    async move {
        let _share = share;
        let node = worker.node.clone();
        let mut connection =
            Connection { node, pod, server: target, client: socket, upstream: None };
        tokio::select! {
            _ = &mut registration.closed => {}
            ended = connection.serve() => {
                if let Err(error) = ended {
                    tracing::debug!(pod = %connection.pod.name, %error, "queries over TCP ended");
                }
            }
        }
    }
}

// === impl Connection ===

impl Connection {
    async fn serve(&mut self) -> Result<(), Ended> {
        loop {
            let query = match timeout(CLIENT_IDLE_TIME, read_message(&mut self.client)).await {
                Ok(Ok(query)) => query,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let Ok(request) = read(&query) else { return Ok(()) };
            let labels = labels(&self.node, &self.pod, &request, QueryProtocol::Tcp);
            let dns = &self.node.metrics.dns;
            dns.asked(&labels);
            let known = match decide(&self.node, &self.pod, &request, usize::from(u16::MAX)) {
                Decision::Answer(answer) => {
                    write_message(&mut self.client, &answer).await?;
                    continue;
                }
                Decision::PassOn { known } => known,
            };
            dns.passed_on(&labels);
            if request.is_conversation() {
                return self.converse(&query).await;
            }
            let started = Instant::now();
            let answer = timeout(ANSWER_TIMEOUT, self.ask(&query)).await;
            let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let took = answer.is_ok().then(|| started.elapsed());
            self.node.metrics.dns.answered(&labels, took);
            let answer = if let Ok(mut answer) = answer {
                if known {
                    known_to_exist(&mut answer);
                }
                answer
            } else {
                self.upstream = None;
                failure(&query).unwrap_or_default()
            };
            write_message(&mut self.client, &answer).await?;
        }
    }

    /// Asks the name server; by a new connection if the last one has ended.
    async fn ask(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        if let Some(mut known) = self.upstream.take() {
            let asked = async {
                write_message(&mut known, query).await?;
                read_message(&mut known).await
            };
            if let Ok(answer) = asked.await {
                self.upstream = Some(known);
                return Ok(answer);
            }
        }
        let mut fresh = self.connect().await?;
        write_message(&mut fresh, query).await?;
        let answer = read_message(&mut fresh).await?;
        self.upstream = Some(fresh);
        Ok(answer)
    }

    /// Leaves the connection to its two ends from this query on.
    async fn converse(&mut self, query: &[u8]) -> Result<(), Ended> {
        let mut upstream = match self.upstream.take() {
            Some(known) => known,
            None => self.connect().await?,
        };
        write_message(&mut upstream, query).await?;
        copy_bidirectional(&mut self.client, &mut upstream).await?;
        Ok(())
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = self.pod.outbound_socket(self.server.ip()).await?;
        upstream::connect(socket, self.server)
            .await
            .map_err(|reason| io::Error::other(reason.to_string()))
    }
}

/// Reads a message, which is preceded by its length.
async fn read_message(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = socket.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    socket.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(socket: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: some clients read no further than the first segment.
    let whole = [&length.to_be_bytes(), message].concat();
    socket.write_all(&whole).await
}
