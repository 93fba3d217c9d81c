//! A connection of a client that speaks HTTP/2, which is told to calm down if it overdoes it.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use fairlead_tunnel::hbone::{Alarm, Excess, Guarded};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

/// Time to take leave of a client, which may not read.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that the library serves, and that is still at hand when the library is dropped.
#[derive(Debug)]
pub(super) struct Calming<S>(Rc<RefCell<Guarded<S>>>);

/// The other hold of it.
#[derive(Debug)]
pub(super) struct Watch<S> {
    connection: Calming<S>,
    alarm: Rc<Alarm>,
}

// === impl Calming ===

impl<S> Calming<S> {
    pub(super) fn new(stream: S) -> (Self, Watch<S>) {
        let (guarded, alarm) = Guarded::requests(stream);
        let shared = Rc::new(RefCell::new(guarded));
        (Self(shared.clone()), Watch { connection: Self(shared), alarm })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Calming<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calming<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

// === impl Watch ===

impl<S: AsyncWrite + Unpin> Watch<S> {
    /// Waits until the client has sent too much of something.
    pub(super) async fn excess(&self) -> Excess {
        self.alarm.raised().await
    }

    /// Tells the client to calm down, once the library is dropped, and ends the connection.
    pub(super) async fn take_leave(self) {
        let farewell = self.connection.0.borrow().farewell();
        let farewell = farewell.as_ref().map_or(&[][..], |farewell| farewell);
        take_leave(self.connection, farewell).await;
    }
}

/// Ends a connection after some last words.
pub(super) async fn take_leave(mut connection: impl AsyncWrite + Unpin, farewell: &[u8]) {
    let leave = async {
        connection.write_all(farewell).await?;
        poll_fn(|cx| Pin::new(&mut connection).poll_shutdown(cx)).await
    };
    // A client that does not read, or that is gone, does without.
    let _ = timeout(FAREWELL_TIMEOUT, leave).await;
}
