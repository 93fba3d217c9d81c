//! HTTP/2 connections to endpoints, which requests share.

use std::{cell::Cell, pin::pin, rc::Rc, sync::Arc, time::Instant};

use fairlead_tunnel::hbone::{Alarm, Guarded};
use hyper::{Request, Response, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::{
    Dialler, Free, Key, Lifetime, Pool, Room, UpstreamError, Wanted, broken, drive, is_worn,
};
use crate::{
    balance::{ConnectionPool, Http2Keepalive},
    limits::MAX_INTERIM_ANSWERS,
    proxy::{body::Body, local_executor::LocalExecutor, upstream::Io},
};

/// A connection. It ends when it is let go and its last request has been answered.
#[derive(Debug)]
pub(super) struct Multiplexed {
    requests: http2::SendRequest<Body>,
    load: Rc<Load>,
}

/// What a connection carries.
#[derive(Debug)]
struct Load {
    made: Instant,
    /// Requests that it has carried, or carries.
    requests: Cell<u32>,
    /// Requests that it carries.
    streams: Cell<u32>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    /// As the last request wanted it.
    lifetime: Cell<Lifetime>,
    /// Tells of what the endpoint sent too much of.
    alarm: Rc<Alarm>,
    /// Told of each end.
    released: Arc<Notify>,
    /// Whether the endpoint takes extended CONNECTs; none before it has said so.
    takes_extended_connect: Cell<Option<bool>>,
    introduced: Notify,
}

/// The place of a request on a connection, for as long as it lives.
#[derive(Debug)]
pub(in crate::proxy) struct Stream(Rc<Load>);

/// A connection, and a place on it.
pub(super) struct Place {
    pub(super) requests: http2::SendRequest<Body>,
    pub(super) stream: Stream,
}

// === impl Multiplexed ===

impl Multiplexed {
    /// Returns whether it carries fewer requests than it may at once.
    fn has_place(&self, limits: &ConnectionPool) -> bool {
        self.load.streams.get() < limits.max_concurrent_streams
    }

    /// Takes a place on it.
    fn place(&self, limits: &ConnectionPool) -> Place {
        let (requests, load) = (self.requests.clone(), self.load.clone());
        load.requests.set(load.requests.get().saturating_add(1));
        load.streams.set(load.streams.get().saturating_add(1));
        load.lifetime.set(Lifetime::of(limits));
        Place { requests, stream: Stream(load) }
    }

    /// Returns whether it can be used, and is not to be closed for its age.
    pub(super) fn is_fit(&self, now: Instant) -> bool {
        !self.requests.is_closed() && self.load.is_fit(self.load.lifetime.get(), now)
    }
}

// === impl Load ===

impl Load {
    fn new(alarm: Rc<Alarm>, limits: &ConnectionPool, released: Arc<Notify>) -> Self {
        let now = Instant::now();
        Self {
            made: now,
            requests: Cell::new(0),
            streams: Cell::new(0),
            idle_since: Cell::new(now),
            lifetime: Cell::new(Lifetime::of(limits)),
            alarm,
            released,
            takes_extended_connect: Cell::new(None),
            introduced: Notify::new(),
        }
    }

    /// Notes whether the endpoint takes extended CONNECTs.
    fn introduce(&self, takes_extended_connect: bool) {
        self.takes_extended_connect.set(Some(takes_extended_connect));
        self.introduced.notify_waiters();
    }

    fn is_fit(&self, lifetime: Lifetime, now: Instant) -> bool {
        // One that carries requests is not idle, however long they take.
        let idle_since = if self.streams.get() == 0 { self.idle_since.get() } else { now };
        !lifetime.is_over(self.made, idle_since, now)
    }
}

// === impl Stream ===

impl Stream {
    /// Returns whether the endpoint takes extended CONNECTs, once that is known.
    pub(super) async fn takes_extended_connect(&self) -> bool {
        loop {
            let introduced = self.0.introduced.notified();
            if let Some(takes) = self.0.takes_extended_connect.get() {
                return takes;
            }
            introduced.await;
        }
    }

    /// Returns why a request that was sent has no answer.
    pub(super) fn broken(&self, error: &hyper::Error) -> UpstreamError {
        self.0.alarm.excess().map_or_else(|| broken(error), UpstreamError::Excess)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
        self.0.released.notify_waiters();
    }
}

// === impl Pool ===

impl Pool {
    pub(super) async fn send_http2(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Stream), UpstreamError> {
        let limits = &wanted.cluster.policy().pool;
        let is_worn = self.let_go(&key, limits);
        if let Some(Place { mut requests, stream }) = self.place(&key, limits) {
            match requests.try_send_request(request).await {
                Ok(response) => return Ok((response, stream)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(stream.broken(error.error())),
                },
            }
        }
        let free = Box::pin(self.free_http2(key, dialler, wanted, is_worn));
        let Place { mut requests, stream } = free.await?;
        let response = requests.send_request(request).await;
        Ok((response.map_err(|error| stream.broken(&error))?, stream))
    }

    /// Returns a place for one request, on whatever connection.
    pub(super) async fn place_for_one(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
    ) -> Result<Place, UpstreamError> {
        let limits = &wanted.cluster.policy().pool;
        let is_worn = self.let_go(&key, limits);
        match self.place(&key, limits) {
            Some(place) => Ok(place),
            None => self.free_http2(key, dialler, wanted, is_worn).await,
        }
    }

    /// Returns a place for a request: on a new connection, or else the first that is free.
    async fn free_http2(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
        is_worn: bool,
    ) -> Result<Place, UpstreamError> {
        let _pending = wanted.cluster.pending()?;
        // One that is worn ends with its last request, and makes room then.
        if let Some(room) = self.room(&key, wanted).or(is_worn.then_some(Room(None))) {
            return self.connect_http2(key, room, dialler, wanted).await;
        }
        let place = || self.place(&key, &wanted.cluster.policy().pool);
        match self.wait(&key, wanted, place).await {
            Free::Open(place) => Ok(place),
            Free::Room(room) => self.connect_http2(key, room, dialler, wanted).await,
        }
    }

    /// Makes a connection that the next requests share, unless there is one for them by then.
    async fn connect_http2(
        &self,
        key: Key,
        room: Room,
        dialler: &Dialler,
        wanted: &Wanted,
    ) -> Result<Place, UpstreamError> {
        let open = self.count(&key);
        let io = dialler.connect(wanted).await?;
        let (io, alarm) = Guarded::answers(io, MAX_INTERIM_ANSWERS);
        let (limits, released) = (&wanted.cluster.policy().pool, wanted.backend.released.clone());
        let mut builder = http2::Builder::new(LocalExecutor);
        if let Some(Http2Keepalive { interval, timeout }) = limits.http2_keepalive {
            builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
            builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
        }
        let handshake = builder.handshake(TokioIo::new(io));
        let (requests, connection) = handshake.await.map_err(|error| broken(&error))?;
        let load = Rc::new(Load::new(alarm, limits, released));
        drive(introduced(connection, load.clone()), (room, open), wanted);
        let made = Multiplexed { requests, load };
        let place = made.place(limits);
        let mut connections = self.http2.borrow_mut();
        let known = connections.entry(key).or_default();
        if !known.iter().any(|known| known.has_place(limits)) {
            known.push(made);
        }
        Ok(place)
    }

    /// Lets go of connections that are not to be used any more; returns whether one of them has
    /// served long enough.
    fn let_go(&self, key: &Key, limits: &ConnectionPool) -> bool {
        let mut connections = self.http2.borrow_mut();
        let Some(known) = connections.get_mut(key) else { return false };
        let (lifetime, now) = (Lifetime::of(limits), Instant::now());
        let mut has_worn = false;
        known.retain(|Multiplexed { requests, load }| {
            let is_worn = is_worn(limits, load.requests.get(), load.made);
            has_worn |= is_worn;
            !is_worn && !requests.is_closed() && load.is_fit(lifetime, now)
        });
        has_worn
    }

    /// Takes a place on a connection that is open, if there is one.
    fn place(&self, key: &Key, limits: &ConnectionPool) -> Option<Place> {
        let connections = self.http2.borrow();
        let known = connections.get(key)?.iter();
        let mut known = known.filter(|known| !known.requests.is_closed());
        Some(known.find(|known| known.has_place(limits))?.place(limits))
    }
}

/// Runs a connection, and notes what the settings of the endpoint allow.
async fn introduced(
    connection: http2::Connection<TokioIo<Guarded<Box<dyn Io>>>, Body, LocalExecutor>,
    load: Rc<Load>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = load.alarm.introduced() => None,
    };
    load.introduce(connection.is_extended_connect_protocol_enabled());
    match ended {
        Some(ended) => ended,
        None => connection.await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_ends_when_it_is_old_or_nobody_has_used_it_for_long() {
        let limits = ConnectionPool {
            idle_timeout: Some(5 * SECOND),
            max_connection_duration: Some(20 * SECOND),
            ..ConnectionPool::default()
        };
        let (_, alarm) = Guarded::answers((), MAX_INTERIM_ANSWERS);
        let load = Rc::new(Load::new(alarm, &limits, Arc::default()));
        let is_fit = |after: u32| load.is_fit(Lifetime::of(&limits), load.made + after * SECOND);
        assert!(is_fit(4) && !is_fit(6));
        load.streams.set(1);
        assert!(is_fit(19) && !is_fit(21));
        drop(Stream(load.clone()));
        assert_eq!(load.streams.get(), 0);
    }
}
