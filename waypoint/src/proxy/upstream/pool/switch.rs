//! Connections to endpoints on which another protocol is spoken once the endpoint has agreed.

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Parts},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{Notify, oneshot},
};

use super::{Dialler, Free, Key, Open, Pool, Room, Stream, UpstreamError, Wanted, broken};
use crate::proxy::{body::Body, prefixed::Prefixed, upstream::Io, worker::spawn};

/// Where the connection is put once the endpoint has agreed.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Switch(Rc<RefCell<Option<Switched>>>);

/// A connection on which HTTP is over.
pub(in crate::proxy) struct Switched {
    pub(in crate::proxy) io: Prefixed<Box<dyn Io>>,
    /// For as long as it lasts.
    pub(in crate::proxy) held: Held,
}

/// What is held for as long as another protocol is spoken.
#[expect(dead_code, reason = "held, and never looked at")]
pub(in crate::proxy) enum Held {
    /// A connection.
    Places(Places),
    /// A stream of a connection.
    Stream(Stream),
}

/// The places of a connection among those that there may be; whoever waits for one is told when it is
/// free.
pub(in crate::proxy) struct Places {
    taken: Option<(Room, Open)>,
    released: Arc<Notify>,
}

// === impl Switch ===

impl Switch {
    /// Takes the connection, if the endpoint has agreed.
    pub(in crate::proxy) fn take(&self) -> Option<Switched> {
        self.0.borrow_mut().take()
    }

    pub(super) fn put(&self, switched: Switched) {
        *self.0.borrow_mut() = Some(switched);
    }
}

// === impl Switched ===

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

// === impl Places ===

impl Drop for Places {
    fn drop(&mut self) {
        self.taken = None;
        self.released.notify_waiters();
    }
}

// === impl Pool ===

impl Pool {
    /// Sends a request for another protocol, over a connection of its own that no other request gets:
    /// what each side holds for the end of HTTP on it need not be the same.
    pub(super) async fn switch(
        &self,
        key: &Key,
        dialler: &Dialler,
        wanted: &Wanted,
        switch: &Switch,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let pending = wanted.cluster.pending()?;
        let room = self.room_of_its_own(key, wanted).await;
        let released = wanted.backend.released.clone();
        let places = Places { taken: Some((room, self.count(key))), released };
        let io = TokioIo::new(dialler.connect(wanted).await?);
        let (mut sender, connection) =
            http1::handshake(io).await.map_err(|error| broken(&error))?;
        drop(pending);
        let (end, ended) = oneshot::channel();
        spawn(async move {
            match connection.without_shutdown().await {
                Ok(parts) => {
                    // An endpoint that has not agreed has answered, and that was all.
                    if let Err((parts, _places)) = end.send((parts, places)) {
                        let _ = parts.io.into_inner().shutdown().await;
                    }
                }
                Err(error) => tracing::debug!(%error, "connection to an endpoint broken"),
            }
        });
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let lost = |_| UpstreamError::Reset("lost in the upgrade".to_owned());
            let (Parts { io, read_buf, .. }, places) = ended.await.map_err(lost)?;
            let io = Prefixed::new(read_buf, io.into_inner());
            switch.put(Switched { io, held: Held::Places(places) });
        }
        Ok(response)
    }

    /// Takes a place for a connection, in place of one that waits for a request if need be.
    async fn room_of_its_own(&self, key: &Key, wanted: &Wanted) -> Room {
        loop {
            if let Some(room) = self.room(key, wanted) {
                return room;
            }
            match self.wait(key, wanted, || self.idle(key)).await {
                Free::Room(room) => return room,
                Free::Open(connection) => drop(connection),
            }
        }
    }
}
