//! HTTP connections to endpoints that are used again.

mod begun;
mod extended;
mod multiplexed;
mod switch;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    error::Error as _,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use h2::Reason;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use self::{
    begun::{Begun, Making},
    multiplexed::Multiplexed,
};
pub(in crate::proxy) use self::{
    multiplexed::Stream,
    switch::{Switch, Switched},
};
use super::{Dialler, Opening, Received, UpstreamError, Version, Wanted};
use crate::{
    balance::{ConnectionPool, Permit},
    limits::MAX_IDLE_CONNECTIONS,
    mesh::Way,
    proxy::{body::Body, worker::spawn},
};

/// What a connection belongs to: limits hold for each backend on its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    way: Way,
    backend: Arc<str>,
    opening: Option<Arc<Opening>>,
}

/// Connections of a thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    http1: Rc<RefCell<HashMap<Key, VecDeque<Idle>>>>,
    begun: Begun,
    http2: RefCell<HashMap<Key, Vec<Multiplexed>>>,
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

/// How long connections last; none for ever.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    /// Without a request.
    idle: Option<Duration>,
    /// In all.
    whole: Option<Duration>,
}

/// An HTTP/1 connection.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Body>,
    /// As its last request wanted it.
    lifetime: Lifetime,
    made: Instant,
    /// Requests that it has carried.
    requests: u32,
}

/// A way to send a request that has waited for one.
enum Free<T> {
    /// Over a connection that is open.
    Open(T),
    /// Over a new one.
    Room(Room),
}

// === impl Lifetime ===

impl Lifetime {
    fn of(limits: &ConnectionPool) -> Self {
        Self { idle: limits.idle_timeout, whole: limits.max_connection_duration }
    }

    /// Returns whether a connection is to be closed unless it is in use.
    fn is_over(self, made: Instant, idle_since: Instant, now: Instant) -> bool {
        let has_passed = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
        };
        has_passed(idle_since, self.idle) || has_passed(made, self.whole)
    }
}

// === impl Idle ===

