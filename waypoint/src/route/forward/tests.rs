use http::{Request, header::HOST};
use mesh_api::proto::l7::{Header, ServiceRef, rewrite};

use super::*;
use crate::route::headers::Whose;

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn service() -> Option<ServiceRef> {
    Some(ServiceRef { namespace: "shop".into(), hostname: "cart".into() })
}

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn set(headers: &[(&str, &str)]) -> Option<l7::HeaderMutation> {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    Some(l7::HeaderMutation { set: headers.iter().map(header).collect(), ..Default::default() })
}

fn forward(wire: l7::Forward, headers: Option<l7::HeaderMutation>) -> Forward {
    let headers = HeaderMutation::compile(headers, Whose::Request).unwrap();
    Forward::compile(wire, &PathMatch::default(), headers).unwrap()
}

#[test]
fn the_host_of_a_copy_is_told_by_its_suffix() {
    let wire = |shadow_suffix| l7::Mirror {
        service: service(),
        per_million: 1_000_000,
        shadow_suffix,
        ..Default::default()
    };
    for (suffix, authority, expected) in [
        (true, "cart:8080", Some("cart-shadow:8080")),
        (true, "cart", Some("cart-shadow")),
        (false, "cart:8080", None),
    ] {
        let mirror = Mirror::try_from(wire(suffix)).unwrap();
        let found = mirror.authority(authority);
        assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected);
    }
}

#[test]
fn the_authority_is_the_rewrites_or_the_routes_or_the_destinations() {
    let destination = |headers| l7::WeightedDestination {
        service: service(),
        weight: 1,
        request_headers: headers,
        ..Default::default()
    };
    let by_destination = || destination(set(&[("host", "destination"), ("x", "destination")]));
    for (rewrite, route, destination, host, x) in [
        ("", None, destination(None), "client", "client"),
        ("", None, by_destination(), "destination", "destination"),
        ("", set(&[("host", "route"), ("x", "route")]), by_destination(), "route", "destination"),
        ("", set(&[(":authority", "%REQ(x)%")]), destination(None), "client", "client"),
        (
            "rewrite",
            set(&[("host", "route"), ("x", "route")]),
            destination(None),
            "rewrite",
            "route",
        ),
    ] {
        let rewrite = l7::Rewrite {
            path: Some(rewrite::Path::Full("/new".into())),
            authority: rewrite.into(),
        };
        let wire = l7::Forward {
            destinations: vec![destination],
            rewrite: Some(rewrite),
            ..Default::default()
        };
        let compiled = forward(wire, route);
        let request = Request::builder().uri("/old?q").header(HOST, "client").header("x", "client");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let chosen = compiled.choose(0).unwrap();
        compiled.prepare(&mut parts, chosen, "http", &Facts::default()).unwrap();
        assert_eq!(
            (&parts.headers[HOST], &parts.headers["x"]),
            (&host.parse().unwrap(), &x.parse().unwrap())
        );
        assert_eq!(parts.uri, "/new?q");
    }
}

#[test]
fn a_destination_that_cannot_be_meant_answers_for_its_share() {
    let destination = |refusal| l7::WeightedDestination {
        service: service(),
        weight: 1,
        refusal,
        ..Default::default()
    };
    let wire = |destinations| l7::Forward { destinations, ..Default::default() };
    let half = forward(wire(vec![destination(0), destination(503)]), None);
    assert!(half.choose(0).is_ok());
    assert_eq!(half.choose(u64::MAX).unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
    let none = forward(wire(vec![]), None);
    assert_eq!(none.choose(0).unwrap_err(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn a_request_may_take_as_long_as_its_route_and_its_client_say() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (limit, content_type, asked, expected) in [
        (None, "application/grpc", None, None),
        (Some(5), "application/grpc", None, seconds(5)),
        (Some(5), "application/grpc", Some("2S"), seconds(2)),
        (Some(5), "application/grpc", Some("1H"), seconds(5)),
        (None, "application/grpc", Some("1M"), seconds(60)),
        (None, "application/grpc", Some("3000m"), seconds(3)),
        (None, "application/json", Some("2S"), None),
        (None, "application/grpc", Some("123456789S"), None),
        (None, "application/grpc", Some("S"), None),
        (None, "application/grpc", Some("+1S"), None),
        (None, "application/grpc", Some("1x"), None),
    ] {
        let timeout = limit.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let compiled = forward(l7::Forward { timeout, ..Default::default() }, None);
        let mut request = Request::builder().header("content-type", content_type);
        if let Some(asked) = asked {
            request = request.header("grpc-timeout", asked);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = compiled.timeout(&RequestHead::of(&parts, "http"));
        assert_eq!(found, expected, "{limit:?} and {asked:?}");
    }
}
