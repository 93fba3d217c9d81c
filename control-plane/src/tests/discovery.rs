use std::time::{Duration, Instant};

use mesh_api::{
    proto::{
        discovery::DeltaDiscoveryRequest,
        workload::{Address, address::Type},
    },
    xds_client::{CREDENTIAL_TYPE, L7_TYPE},
};
use prost::Message as _;
use tonic::Code;

use super::{
    client::{ADDRESS, AUTHORIZATION, Stream, connect, first, names},
    plane::{Plane, TOKEN, WAYPOINT_TOKENS, aliased_workload, gone, poll, service, workload},
};
use crate::xds::{
    fixtures::{credential, labels},
    limits::MAX_OTHER_TYPES,
};

#[tokio::test]
async fn a_client_of_everything_is_told_the_state_and_then_its_changes() {
    let plane = Plane::start(vec![workload("a", "1"), service("shop", "cart")]).await;
    let mut stream = Stream::to_everything(&plane).await;
    let response = stream.read().await;
    assert_eq!(response.type_url, ADDRESS);
    assert_eq!(response.system_version_info, "");
    assert_eq!(names(&response), ["a", "shop/cart"]);
    let any = response.resources[0].resource.as_ref().unwrap();
    let address = Address::decode(any.value.as_slice()).unwrap();
    let Some(Type::Workload(decoded)) = address.r#type else { panic!("{address:?}") };
    assert_eq!((decoded.uid.as_str(), decoded.name.as_str()), ("a", "1"));
    stream.reply(&response, None).await;
    plane.apply(vec![workload("a", "2"), workload("b", "1")]).await;
    assert_eq!(stream.told().await, ["a", "b"]);
    stream.send(first(AUTHORIZATION)).await;
    assert!(stream.told().await.is_empty(), "there is no policy, which is an answer too");
    plane.wait_synced(AUTHORIZATION, |view| view["status"] == "SYNCED").await;
}

#[tokio::test]
async fn what_is_for_waypoints_is_told_to_those_who_ask_for_it() {
    let plane = Plane::start(vec![workload("a", "1"), labels("a", &["shop/w"])]).await;
    let mut node = Stream::to_everything(&plane).await;
    assert_eq!(node.told().await, ["a"]);
    let mut waypoint = Stream::open(&plane).await;
    waypoint.send(first(L7_TYPE)).await;
    assert_eq!(waypoint.told().await, ["labels/a"]);
}

#[tokio::test]
async fn what_a_secret_has_is_told_by_whose_token_is_shown_and_shown_to_nobody() {
    const NAME: &str = "credential/shop/client";
    let plane = Plane::start(vec![credential("shop", "client", "hush", &["shop/w"])]).await;
    let asked = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["shop/w".into()],
        resource_names_unsubscribe: vec!["*".into()],
        ..first(CREDENTIAL_TYPE)
    };
    let [(_, of_shop), (_, of_bank)] = WAYPOINT_TOKENS;
    for (token, expected) in [(of_shop, NAME), (of_bank, "-shop/w"), (TOKEN, "-shop/w")] {
        let mut stream = Stream::open_on(connect(&plane).await, token).await.unwrap();
        stream.send(asked.clone()).await;
        assert_eq!(stream.told().await, [expected], "{token}");
        plane.apply(vec![credential("shop", "client", token, &["shop/w"])]).await;
        if expected == NAME {
            assert_eq!(stream.told().await, [NAME]);
        }
    }
    for path in ["/debug/config_dump", &format!("/debug/config_dump?name={NAME}")] {
        let (status, page) = plane.get(path).await;
        assert!(status == 200 && page.contains(NAME) | page.contains("private_key"), "{page}");
        assert!(!page.contains("hush") && !page.contains(of_shop), "{page}");
    }
}

