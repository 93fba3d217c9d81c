use http::Request;
use mesh_api::proto::l7::{StringMatch, string_match::Kind};

use super::*;

#[expect(clippy::unnecessary_wraps, reason = "fields of messages are optional")]
fn text(kind: Kind) -> Option<StringMatch> {
    Some(StringMatch { kind: Some(kind) })
}

fn exact(value: &str) -> Option<StringMatch> {
    text(Kind::Exact(value.into()))
}

/// Asks whether a request with some values of `x` is matched by one header match.
fn header_matches(values: &[&str], value: Option<StringMatch>, invert: bool) -> bool {
    let header = l7::HeaderMatch { name: "x".into(), value, invert };
    let wire = l7::HttpMatch { headers: vec![header], ..Default::default() };
    let mut request = Request::builder().uri("/");
    for value in values {
        request = request.header("X", *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    HttpMatch::try_from(wire).unwrap().matches(&RequestHead::of(&parts, "http"))
}

#[test]
fn headers_match_with_their_values_joined_and_missing_ones_empty_where_they_must_not() {
    let present = || text(Kind::Present(true));
    let regex = |pattern: &str| text(Kind::Regex(pattern.into()));
    let table: [(&[&str], Option<StringMatch>, bool, bool); 16] = [
        (&["a"], exact("a"), false, true),
        (&["a"], exact("b"), false, false),
        (&["a", "b"], exact("a,b"), false, true),
        (&["a", "b"], exact("a"), false, false),
        (&[], exact("a"), false, false),
        (&[], exact("a"), true, true),
        (&[], exact(""), true, false),
        (&[], regex(".*"), true, false),
        (&[], regex(".+"), true, true),
        (&[], text(Kind::Prefix("a".into())), true, true),
        (&["a"], exact("a"), true, false),
        (&["b"], exact("a"), true, true),
        (&[""], present(), false, true),
        (&[], present(), false, false),
        (&[], present(), true, true),
        (&["a"], present(), true, false),
    ];
    for (values, value, invert, expected) in table {
        let found = header_matches(values, value.clone(), invert);
        assert_eq!(found, expected, "{values:?} by {value:?}, inverted {invert}");
    }
}

#[test]
fn parameters_match_by_their_first_value_as_it_is_written() {
    let table = [
        ("/?a=1", exact("1"), true),
        ("/?a=1&a=2", exact("1"), true),
        ("/?a=1&a=2", exact("2"), false),
        ("/?b=1", exact("1"), false),
        ("/?a", exact(""), true),
        ("/?a=", exact(""), true),
        ("/", exact(""), false),
        ("/?a=b=c", exact("b=c"), true),
        ("/?a=%31", exact("1"), false),
        ("/?x=1&a=%31", exact("%31"), true),
        ("/?a=12", text(Kind::Regex("\\d+".into())), true),
        ("/?a=1;b", text(Kind::Present(true)), true),
        ("/?aa=1", text(Kind::Present(true)), false),
    ];
    for (uri, value, expected) in table {
        let query = vec![l7::QueryMatch { name: "a".into(), value: value.clone() }];
        let compiled = HttpMatch::try_from(l7::HttpMatch { query, ..Default::default() }).unwrap();
        let (parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
        let found = compiled.matches(&RequestHead::of(&parts, "http"));
        assert_eq!(found, expected, "{uri} by {value:?}");
    }
}

#[test]
fn all_conditions_have_to_hold() {
    let wire = l7::HttpMatch {
        path: Some(l7::PathMatch {
            kind: Some(l7::path_match::Kind::Prefix("/a".into())),
            ignore_case: false,
        }),
        method: exact("GET"),
        scheme: exact("http"),
        authority: exact("shop:80"),
        headers: vec![l7::HeaderMatch {
            name: ":path".into(),
            value: exact("/a?q"),
            invert: false,
        }],
        query: vec![l7::QueryMatch { name: "q".into(), value: exact("") }],
    };
    let compiled = HttpMatch::try_from(wire).unwrap();
    for (method, uri, scheme, host, expected) in [
        ("GET", "/a?q", "http", "shop:80", true),
        ("POST", "/a?q", "http", "shop:80", false),
        ("GET", "/b?q", "http", "shop:80", false),
        ("GET", "/ab?q", "http", "shop:80", false),
        ("GET", "/a?q", "https", "shop:80", false),
        ("GET", "/a?q", "http", "shop", false),
        ("GET", "/a?r", "http", "shop:80", false),
    ] {
        let request = Request::builder().method(method).uri(uri).header("host", host);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = compiled.matches(&RequestHead::of(&parts, scheme));
        assert_eq!(found, expected, "{method} {uri} {scheme} {host}");
    }
}

#[test]
fn what_is_a_header_in_http_2_only_matches_like_one() {
    let request = Request::builder().method("PUT").uri("/a?q").header("host", "shop:80");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    for (name, value, expected) in [
        (":method", "PUT", true),
        (":method", "GET", false),
        (":scheme", "http", true),
        (":scheme", "https", false),
        (":authority", "shop:80", true),
        (":authority", "shop", false),
        ("host", "shop:80", true),
        (":path", "/a?q", true),
        (":path", "/a", false),
    ] {
        for invert in [false, true] {
            let header = l7::HeaderMatch { name: name.into(), value: exact(value), invert };
            let wire = l7::HttpMatch { headers: vec![header], ..Default::default() };
            let found =
                HttpMatch::try_from(wire).unwrap().matches(&RequestHead::of(&parts, "http"));
            assert_eq!(found, expected != invert, "{name} {value} {invert}");
        }
    }
}

#[test]
fn a_match_that_is_invalid_says_where() {
    let header = |name: &str, value| l7::HeaderMatch { name: name.into(), value, invert: false };
    for (headers, field) in [
        (vec![header("x", exact("")), header("a b", exact(""))], "headers[1].name"),
        (vec![header("X", exact(""))], "headers[0].name"),
        (vec![header("x", None)], "headers[0].value"),
        (vec![header("x", text(Kind::Regex("(".into())))], "headers[0].value.regex"),
    ] {
        let refused = HttpMatch::try_from(l7::HttpMatch { headers, ..Default::default() });
        assert_eq!(refused.unwrap_err().field, field);
    }
}
