//! Passes queries on to name servers, as datagrams from inside the pod.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fairlead_ebpf::datagrams::DNS_PORT;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use crate::{
    dns::{Id, is_answer},
    limits::dns::{ANSWER_TIMEOUT, MAX_IDLE_SOCKETS, MAX_SERVERS, MAX_SOCKET_USES},
    proxy::pod::Pod,
};

/// Longest datagram, in bytes.
const MAX_DATAGRAM: usize = 65_535;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Unanswered {
    /// There is no socket, or nobody at the other end.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The name server says nothing.
    #[error("the name server does not answer")]
    Timeout,
}

/// The ways from one pod to its name servers.
#[derive(Debug)]
pub(in crate::proxy) struct Upstreams {
    pod: Arc<Pod>,
    idle: Mutex<HashMap<IpAddr, Vec<Upstream>>>,
}

/// A socket connected to a name server; none of its queries is open.
#[derive(Debug)]
struct Upstream {
    socket: UdpSocket,
    uses: u32,
    since: Instant,
}

// === impl Upstreams ===

impl Upstreams {
    pub(in crate::proxy) fn new(pod: Arc<Pod>) -> Self {
        Self { pod, idle: Mutex::default() }
    }

    /// Returns the answer of `server` to `query`, which may be up to `payload` bytes long.
    pub(in crate::proxy) async fn ask(
        &self,
        mut query: Vec<u8>,
        server: IpAddr,
        payload: usize,
    ) -> Result<Vec<u8>, Unanswered> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let asked = async {
            let mut upstream = self.take(server).await?;
            upstream.uses += 1;
            let own = Id::of(&query).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            // The client's may be easy to guess.
            Id(rand::random()).put(&mut query);
            let mut answer = upstream.ask(&query, payload).await?;
            own.put(&mut answer);
            self.put(server, upstream);
            Ok(answer)
        };
        timeout_at(deadline, asked).await.unwrap_or(Err(Unanswered::Timeout))
    }

    /// Closes sockets that nobody has used for `time`.
    pub(super) fn tidy(&self, time: Duration) {
        let now = Instant::now();
        self.idle().retain(|_, idle| {
            idle.retain(|upstream| now.duration_since(upstream.since) < time);
            !idle.is_empty()
        });
    }

    async fn take(&self, server: IpAddr) -> io::Result<Upstream> {
        let known = self.idle().get_mut(&server).and_then(Vec::pop);
        if let Some(known) = known {
            return Ok(known);
        }
        let socket = self.pod.datagram_socket(server).await?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.connect((server, DNS_PORT)).await?;
        Ok(Upstream { socket, uses: 0, since: Instant::now() })
    }

    fn put(&self, server: IpAddr, upstream: Upstream) {
        if upstream.uses >= MAX_SOCKET_USES {
            return;
        }
        let mut idle = self.idle();
        if idle.len() >= MAX_SERVERS && !idle.contains_key(&server) {
            return;
        }
        let idle = idle.entry(server).or_default();
        if idle.len() < MAX_IDLE_SOCKETS {
            idle.push(Upstream { since: Instant::now(), ..upstream });
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<Upstream>>> {
        // Every change of the map leaves it whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Upstream ===

impl Upstream {
    /// Sends a query and waits for its answer; what else arrives is none.
    async fn ask(&self, query: &[u8], payload: usize) -> io::Result<Vec<u8>> {
        self.socket.send(query).await?;
        let mut answer = Vec::with_capacity(payload.min(MAX_DATAGRAM));
        loop {
            answer.clear();
            self.socket.recv_buf(&mut answer).await?;
            if is_answer(&answer, query) {
                return Ok(answer);
            }
        }
    }
}
