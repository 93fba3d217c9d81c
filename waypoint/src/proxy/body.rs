//! Bodies of requests and responses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::{exchange::Finished, replay::Reading, upstream::Received};

/// A body that is passed on, or one that is made here.
#[derive(Debug)]
pub(super) enum Body {
    /// As it comes.
    Passed(Received),
    /// As it comes, kept in case that it has to be sent again.
    Kept(Reading),
    /// In one piece; none once it is sent.
    Made(Option<Bytes>),
}

/// The body of a response; the exchange is over with it.
pub(super) struct ResponseBody {
    body: Body,
    /// None if the exchange goes on without it.
    finished: Option<Finished>,
    limit: Option<TimeLimit>,
}

/// Ends when the rest of an answer has to have been sent.
pub(super) type TimeLimit = Pin<Box<dyn Future<Output = ()>>>;

/// Why the rest of an answer is not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It did not come.
    #[error(transparent)]
    Lost(#[from] hyper::Error),
    /// It did not come in time.
    #[error("the answer took longer than its route allows")]
    Late,
}

// === impl Body ===

impl Body {
    /// Returns a body of text; none if it is empty.
    pub(super) fn of(content: impl Into<Bytes>) -> Self {
        Self::Made(Some(content.into()).filter(|content| !content.is_empty()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Passed(body) => Pin::new(body).poll_frame(cx),
            Self::Kept(body) => Pin::new(body).poll_frame(cx),
            Self::Made(content) => Poll::Ready(content.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passed(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
            Self::Made(content) => content.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passed(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
            Self::Made(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, Bytes::len) as u64)
            }
        }
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    /// Has `finished` told of what is sent until `limit`.
    pub(super) fn new(body: Body, finished: Finished, limit: Option<TimeLimit>) -> Self {
        Self { body, finished: Some(finished), limit }
    }

    /// Returns the empty body of an exchange that goes on in another protocol.
    pub(super) fn of_upgrade() -> Self {
        Self { body: Body::of(""), finished: None, limit: None }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let response = &mut *self;
        let Some(finished) = &mut response.finished else { return Poll::Ready(None) };
        if let Some(limit) = &mut response.limit
            && limit.as_mut().poll(cx).is_ready()
        {
            finished.late();
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        let polled = Pin::new(&mut response.body).poll_frame(cx);
        if polled.is_pending() {
            finished.waits();
        }
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                finished.sent(frame);
                if response.body.is_end_stream() {
                    finished.completed();
                }
            }
            Some(Err(_)) => finished.broken(),
            None => finished.completed(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Lost)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
