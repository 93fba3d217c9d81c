//! Bodies of requests that may have to be sent again.

use std::{
    cell::RefCell,
    error::Error as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::progress::Progress;
use crate::{limits::MAX_KEPT_BYTES, telemetry::Messages};

/// A body of which what has come is kept. Clones read it from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Replay(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    incoming: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    received: u64,
    /// None if it is not made of messages.
    messages: Option<Messages>,
    /// Whether all of it has come.
    ended: bool,
    /// Told when it has.
    over: Rc<Notify>,
    /// When something of it came last.
    last: Instant,
    /// Whether some of what has come is gone.
    overflown: bool,
    /// Why the rest will not come, if it will not.
    broken: Option<Broken>,
    progress: Rc<Progress>,
    /// Counts readings: only the last one goes on.
    turn: u32,
}

/// Why the rest of a body will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client went away, or reset the stream.
    Left,
    /// What came cannot be part of it.
    Violation,
}

/// One reading of such a body.
#[derive(Debug)]
pub(super) struct Reading {
    of: Replay,
    next: usize,
    turn: u32,
}

// === impl Replay ===

impl Replay {
    /// Reads a body as it comes, and has `progress` told of it.
    pub(super) fn new(incoming: Incoming, is_grpc: bool, progress: &Rc<Progress>) -> Self {
        let ended = incoming.is_end_stream();
        if ended {
            progress.is_received();
        }
        Self(Rc::new(RefCell::new(State {
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            received: 0,
            messages: is_grpc.then(Messages::default),
            ended,
            over: Rc::default(),
            last: Instant::now(),
            overflown: false,
            broken: None,
            progress: progress.clone(),
            turn: 0,
        })))
    }

    /// Reads it from its beginning. An earlier reading, of a try that was given up, ends.
    pub(super) fn read(&self) -> Reading {
        let mut state = self.0.borrow_mut();
        state.turn += 1;
        Reading { of: self.clone(), next: 0, turn: state.turn }
    }

    /// Returns whether it can be read from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        !self.0.borrow().overflown
    }

    /// Returns why the rest of it will not come, if it will not.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.0.borrow().broken
    }

    /// Returns whether all of it has come.
    pub(super) fn has_ended(&self) -> bool {
        self.0.borrow().ended
    }

    /// Waits until nothing of it has come for this long since `begun`, whether there is more to come
    /// or not.
    pub(super) async fn silence(&self, begun: Instant, limit: Duration) {
        loop {
            let last = self.0.borrow().last;
            sleep_until(last.max(begun) + limit).await;
            if self.0.borrow().last == last {
                return;
            }
        }
    }

    /// Waits until all of it has come, and for this long since then and since `begun`.
    pub(super) async fn elapse(self, begun: Instant, limit: Duration) {
        let over = self.0.borrow().over.clone();
        loop {
            let ended = over.notified();
            if self.0.borrow().ended {
                break;
            }
            ended.await;
        }
        self.silence(begun, limit).await;
    }

    /// Returns how many bytes have come.
    pub(super) fn received(&self) -> u64 {
        self.0.borrow().received
    }

    /// Returns how many messages of gRPC have come.
    pub(super) fn messages(&self) -> u64 {
        self.0.borrow().messages.map_or(0, Messages::count)
    }

    /// Returns all of it, if it has all come and is all there.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let state = self.0.borrow();
        (state.ended && !state.overflown).then(|| state.kept.concat().into())
    }
}

// === impl State ===

impl State {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.progress.received();
        self.last = Instant::now();
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.received += data.len() as u64;
                    if let Some(messages) = &mut self.messages {
                        messages.advance(data);
                    }
                    self.keep(data);
                } else {
                    // Trailers are not kept.
                    self.overflown = true;
                }
                self.ended = self.incoming.is_end_stream();
            }
            Some(Err(error)) => {
                (self.overflown, self.broken) = (true, Some(Broken::from(error)));
            }
            None => self.ended = true,
        }
        if self.ended || self.broken.is_some() {
            self.progress.is_received();
            self.over.notify_waiters();
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &Bytes) {
        self.kept_bytes += data.len();
        if self.overflown || self.kept_bytes > MAX_KEPT_BYTES {
            self.overflown = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(data.clone());
        }
    }
}

// === impl Broken ===

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let source = error.source();
        let invalid = source.and_then(|source| source.downcast_ref::<io::Error>());
        let invalid = invalid.map(io::Error::kind);
        let is_invalid =
            matches!(invalid, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
        let stream = source.and_then(|source| source.downcast_ref::<h2::Error>());
        // Neither reset by the client nor lost with its connection, but refused by the library.
        let is_refused = stream.is_some_and(|error| !error.is_remote() && !error.is_io());
        if is_invalid || is_refused { Self::Violation } else { Self::Left }
    }
}

// === impl Reading ===

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let reading = &mut *self;
        let mut state = reading.of.0.borrow_mut();
        if state.turn != reading.turn {
            return Poll::Ready(None);
        }
        if let Some(kept) = state.kept.get(reading.next) {
            reading.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(state.poll(cx));
        reading.next += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.of.0.borrow();
        state.ended && self.next >= state.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.of.0.borrow();
        if self.next == 0 && state.received == 0 {
            return state.incoming.size_hint();
        }
        if !state.ended {
            return SizeHint::default();
        }
        let rest = state.kept.iter().skip(self.next).map(Bytes::len).sum::<usize>();
        SizeHint::with_exact(rest as u64)
    }
}
