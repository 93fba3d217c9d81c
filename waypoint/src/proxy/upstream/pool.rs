//! HTTP connections to endpoints that are used again.

mod switch;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;

pub(in crate::proxy) use self::switch::{Switch, Switched};
use super::{Dialler, UpstreamError, Version, Wanted};
use crate::{
    balance::{Cluster, Overflow, Permit},
    mesh::Way,
    proxy::{body::Body, local_executor::LocalExecutor, worker::spawn},
};

/// Connections without a request that are kept to an endpoint; more are closed.
const MAX_IDLE_CONNECTIONS: usize = 128;

/// Time after which a connection without a request is closed; servers close theirs after a minute or
/// more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// What a connection belongs to: limits hold for each backend on its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    way: Way,
    backend: Arc<str>,
}

/// Connections of a thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    http1: Rc<RefCell<HashMap<Key, VecDeque<Idle>>>>,
    http2: RefCell<HashMap<Key, http2::SendRequest<Body>>>,
    open: Counts,
}

/// How many connections there are.
type Counts = Rc<RefCell<HashMap<Key, usize>>>;

/// Leave to make a connection, with its place among those that there may be, if it needs one.
struct Room(#[expect(dead_code, reason = "held, and never looked at")] Option<Permit>);

/// A connection that counts.
struct Open {
    counts: Counts,
    key: Key,
}

/// A connection that waits for a request.
#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// An HTTP/1 connection.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Body>,
    made: Instant,
    /// Requests that it has carried.
    requests: u32,
}

/// A way to send a request that has waited for one.
enum Free {
    /// Over a connection that is open.
    Idle(Connection),
    /// Over a new one.
    Room(Room),
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

// === impl Pool ===

impl Pool {
    /// Sends a request to an endpoint.
    pub(super) async fn send(
        &self,
        dialler: &Dialler,
        wanted: &Wanted,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let (way, backend) = (wanted.way.clone(), wanted.backend.name.clone());
        let key = Key { address: wanted.address, way, backend };
        if let Some(switch) = &wanted.switch {
            return self.switch(&key, dialler, wanted, switch, request).await;
        }
        match wanted.version {
            Version::Http1 => self.send_http1(key, dialler, wanted, request).await,
            Version::Http2 => self.send_http2(key, dialler, wanted, request).await,
        }
    }

