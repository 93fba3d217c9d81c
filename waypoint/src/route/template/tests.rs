use http::Request;
use mesh_api::l7::{PROPERTIES, PROPERTIES_WITH_ARGUMENT};

use super::*;

fn facts() -> Facts<'static> {
    Facts {
        protocol: Version::HTTP_2,
        start: Duration::from_millis(1_700_000_000_123),
        downstream_remote: Some("10.0.0.1:4000".parse().unwrap()),
        downstream_local: Some("[2001:db8::1]:80".parse().unwrap()),
        route_name: Some("canary"),
        flags: Flags::default(),
        attempts: 2,
        bytes_sent: 7,
        ..Facts::default()
    }
}

fn rendered(template: &str, missing: Missing) -> String {
    let request = Request::builder()
        .uri("/path?query")
        .header("host", "shop:80")
        .header("x-one", "first")
        .header("x-two", "a")
        .header("x-two", "b");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut headers = HeaderMap::new();
    headers.insert("x-answer", http::HeaderValue::from_static("yes"));
    let view = View {
        request: RequestHead::of(&parts, "http"),
        response: Some(Response { status: StatusCode::NOT_FOUND, headers: &headers }),
        facts: &facts(),
    };
    let mut out = String::new();
    Template::parse(template).unwrap().render(&view, missing, &mut out);
    out
}

#[test]
fn properties_stand_where_they_are_named() {
    for (template, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("100%%", "100%"),
        ("%%REQ(x-one)%%", "%REQ(x-one)%"),
        ("a%REQ(X-ONE)%b", "afirstb"),
        ("%REQ(x-two)%", "a,b"),
        ("%REQ(x-none?x-one)%", "first"),
        ("%REQ(x-one):3%", "fir"),
        ("%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "GET /path?query"),
        ("%REQ_WITHOUT_QUERY(:PATH)%", "/path"),
        ("%REQ(:AUTHORITY)%|%REQ(Host)%|%REQ(:SCHEME)%", "shop:80|shop:80|http"),
        ("%RESP(x-answer)%", "yes"),
        ("%PROTOCOL%", "HTTP/2"),
        ("%START_TIME%", "2023-11-14T22:13:20.123Z"),
        ("%START_TIME(%Y/%m/%d %s)%", "2023/11/14 1700000000"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "10.0.0.1:4000"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", "[2001:db8::1]:80"),
        ("%DOWNSTREAM_LOCAL_PORT%", "80"),
        ("%ROUTE_NAME%", "canary"),
        ("%RESPONSE_CODE%", "404"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "2"),
        ("%BYTES_SENT%/%BYTES_RECEIVED%", "7/0"),
    ] {
        assert_eq!(rendered(template, Missing::Dash), expected, "{template}");
    }
}

#[test]
fn what_a_request_lacks_is_nothing_in_headers_and_a_dash_in_logs() {
    for template in [
        "%REQ(x-none)%",
        "%REQ(x-none?x-nothing)%",
        "%RESP(x-none)%",
        "%UPSTREAM_HOST%",
        "%UPSTREAM_CLUSTER%",
        "%DURATION%",
        "%RESPONSE_FLAGS%",
        "%RESPONSE_FLAGS_LONG%",
        "%DOWNSTREAM_PEER_URI_SAN%",
        "%REQUESTED_SERVER_NAME%",
    ] {
        assert_eq!(rendered(template, Missing::Dash), "-", "{template}");
        assert_eq!(rendered(template, Missing::Empty), "", "{template}");
    }
}

#[test]
fn a_template_that_names_nothing_known_is_refused() {
    for template in [
        "%",
        "50% off",
        "%NOTHING%",
        "%REQ%",
        "%REQ()%",
        "%REQ(a b)%",
        "%REQ(x%",
        "%REQ(x):y%",
        "%REQ(x)y%",
        "%PROTOCOL(x)%",
        "%START_TIME(%)%",
        &"x".repeat(MAX_TEMPLATE_BYTES + 1),
    ] {
        assert!(Template::parse(template).is_err(), "{template}");
    }
}

#[test]
fn a_template_without_properties_is_known_as_a_literal() {
    for (template, literal) in [("", Some("")), ("a%%b", Some("a%b")), ("%PROTOCOL%", None)] {
        assert_eq!(Template::parse(template).unwrap().as_literal(), literal, "{template}");
    }
}

#[test]
fn what_may_be_written_is_understood() {
    let plain = PROPERTIES.map(|name| format!("%{name}%"));
    let more = PROPERTIES_WITH_ARGUMENT.map(|name| format!("%{name}(x):3%"));
    for text in plain.iter().chain(&more) {
        assert!(Template::parse(text).is_ok(), "{text}");
    }
}
