//! Bodies of answers.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::Stream;

/// The body of an endpoint's answer, which holds the place of its request.
#[derive(Debug)]
pub(in crate::proxy) struct Received {
    body: Incoming,
    /// None if the request has the connection for itself.
    _stream: Option<Stream>,
}

// === impl Received ===

impl Received {
    pub(super) fn new(body: Incoming, stream: Option<Stream>) -> Self {
        Self { body, _stream: stream }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
