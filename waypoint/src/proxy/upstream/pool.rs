//! HTTP connections to endpoints that are used again.

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

use super::{Dialler, UpstreamError, Version, Wanted};
use crate::{
    balance::Permit,
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
}

/// A connection that waits for a request.
#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

/// A way to send a request that has waited for one.
enum Free {
    /// Over a connection that is open.
    Idle(http1::SendRequest<Body>),
    /// Over a new one.
    Room(Permit),
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
        while let Some(mut sender) = self.idle(&key) {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(key, wanted, sender);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Reset(error.error().to_string())),
                },
            }
        }
        let permit = match wanted.cluster.connection() {
            Ok(permit) => permit,
            Err(_) => match self.wait(&key, wanted).await? {
                Free::Idle(mut sender) => {
                    let response =
                        sender.send_request(request).await.map_err(|error| broken(&error))?;
                    self.keep(key, wanted, sender);
                    return Ok(response);
                }
                Free::Room(permit) => permit,
            },
        };
        let io = TokioIo::new(dialler.connect(wanted).await?);
        let (mut sender, connection) =
            http1::handshake(io).await.map_err(|error| broken(&error))?;
        drive(connection, permit, wanted);
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        self.keep(key, wanted, sender);
        Ok(response)
    }

    /// Waits until a connection is free or another one may be made.
    async fn wait(&self, key: &Key, wanted: &Wanted) -> Result<Free, UpstreamError> {
        let _pending = wanted.cluster.pending()?;
        loop {
            let released = wanted.backend.released.notified();
            if let Some(sender) = self.idle(key) {
                return Ok(Free::Idle(sender));
            }
            if let Ok(permit) = wanted.cluster.connection() {
                return Ok(Free::Room(permit));
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
        let permit = wanted.cluster.connection()?;
        let io = TokioIo::new(dialler.connect(wanted).await?);
        let handshake = http2::Builder::new(LocalExecutor).handshake(io);
        let (mut sender, connection) = handshake.await.map_err(|error| broken(&error))?;
        drive(connection, permit, wanted);
        self.http2.borrow_mut().insert(key, sender.clone());
        sender.send_request(request).await.map_err(|error| broken(&error))
    }

    /// Takes a connection that waits, the one that was used last.
    fn idle(&self, key: &Key) -> Option<http1::SendRequest<Body>> {
        let mut idle = self.http1.borrow_mut();
        let waiting = idle.get_mut(key)?;
        while let Some(Idle { sender, since }) = waiting.pop_back() {
            if sender.is_ready() && since.elapsed() < IDLE_TIMEOUT {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection for the next request, once the answer of this one has been passed on.
    fn keep(&self, key: Key, wanted: &Wanted, mut sender: http1::SendRequest<Body>) {
        let (pool, released) = (Rc::downgrade(&self.http1), wanted.backend.released.clone());
        spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let Some(pool) = pool.upgrade() else { return };
            let mut pool = pool.borrow_mut();
            let waiting = pool.entry(key).or_default();
            waiting.push_back(Idle { sender, since: Instant::now() });
            if waiting.len() > MAX_IDLE_CONNECTIONS {
                waiting.pop_front();
            }
            released.notify_waiters();
        });
    }

    /// Closes connections that wait too long, and forgets those that are closed.
    pub(super) fn sweep(&self) {
        self.http1.borrow_mut().retain(|_, waiting| {
            waiting.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT);
            !waiting.is_empty()
        });
        self.http2.borrow_mut().retain(|_, sender| !sender.is_closed());
    }
}

/// Runs a connection until it ends; it counts for as long.
fn drive(
    connection: impl Future<Output = hyper::Result<()>> + 'static,
    permit: Permit,
    wanted: &Wanted,
) {
    let released = wanted.backend.released.clone();
    spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an endpoint broken");
        }
        drop(permit);
        released.notify_waiters();
    });
}

fn broken(error: &hyper::Error) -> UpstreamError {
    UpstreamError::Reset(error.to_string())
}
