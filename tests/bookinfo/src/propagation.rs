//! Headers of a request that go along with what is asked because of it.
//!
//! Nothing else joins the parts of a trace: a proxy cannot know which request led to which.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Who is logged in.
pub(crate) const END_USER: HeaderName = HeaderName::from_static("end-user");

/// What every service passes on: marks of traces, and who and what is asking.
const PASSED_ON: [&str; 21] = [
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "x-ot-span-context",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
    "x-envoy-force-trace",
];

/// Returns what the page passes on: it says itself who is logged in.
pub(crate) fn from_page(request: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut headers = common(request);
    if let Some(Ok(user)) = user.map(HeaderValue::try_from) {
        headers.insert(END_USER, user);
    }
    headers
}

/// Returns what other services pass on.
pub(crate) fn from_service(request: &HeaderMap) -> HeaderMap {
    let mut headers = common(request);
    if let Some(user) = request.get(END_USER) {
        headers.insert(END_USER, user.clone());
    }
    headers
}

fn common(request: &HeaderMap) -> HeaderMap {
    let passed_on = PASSED_ON.map(HeaderName::from_static);
    let found = passed_on.into_iter().filter_map(|name| {
        let value = request.get(&name)?.clone();
        Some((name, value))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn marks_of_traces_are_passed_on_and_other_headers_are_not() {
        let request = headers(&[("x-request-id", "1"), ("b3", "2"), ("x-mine", "3")]);
        let expected = headers(&[("x-request-id", "1"), ("b3", "2")]);
        assert_eq!(from_service(&request), expected);
        assert_eq!(from_page(&request, None), expected);
    }

    #[test]
    fn only_the_page_says_who_is_logged_in() {
        let request = headers(&[("end-user", "mallory")]);
        assert_eq!(from_page(&request, Some("jason")), headers(&[("end-user", "jason")]));
        assert_eq!(from_page(&request, None), HeaderMap::new());
        assert_eq!(from_page(&request, Some("no\nheader")), HeaderMap::new());
        assert_eq!(from_service(&request), request);
    }
}