impl Idle {
    fn is_over(&self, now: Instant) -> bool {
        self.connection.lifetime.is_over(self.connection.made, self.since, now)
    }
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
        dialler: &Rc<Dialler>,
        wanted: &Wanted,
        request: Request<Body>,
    ) -> Result<Response<Received>, UpstreamError> {
        let (way, backend) = (wanted.way.clone(), wanted.backend.name.clone());
        let opening = wanted.opening.clone();
        let key = Key { address: wanted.address, way, backend, opening };
        let (response, stream) = match (wanted.version, &wanted.switch) {
            (Version::Http1, None) => (self.send_http1(key, dialler, wanted, request).await?, None),
            (Version::Http1, Some(switch)) => {
                (Box::pin(self.switch(&key, dialler, wanted, switch, request)).await?, None)
            }
            (Version::Http2, None) => {
                let (response, stream) = self.send_http2(key, dialler, wanted, request).await?;
                (response, Some(stream))
            }
            (Version::Http2, Some(switch)) => {
                Box::pin(self.switch_http2(key, dialler, wanted, switch, request)).await?
            }
        };
        Ok(response.map(|body| Received::new(body, stream)))
    }

    async fn send_http1(
        &self,
        key: Key,
        dialler: &Rc<Dialler>,
        wanted: &Wanted,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        // One that waits may just have been closed by the endpoint: then the request comes back.
        while let Some(mut connection) = self.idle(&key) {
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(key, wanted, connection);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.error())),
                },
            }
        }
        // Apart: it is long, and what most requests wait in is copied until they wait.
        let mut connection = Box::pin(self.free_http1(&key, dialler, wanted)).await?;
        let sent = connection.sender.send_request(request).await;
        let response = sent.map_err(|error| broken(&error))?;
        self.keep(key, wanted, connection);
        Ok(response)
    }

    /// Returns a connection for a request: one that was begun for another, a new one, or else the first
    /// that is free.
    async fn free_http1(
        &self,
        key: &Key,
        dialler: &Rc<Dialler>,
        wanted: &Wanted,
    ) -> Result<Connection, UpstreamError> {
        let _pending = wanted.cluster.pending()?;
        if let Some(making) = self.begun.take(key) {
            return self.begun.wait(key, making).await;
        }
        let room = match self.room(key, wanted) {
            Some(room) => room,
            None => match self.wait(key, wanted, || self.idle(key)).await {
                Free::Open(connection) => return Ok(connection),
                Free::Room(room) => room,
            },
        };
        self.begun.wait(key, self.begin_http1(key, dialler, wanted, room)).await
    }

    /// Begins to make a connection.
    fn begin_http1(&self, key: &Key, dialler: &Rc<Dialler>, wanted: &Wanted, room: Room) -> Making {
        let open = self.count(key);
        let (dialler, wanted) = (dialler.clone(), wanted.clone());
        let (give, making) = oneshot::channel();
        spawn(async move {
            // Nobody is left to have it only where the thread is about to end.
            let _ = give.send(connect_http1(&dialler, &wanted, (room, open)).await);
            wanted.backend.released.notify_waiters();
        });
        making
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
    async fn wait<T>(&self, key: &Key, wanted: &Wanted, take: impl Fn() -> Option<T>) -> Free<T> {
        loop {
            let released = wanted.backend.released.notified();
            if let Some(free) = take() {
                return Free::Open(free);
            }
            if let Some(room) = self.room(key, wanted) {
                return Free::Room(room);
            }
            released.await;
        }
    }

    /// Takes a connection that waits, the one that was used last.
    fn idle(&self, key: &Key) -> Option<Connection> {
        let mut idle = self.http1.borrow_mut();
        for connection in self.begun.made(key) {
            put(&mut idle, key.clone(), connection);
        }
        let waiting = idle.get_mut(key)?;
        while let Some(idle) = waiting.pop_back() {
            if idle.connection.sender.is_ready() && !idle.is_over(Instant::now()) {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, once the answer of this one has been passed on. One
    /// that has served long enough is closed.
    fn keep(&self, key: Key, wanted: &Wanted, mut connection: Connection) {
        connection.requests += 1;
        let limits = &wanted.cluster.policy().pool;
        if is_worn(limits, connection.requests, connection.made) {
            return;
        }
        connection.lifetime = Lifetime::of(limits);
        let (pool, released) = (Rc::downgrade(&self.http1), wanted.backend.released.clone());
        spawn(async move {
            if connection.sender.ready().await.is_err() {
                return;
            }
            let Some(pool) = pool.upgrade() else { return };
            put(&mut pool.borrow_mut(), key, connection);
            released.notify_waiters();
        });
    }

    /// Closes connections that wait too long, and forgets those that are closed.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        for (key, connection) in self.begun.all_made() {
            put(&mut self.http1.borrow_mut(), key, connection);
        }
        self.http1.borrow_mut().retain(|_, waiting| {
            waiting.retain(|idle| !idle.connection.sender.is_closed() && !idle.is_over(now));
            !waiting.is_empty()
        });
        self.http2.borrow_mut().retain(|_, known| {
            known.retain(|connection| connection.is_fit(now));
            !known.is_empty()
        });
    }
}

/// Has a connection wait for a request.
fn put(pool: &mut HashMap<Key, VecDeque<Idle>>, key: Key, connection: Connection) {
    let waiting = pool.entry(key).or_default();
    waiting.push_back(Idle { connection, since: Instant::now() });
    if waiting.len() > MAX_IDLE_CONNECTIONS {
        waiting.pop_front();
    }
}

/// Makes a connection, which has these places for as long as it lasts.
async fn connect_http1(
    dialler: &Dialler,
    wanted: &Wanted,
    places: (Room, Open),
) -> Result<Connection, UpstreamError> {
    let io = TokioIo::new(dialler.connect(wanted).await?);
    let (sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
    drive(connection, places, wanted);
    let lifetime = Lifetime::of(&wanted.cluster.policy().pool);
    Ok(Connection { sender, lifetime, made: Instant::now(), requests: 0 })
}

/// Returns whether a connection has served long enough.
fn is_worn(limits: &ConnectionPool, requests: u32, made: Instant) -> bool {
    limits.max_requests_per_connection.is_some_and(|most| requests >= most)
        || limits.max_connection_duration.is_some_and(|time| made.elapsed() >= time)
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
    if error.is_parse() {
        return UpstreamError::Protocol(error.to_string());
    }
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match source.filter(|error| error.is_remote() && error.is_reset()).and_then(h2::Error::reason) {
        Some(Reason::REFUSED_STREAM) => UpstreamError::RefusedStream,
        Some(reason) => UpstreamError::StreamReset(reason),
        None => UpstreamError::Reset(error.to_string()),
    }
}