    async fn send_http1(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        // One that waits may just have been closed by the endpoint: then the request comes back.
        while let Some(mut connection) = self.idle(&key, &wanted.cluster) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(key, wanted, connection);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Reset(error.error().to_string())),
                },
            }
        }
        let mut connection = match self.room(&key, wanted) {
            Some(room) => self.connect_http1(&key, dialler, wanted, room).await?,
            None => match self.wait(&key, wanted).await? {
                Free::Idle(connection) => connection,
                Free::Room(room) => self.connect_http1(&key, dialler, wanted, room).await?,
            },
        };
        let sent = connection.sender.send_request(request).await;
        let response = sent.map_err(|error| broken(&error))?;
        self.keep(key, wanted, connection);
        Ok(response)
    }

    async fn connect_http1(
        &self,
        key: &Key,
        dialler: &Dialler,
        wanted: &Wanted,
        room: Room,
    ) -> Result<Connection, UpstreamError> {
        let open = self.count(key);
        let io = TokioIo::new(dialler.connect(wanted).await?);
        let (sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
        drive(connection, (room, open), wanted);
        Ok(Connection { sender, made: Instant::now(), requests: 0 })
    }

    /// Takes a place for a new connection, if there may be one. The first one to an endpoint always
    /// may, and then has no place: others, to other endpoints, would keep it waiting (as in Envoy).
    fn room(&self, key: &Key, wanted: &Wanted) -> Option<Room> {
        match wanted.cluster.connection() {
            Ok(permit) => Some(Room(Some(permit))),
            Err(_) => (!self.open.borrow().contains_key(key)).then_some(Room(None)),
        }
    }

    /// Counts a connection for as long as the value lives.
    fn count(&self, key: &Key) -> Open {
        *self.open.borrow_mut().entry(key.clone()).or_default() += 1;
        Open { counts: self.open.clone(), key: key.clone() }
    }

    /// Waits until a connection is free or another one may be made.
    async fn wait(&self, key: &Key, wanted: &Wanted) -> Result<Free, UpstreamError> {
        let _pending = wanted.cluster.pending()?;
        loop {
            let released = wanted.backend.released.notified();
            if let Some(connection) = self.idle(key, &wanted.cluster) {
                return Ok(Free::Idle(connection));
            }
            if let Some(room) = self.room(key, wanted) {
                return Ok(Free::Room(room));
            }
            released.await;
        }
    }

    async fn send_http2(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let known = self.http2.borrow().get(&key).cloned();
        if let Some(mut sender) = known.filter(|sender| !sender.is_closed()) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Reset(error.error().to_string())),
                },
            }
        }
        let room = self.room(&key, wanted).ok_or(Overflow::Connections)?;
        let open = self.count(&key);
        let io = TokioIo::new(dialler.connect(wanted).await?);
        let handshake = http2::Builder::new(LocalExecutor).handshake(io);
        let (mut sender, connection) = handshake.await.map_err(|error| broken(&error))?;
        drive(connection, (room, open), wanted);
        self.http2.borrow_mut().insert(key, sender.clone());
        sender.send_request(request).await.map_err(|error| broken(&error))
    }

    /// Takes a connection that waits, the one that was used last.
    fn idle(&self, key: &Key, cluster: &Cluster) -> Option<Connection> {
        let mut idle = self.http1.borrow_mut();
        let waiting = idle.get_mut(key)?;
        let longest = longest_pause(cluster);
        while let Some(Idle { connection, since }) = waiting.pop_back() {
            if connection.sender.is_ready() && since.elapsed() < longest {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, once the answer of this one has been passed on. One
    /// that has served long enough is closed.
    fn keep(&self, key: Key, wanted: &Wanted, mut connection: Connection) {
        connection.requests += 1;
        let limits = &wanted.cluster.policy().pool;
        let is_worn = limits.max_requests_per_connection.is_some_and(|n| connection.requests >= n)
            || limits.max_connection_duration.is_some_and(|time| connection.made.elapsed() >= time);
        if is_worn {
            return;
        }
        let (pool, released) = (Rc::downgrade(&self.http1), wanted.backend.released.clone());
        spawn(async move {
            if connection.sender.ready().await.is_err() {
                return;
            }
            let Some(pool) = pool.upgrade() else { return };
            let mut pool = pool.borrow_mut();
            let waiting = pool.entry(key).or_default();
            waiting.push_back(Idle { connection, since: Instant::now() });
            if waiting.len() > MAX_IDLE_CONNECTIONS {
                waiting.pop_front();
            }
            released.notify_waiters();
        });
    }

    /// Closes connections that wait too long, and forgets those that are closed.
    pub(super) fn sweep(&self) {
        self.http1.borrow_mut().retain(|_, waiting| {
            waiting.retain(|idle| {
                !idle.connection.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT
            });
            !waiting.is_empty()
        });
        self.http2.borrow_mut().retain(|_, sender| !sender.is_closed());
    }
}

/// Returns how long a connection may wait for a request.
fn longest_pause(cluster: &Cluster) -> Duration {
    cluster.policy().pool.idle_timeout.map_or(IDLE_TIMEOUT, |limit| limit.min(IDLE_TIMEOUT))
}

/// Runs a connection until it ends; it counts for as long.
fn drive(
    connection: impl Future<Output = hyper::Result<()>> + 'static,
    places: (Room, Open),
    wanted: &Wanted,
) {
    let released = wanted.backend.released.clone();
    spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an endpoint broken");
        }
        drop(places);
        released.notify_waiters();
    });
}

fn broken(error: &hyper::Error) -> UpstreamError {
    UpstreamError::Reset(error.to_string())
}
