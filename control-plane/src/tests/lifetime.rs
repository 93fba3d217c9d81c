use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{
    client::{Stream, connect},
    plane::{Plane, TOKEN, poll, workload},
};

#[tokio::test]
async fn clients_are_sent_away_one_after_another() {
    let drain = Duration::from_secs(2);
    let mut plane = Plane::start_with(|args| args.drain_time.0 = drain).await;
    plane.apply(vec![workload("a", "1")]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = Stream::to_everything(&plane).await;
        assert_eq!(stream.told().await, ["a"]);
        streams.push(stream);
    }
    let start = Instant::now();
    plane.terminate();
    let ends = streams.into_iter().map(|stream| async {
        stream.end().await.unwrap();
        start.elapsed()
    });
    let mut ends = join_all(ends).await;
    ends.sort();
    // That all of twenty leave in the same half has a chance of one in half a million.
    assert!(ends[0] < drain / 2 && ends[19] > drain / 2, "{ends:?}");
    plane.ended().await.unwrap();
}

#[tokio::test]
async fn a_connection_of_age_is_asked_to_come_again() {
    let age = Duration::from_millis(500);
    let plane = Plane::start_with(|args| args.max_connection_age.0 = age).await;
    plane.apply(vec![]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let channel = connect(&plane).await;
    let stream = Stream::open_on(channel.clone(), TOKEN).await.unwrap();
    stream.end().await.unwrap();
    // The channel connects anew by itself.
    assert!(Stream::open_on(channel, TOKEN).await.is_ok());
}

#[tokio::test]
async fn the_end_of_the_source_ends_the_control_plane() {
    let plane = Plane::start(vec![]).await;
    let error = plane.without_source().await.unwrap_err();
    assert!(error.to_string().contains("source"), "{error}");
}