#[tokio::test]
async fn a_client_of_names_is_told_of_them_only() {
    let plane =
        Plane::start(vec![aliased_workload("a", "1", &["n/10.0.0.1"]), workload("b", "1")]).await;
    let mut stream = Stream::open(&plane).await;
    let all = vec!["*".to_owned()];
    stream
        .send(DeltaDiscoveryRequest {
            resource_names_subscribe: all.clone(),
            resource_names_unsubscribe: all,
            ..first(ADDRESS)
        })
        .await;
    for (key, told) in [("n/10.0.0.1", "a"), ("n/10.0.0.9", "-n/10.0.0.9"), ("b", "b")] {
        stream
            .send(DeltaDiscoveryRequest {
                type_url: ADDRESS.into(),
                resource_names_subscribe: vec![key.into()],
                ..Default::default()
            })
            .await;
        assert_eq!(stream.told().await, [told]);
    }
    plane.wait_synced(ADDRESS, |view| view["names"] == 3 && view["everything"] == false).await;
}

#[tokio::test]
async fn a_returning_client_is_told_only_what_changed() {
    let plane = Plane::start(vec![workload("a", "1"), workload("b", "1")]).await;
    let mut stream = Stream::to_everything(&plane).await;
    let state = stream.read().await;
    drop(stream);
    plane.apply(vec![workload("b", "2"), workload("c", "1"), gone("a")]).await;
    let mut stream = Stream::open(&plane).await;
    let had = state.resources.into_iter().map(|resource| (resource.name, resource.version));
    stream
        .send(DeltaDiscoveryRequest { initial_resource_versions: had.collect(), ..first(ADDRESS) })
        .await;
    assert_eq!(stream.told().await, ["-a", "b", "c"]);
}

#[tokio::test]
async fn a_rejection_is_shown_and_counted() {
    let plane = Plane::start(vec![workload("a", "1")]).await;
    let mut stream = Stream::to_everything(&plane).await;
    let response = stream.read().await;
    stream.reply(&response, Some("a: no address")).await;
    plane
        .wait_synced(ADDRESS, |view| {
            view["status"] == "REJECTED" && view["last_rejection"] == "a: no address"
        })
        .await;
    let (_, metrics) = plane.get("/metrics").await;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"wds\"} 1"), "{metrics}");
    assert!(metrics.contains("pilot_xds 1"), "{metrics}");
    let sent = "pilot_xds_send_time_count 1";
    poll(async || plane.get("/metrics").await.1.contains(sent)).await;
}

