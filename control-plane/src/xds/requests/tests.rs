use std::convert::Infallible;

use futures_util::{
    FutureExt as _,
    stream::{self, StreamExt as _},
};
use http_body_util::StreamBody;
use hyper::body::Frame;
use mesh_api::proto::discovery::DeltaDiscoveryRequest;
use prost::Message as _;

use super::*;

fn framed(type_url: &str) -> Vec<u8> {
    let request = DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

fn large() -> Vec<u8> {
    framed(&"x".repeat(2 * LARGE_REQUEST_BYTES))
}

fn bound() -> LargeRequests {
    LargeRequests::new(Arc::default())
}

/// Returns the requests of a body that comes in parts of `size` bytes and then ends.
fn requests(bytes: &[u8], size: usize, large: &LargeRequests) -> Requests {
    let parts: Vec<_> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    let frames = stream::iter(parts).map(|part| Ok::<_, Infallible>(Frame::data(part)));
    Requests::new(Body::new(StreamBody::new(frames)), large.clone())
}

/// Returns the requests of a body that stops without an end.
fn stalled(bytes: Vec<u8>, large: &LargeRequests) -> Requests {
    let part = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(bytes)))]);
    let body = StreamBody::new(part.chain(stream::pending()));
    Requests::new(Body::new(body), large.clone())
}

#[tokio::test]
async fn requests_come_whole_wherever_they_are_cut() {
    let bytes = [framed("first"), framed(""), framed("third")].concat();
    for size in 1..=bytes.len() {
        let mut requests = requests(&bytes, size, &bound());
        for expected in ["first", "", "third"] {
            let received = requests.next().await.unwrap().unwrap();
            assert_eq!(received.request.message.type_url, expected, "in parts of {size}");
        }
        assert!(requests.next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn nothing_of_a_large_request_is_kept_but_what_follows_it() {
    let bytes = [large(), framed("next")].concat();
    let mut requests = requests(&bytes, 16 * 1024, &bound());
    drop(requests.next().await.unwrap().unwrap());
    assert!(requests.received.capacity() <= 16 * 1024);
    let next = requests.next().await.unwrap().unwrap();
    assert_eq!(next.request.message.type_url, "next");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let too_long = u32::try_from(MAX_REQUEST_BYTES + 1).unwrap().to_be_bytes();
    let table = [
        (vec![1, 0, 0, 0, 0], Code::Internal),
        ([&[0], &too_long[..]].concat(), Code::OutOfRange),
        (vec![0, 0, 0, 0, 9, 1], Code::Internal),
        (vec![0, 0, 0], Code::Internal),
        (vec![0, 0, 0, 0, 1, 0xff], Code::Internal),
    ];
    for (bytes, code) in table {
        let mut requests = requests(&bytes, bytes.len(), &bound());
        assert_eq!(requests.next().await.unwrap_err().code(), code, "{bytes:?}");
    }
}

#[tokio::test]
async fn large_requests_wait_for_a_place_and_small_ones_do_not() {
    let bound = bound();
    let mut held = Vec::new();
    for _ in 0..MAX_LARGE_REQUESTS {
        held.push(requests(&large(), 1 << 20, &bound).next().await.unwrap().unwrap());
    }
    let metric = bound.metrics.limit("large_requests");
    assert_eq!(metric.get(), 0);
    let mut waiting = requests(&large(), 1 << 20, &bound);
    assert!(waiting.next().now_or_never().is_none());
    assert_eq!(metric.get(), 1);
    let small = requests(&framed("small"), 1 << 20, &bound).next().await;
    assert_eq!(small.unwrap().unwrap().request.message.type_url, "small");
    held.pop();
    assert!(waiting.next().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_large_request_that_stops_in_the_middle_gives_its_place_back() {
    let bound = bound();
    let mut bytes = large();
    bytes.pop();
    let mut requests = stalled(bytes, &bound);
    assert_eq!(requests.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    drop(requests);
    assert_eq!(bound.places.available_permits(), MAX_LARGE_REQUESTS);
}
