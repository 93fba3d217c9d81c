//! The requests of a stream, taken from the body of an HTTP request.
//!
//! Nothing of a request is kept once it is taken up: most that follow the first are short, and a
//! buffer that grew with it would stay for as long as the client does.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body};

use super::{
    limits::{LARGE_REQUEST_BYTES, LARGE_REQUEST_TIME, MAX_LARGE_REQUESTS, MAX_REQUEST_BYTES},
    request::Request,
};
use crate::telemetry::metrics::Metrics;

/// Bytes before a gRPC message: a flag for compression, and the length.
const PREFIX_BYTES: usize = 5;

/// Bounds the large requests of all streams.
#[derive(Clone, Debug)]
pub(super) struct LargeRequests {
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// The requests of a stream.
#[derive(Debug)]
pub(super) struct Requests {
    body: Body,
    /// What has come of the next one, with its prefix.
    received: BytesMut,
    large: LargeRequests,
    /// Held while the next one is large.
    place: Option<Place>,
}

/// A request, with its place among the large ones for as long as it is in memory.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) request: Request,
    _place: Option<Place>,
}

/// A place among the large requests.
#[derive(Debug)]
struct Place {
    /// When the request has to have come.
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

// === impl LargeRequests ===

impl LargeRequests {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_LARGE_REQUESTS)), metrics }
    }

    async fn place(&self) -> Result<Place, Status> {
        if self.places.available_permits() == 0 {
            self.metrics.limit("large_requests").inc();
        }
        let permit = Arc::clone(&self.places).acquire_owned().await;
        // The semaphore is never closed.
        let permit = permit.map_err(|closed| Status::unavailable(closed.to_string()))?;
        Ok(Place { until: Instant::now() + LARGE_REQUEST_TIME, _permit: permit })
    }
}

// === impl Requests ===

impl Requests {
    pub(super) fn new(body: Body, large: LargeRequests) -> Self {
        Self { body, received: BytesMut::new(), large, place: None }
    }

    /// Returns the next request; none if there will be no more. Nothing is lost if this is not
    /// waited for.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, Status> {
        loop {
            if let Some(length) = self.length()? {
                if length > LARGE_REQUEST_BYTES && self.place.is_none() {
                    self.place = Some(self.large.place().await?);
                }
                if let Some(message) = self.take(length) {
                    let request = Request::decode(message).map_err(|error| {
                        Status::internal(format!("this is not a request: {error}"))
                    })?;
                    return Ok(Some(Received { request, _place: self.place.take() }));
                }
            }
            if !self.receive().await? {
                return Ok(None);
            }
        }
    }

    /// Receives more; returns whether there may be more still.
    async fn receive(&mut self) -> Result<bool, Status> {
        let frame = self.body.frame();
        let frame = match &self.place {
            Some(place) => timeout_at(place.until, frame).await.map_err(|_| {
                let seconds = LARGE_REQUEST_TIME.as_secs();
                Status::deadline_exceeded(format!("a request takes longer than {seconds} s"))
            })?,
            None => frame.await,
        };
        match frame {
            Some(Ok(frame)) => {
                // There is nothing for trailers to say.
                if let Ok(data) = frame.into_data() {
                    self.received.extend_from_slice(&data);
                }
                Ok(true)
            }
            // The client has gone.
            Some(Err(status)) if status.code() == Code::Cancelled => Ok(false),
            Some(Err(status)) => Err(status),
            None if self.received.is_empty() => Ok(false),
            None => Err(Status::internal("the stream ends within a request")),
        }
    }

    /// Returns the length of the next request, once it is known.
    fn length(&self) -> Result<Option<usize>, Status> {
        let Some([compressed, length @ ..]) = self.received.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if *compressed != 0 {
            return Err(Status::internal("a request is compressed, which was not agreed on"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_REQUEST_BYTES {
            return Err(Status::out_of_range(format!(
                "a request has {length} bytes; at most {MAX_REQUEST_BYTES} are taken"
            )));
        }
        Ok(Some(length))
    }

    /// Takes the next request, of `length` bytes, once it is complete.
    fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = PREFIX_BYTES + length;
        if let Some(missing) = end.checked_sub(self.received.len())
            && missing > 0
        {
            self.received.reserve(missing);
            return None;
        }
        let mut message = std::mem::take(&mut self.received);
        self.received.extend_from_slice(&message[end..]);
        message.truncate(end);
        message.advance(PREFIX_BYTES);
        Some(message.freeze())
    }
}

#[cfg(test)]
mod tests;