#[tokio::test]
async fn a_removal_does_not_wait_for_the_debounce() {
    let patient = Duration::from_mins(10);
    let plane = Plane::start_with(|args| {
        (args.debounce_after.0, args.debounce_max.0) = (patient, patient);
    })
    .await;
    plane.apply(vec![workload("a", "1")]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let mut stream = Stream::to_everything(&plane).await;
    assert_eq!(stream.told().await, ["a"]);
    let start = Instant::now();
    plane.apply(vec![workload("b", "1")]).await;
    plane.apply(vec![gone("a")]).await;
    assert_eq!(stream.told().await, ["-a", "b"]);
    assert!(start.elapsed() < patient / 10);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_told_the_merged_state() {
    let plane = Plane::start_with(|args| args.debounce_after.0 = Duration::from_millis(1)).await;
    // Larger than what fits into buffers on the way, smaller than what a client takes unasked.
    let large = "x".repeat(3 * 1024 * 1024);
    plane.apply(vec![workload("large", &large)]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let mut stream = Stream::to_everything(&plane).await;
    plane.wait_synced(ADDRESS, |view| view["sent"] == 1).await;
    for content in 0..1000 {
        plane.apply(vec![workload("a", &content.to_string())]).await;
    }
    plane.apply(vec![gone("large")]).await;
    poll(async || {
        let (_, dump) = plane.get("/debug/config_dump").await;
        !dump.contains("large")
    })
    .await;
    plane.wait_synced(ADDRESS, |view| view["sent"] == 1 && view["status"] == "PENDING").await;
    assert_eq!(stream.told().await, ["large"]);
    let merged = stream.read().await;
    assert_eq!(names(&merged), ["-large", "a"]);
    let value = &merged.resources[0].resource.as_ref().unwrap().value;
    assert!(String::from_utf8_lossy(value).contains("999"));
}

#[tokio::test]
async fn a_large_state_goes_in_several_responses() {
    let plane = Plane::start_with(|args| args.max_response_bytes = 1).await;
    plane.apply(vec![workload("a", "1"), workload("b", "1")]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let mut stream = Stream::to_everything(&plane).await;
    for (name, marker) in [("a", "incomplete"), ("b", "")] {
        let response = stream.read().await;
        assert_eq!(
            (names(&response), response.system_version_info.as_str()),
            (vec![name.into()], marker)
        );
        stream.reply(&response, None).await;
    }
}

#[tokio::test]
async fn who_has_no_valid_token_is_refused() {
    let plane = Plane::start(vec![]).await;
    let channel = connect(&plane).await;
    for token in ["", "a token of nobody at all"] {
        let refused = Stream::open_on(channel.clone(), token).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    assert!(Stream::open_on(channel, TOKEN).await.is_ok());
}

#[tokio::test]
async fn of_a_type_that_does_not_exist_here_there_is_nothing_and_the_stream_goes_on() {
    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let plane = Plane::start(vec![workload("a", "1")]).await;
    let mut stream = Stream::open(&plane).await;
    stream.send(first(CLUSTER)).await;
    let answer = stream.read().await;
    assert_eq!(answer.type_url, CLUSTER);
    assert!(!answer.nonce.is_empty());
    assert!(answer.resources.is_empty() && answer.removed_resources.is_empty(), "{answer:?}");
    stream.reply(&answer, None).await;

    // Names that are asked for do not exist; nothing else is said about the type.
    let resource_names_subscribe = vec!["a".into(), "b".into(), "*".into()];
    stream.send(DeltaDiscoveryRequest { resource_names_subscribe, ..first(CLUSTER) }).await;
    assert_eq!(stream.told().await, ["-a", "-b"]);
    stream.send(first(ADDRESS)).await;
    assert_eq!(stream.told().await, ["a"]);
}

#[tokio::test]
async fn types_that_do_not_exist_here_are_bounded() {
    let plane = Plane::start(vec![]).await;
    let stream = Stream::open(&plane).await;
    for number in 0..=MAX_OTHER_TYPES {
        stream.send(first(&format!("type.googleapis.com/t{number}"))).await;
    }
    let refused = stream.end().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains(ADDRESS), "{refused}");
}

#[tokio::test]
async fn nobody_is_told_of_an_empty_mesh_before_the_first_state() {
    let plane = Plane::start_with(|_| {}).await;
    assert_eq!(plane.get("/ready").await.0, 503);
    let refused = Stream::open_on(connect(&plane).await, TOKEN).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn there_are_no_more_clients_than_configured() {
    let plane = Plane::start_with(|args| args.max_clients = 1).await;
    plane.apply(vec![]).await;
    poll(async || plane.get("/ready").await.0 == 200).await;
    let channel = connect(&plane).await;
    let first = Stream::open_on(channel.clone(), TOKEN).await.unwrap();
    let refused = Stream::open_on(channel.clone(), TOKEN).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    poll(async || Stream::open_on(channel.clone(), TOKEN).await.is_ok()).await;
}

#[tokio::test]
async fn a_resource_is_shown_in_full() {
    let plane =
        Plane::start(vec![aliased_workload("c//Pod/shop/a", "cart", &["n/10.0.0.1"])]).await;
    let (status, dump) = plane.get("/debug/config_dump?name=n/10.0.0.1").await;
    assert_eq!(status, 200);
    assert!(dump.contains("name: \\\"cart\\\""), "{dump}");
    assert_eq!(plane.get("/debug/config_dump?name=x").await.0, 404);
    assert_eq!(plane.get("/nothing").await.0, 404);
}
