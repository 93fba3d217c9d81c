//! Queries as datagrams.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use fairlead_sys::datagram::{Arrival, answer, receive};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{Semaphore, watch},
    time::interval,
};

use super::{
    decide::{Decision, decide, labels},
    upstream::Upstreams,
};
use crate::{
    dns::{Cache, Request, failure, known_to_exist, read},
    limits::dns::{MAX_QUERIES, MAX_QUERY_BYTES, SOCKET_IDLE_TIME},
    link::resolver::ResolverSockets,
    proxy::{node::Node, pod::Pod},
    telemetry::metrics::{QueryLabels, QueryProtocol},
};

/// What the tasks of one pod share.
#[derive(Debug)]
struct Server {
    node: Arc<Node>,
    pod: Arc<Pod>,
    upstreams: Upstreams,
    cache: Mutex<Cache>,
    answers_v4: OwnedFd,
    answers_v6: OwnedFd,
    waiting: Arc<Semaphore>,
    full: Counter,
    cache_full: Counter,
    lost: Counter,
}

/// Counts a query as open until it is answered: the process waits for it at its end.
struct Open(Arc<Node>);

/// Answers the queries of a pod until `stop` says otherwise; those that have arrived by then, too.
pub(super) async fn serve(
    node: Arc<Node>,
    pod: Arc<Pod>,
    sockets: ResolverSockets,
    mut stop: watch::Receiver<()>,
) {
    let ResolverSockets { queries, answers_v4, answers_v6 } = sockets;
    let queries = match UdpSocket::from_std(queries.into()) {
        Ok(queries) => queries,
        Err(error) => {
            tracing::error!(pod = %pod.name, %error, "cannot resolve names");
            return;
        }
    };
    let server = Arc::new(Server {
        upstreams: Upstreams::new(pod.clone()),
        cache: Mutex::default(),
        answers_v4,
        answers_v6,
        waiting: Arc::new(Semaphore::new(MAX_QUERIES)),
        full: node.metrics.limit("dns_queries"),
        cache_full: node.metrics.limit("dns_cache"),
        lost: node.metrics.limit("dns_answers"),
        node,
        pod,
    });
    let mut buffer = vec![0; MAX_QUERY_BYTES];
    let mut tidy = interval(SOCKET_IDLE_TIME);
    loop {
        tokio::select! {
            ready = queries.readable() => {
                if ready.is_err() {
                    return;
                }
                let read = |buffer: &mut _| {
                    queries.try_io(Interest::READABLE, || receive(&queries, buffer))
                };
                server.read_all(read, &mut buffer);
            }
            _ = tidy.tick() => {
                server.upstreams.tidy(SOCKET_IDLE_TIME);
                server.cache().tidy(Instant::now());
            }
            _ = stop.changed() => break,
        }
        // One pod among others of this thread.
        tokio::task::yield_now().await;
    }
    // The kernel is asked itself: the runtime may not have heard of the last ones.
    while !server.read_all(|buffer| receive(&queries, buffer), &mut buffer) {}
}

// === impl Server ===

impl Server {
    /// Reads what has arrived, but not without end; returns whether that was all.
    fn read_all(
        self: &Arc<Self>,
        read: impl Fn(&mut [u8]) -> io::Result<Arrival>,
        buffer: &mut [u8],
    ) -> bool {
        for _ in 0..MAX_QUERIES {
            match read(buffer) {
                Ok(arrival) => self.take(buffer, arrival),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // An error that a peer caused is reported once, and says nothing of the rest.
                Err(error) => {
                    tracing::debug!(pod = %self.pod.name, %error, "cannot read a query");
                }
            }
        }
        false
    }

    fn take(self: &Arc<Self>, buffer: &[u8], Arrival { length, client, server }: Arrival) {
        let Some(query) = buffer.get(..length) else {
            self.lost.inc();
            return;
        };
        // Nobody waits for an answer to what is no query.
        let Ok(request) = read(query) else { return };
        let labels = labels(&self.node, &self.pod, &request, QueryProtocol::Udp);
        self.node.metrics.dns.asked(&labels);
        let known = match decide(&self.node, &self.pod, &request, request.payload()) {
            Decision::Answer(answer) => return self.send(&answer, client, server),
            Decision::PassOn { known } => known,
        };
        let kept = request.may_be_kept().then(|| self.cache().get(server, query, Instant::now()));
        if let Some(answer) = kept.flatten() {
            self.node.metrics.dns.found(&labels);
            return self.pass_back(answer, known, client, server);
        }
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            self.full.inc();
            return self.fail(query, client, server);
        };
        let (this, query, open) = (self.clone(), query.to_vec(), Open::new(&self.node));
        tokio::spawn(async move {
            let (_place, _open) = (place, open);
            this.pass_on((query, request), known, labels, client, server).await;
        });
    }

    async fn pass_on(
        &self,
        (query, request): (Vec<u8>, Request),
        known: bool,
        labels: QueryLabels,
        client: SocketAddr,
        server: IpAddr,
    ) {
        self.node.metrics.dns.passed_on(&labels);
        let started = Instant::now();
        let answer = self.upstreams.ask(query.clone(), server, request.payload()).await;
        self.node.metrics.dns.answered(&labels, answer.is_ok().then(|| started.elapsed()));
        match answer {
            Ok(answer) => {
                if request.may_be_kept() {
                    self.keep(&query, &answer, server);
                }
                self.pass_back(answer, known, client, server);
            }
            Err(error) => {
                tracing::debug!(target: "dns", pod = %self.pod.name, %server, %error, "not answered");
                self.fail(&query, client, server);
            }
        }
    }

    fn keep(&self, query: &[u8], answer: &[u8], server: IpAddr) {
        if self.cache().put(server, query, answer, Instant::now()).is_err() {
            self.cache_full.inc();
        }
    }

    /// Sends what a name server said.
    fn pass_back(&self, mut answer: Vec<u8>, known: bool, client: SocketAddr, server: IpAddr) {
        if known {
            known_to_exist(&mut answer);
        }
        self.send(&answer, client, server);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Every change of the cache leaves it whole.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, query: &[u8], client: SocketAddr, server: IpAddr) {
        if let Some(answer) = failure(query) {
            self.send(&answer, client, server);
        }
    }

    fn send(&self, message: &[u8], client: SocketAddr, server: IpAddr) {
        let socket = if server.is_ipv4() { &self.answers_v4 } else { &self.answers_v6 };
        if let Err(error) = answer(socket, message, client, server) {
            self.lost.inc();
            tracing::debug!(pod = %self.pod.name, %client, %error, "cannot send an answer");
        }
    }
}

// === impl Open ===

impl Open {
    fn new(node: &Arc<Node>) -> Self {
        node.connections.add();
        Self(node.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.remove();
    }
}
