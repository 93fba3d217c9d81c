//! Cross-origin requests: preflights are answered here, responses are marked.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use mesh_api::proto::l7::{self, string_match::Kind};

use super::{
    head::RequestHead,
    invalid::{At, Invalid, Problem, each},
    text::TextMatch,
    wire,
};

/// Which origins may do what.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Box<[TextMatch]>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: bool,
    answer_unmatched: bool,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsDecision {
    /// It is answered with 200 and these headers.
    Answer(HeaderMap),
    /// It goes on, and its response is marked for this origin.
    Mark(HeaderValue),
    /// It goes on.
    Pass,
}

// === impl Cors ===

impl Cors {
    /// Decides what becomes of a request.
    pub fn decide(&self, request: &RequestHead<'_>) -> CorsDecision {
        let Some(origin) = request.headers.get(header::ORIGIN) else { return CorsDecision::Pass };
        let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let allowed = self.origins.iter().any(|allowed| allowed.matches(origin.as_bytes()));
        match asked.filter(|_| request.method == Method::OPTIONS) {
            Some(method) if allowed => CorsDecision::Answer(self.answer(origin, method, request)),
            Some(_) if self.answer_unmatched => CorsDecision::Answer(HeaderMap::new()),
            None if allowed => CorsDecision::Mark(origin.clone()),
            Some(_) | None => CorsDecision::Pass,
        }
    }

    /// Marks a response for an origin; what the application says of it is overwritten.
    pub fn mark(&self, response: &mut HeaderMap, origin: HeaderValue) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(exposed) = &self.exposed {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn answer(
        &self,
        origin: &HeaderValue,
        method: &HeaderValue,
        request: &RequestHead<'_>,
    ) -> HeaderMap {
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let mut say = |name: HeaderName, allowed: &Option<HeaderValue>, asked| match allowed {
            // Where credentials are sent, browsers take a star for the name of a header.
            Some(allowed) if self.credentials && allowed == "*" => {
                if let Some(asked) = asked {
                    answer.insert(name, HeaderValue::clone(asked));
                }
            }
            Some(allowed) => {
                answer.insert(name, allowed.clone());
            }
            None => {}
        };
        say(header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods, Some(method));
        say(header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, asked);
        say(header::ACCESS_CONTROL_MAX_AGE, &self.max_age, None);
        if self.credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        answer
    }
}

const TRUE: HeaderValue = HeaderValue::from_static("true");

impl TryFrom<l7::Cors> for Cors {
    type Error = Invalid;

    fn try_from(wire: l7::Cors) -> Result<Self, Invalid> {
        let max_age = match wire.max_age {
            None => None,
            zero_too => {
                let age = wire::period(zero_too).at("max_age")?.unwrap_or_default();
                Some(HeaderValue::from(age.as_secs()))
            }
        };
        Ok(Self {
            origins: each(wire.allow_origins, "allow_origins", origin)?,
            methods: list(&wire.allow_methods).at("allow_methods")?,
            headers: list(&wire.allow_headers).at("allow_headers")?,
            exposed: list(&wire.expose_headers).at("expose_headers")?,
            max_age,
            credentials: wire.allow_credentials,
            answer_unmatched: wire.answer_unmatched,
        })
    }
}

/// Compiles which origins are allowed; a star allows all.
fn origin(wire: l7::StringMatch) -> Result<TextMatch, Invalid> {
    match wire.kind {
        Some(Kind::Exact(text)) if text == "*" => Ok(TextMatch::Present),
        kind => TextMatch::try_from(l7::StringMatch { kind }),
    }
}

fn list(values: &[String]) -> Result<Option<HeaderValue>, Problem> {
    if values.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&values.join(",")).map(Some).map_err(|_| Problem::HeaderValue)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn cors(credentials: bool, answer_unmatched: bool) -> Cors {
        let origin = |kind| l7::StringMatch { kind: Some(kind) };
        Cors::try_from(l7::Cors {
            allow_origins: vec![
                origin(Kind::Exact("https://a.example".into())),
                origin(Kind::Regex("https://.*\\.b\\.example".into())),
            ],
            allow_methods: vec!["GET".into(), "PUT".into()],
            allow_headers: vec!["*".into()],
            expose_headers: vec!["x-one".into(), "x-two".into()],
            max_age: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            allow_credentials: credentials,
            answer_unmatched,
        })
        .unwrap()
    }

    fn decide(cors: &Cors, method: &str, headers: &[(&str, &str)]) -> CorsDecision {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        cors.decide(&RequestHead::of(&parts, "http"))
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            let name = name.as_str().trim_start_matches("access-control-");
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    const ASKED: (&str, &str) = ("access-control-request-method", "PUT");
    const ASKED_HEADERS: (&str, &str) = ("access-control-request-headers", "x-y");
    const ALLOWED: (&str, &str) = ("origin", "https://a.example");
    const OTHER: (&str, &str) = ("origin", "https://evil.example");

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered() {
        let answer = decide(&cors(false, false), "OPTIONS", &[ALLOWED, ASKED, ASKED_HEADERS]);
        let CorsDecision::Answer(headers) = answer else { panic!("{answer:?}") };
        assert_eq!(
            shown(&headers),
            [
                "allow-headers: *",
                "allow-methods: GET,PUT",
                "allow-origin: https://a.example",
                "max-age: 86400",
            ],
        );
        let answer = decide(&cors(true, false), "OPTIONS", &[ALLOWED, ASKED, ASKED_HEADERS]);
        let CorsDecision::Answer(headers) = answer else { panic!("{answer:?}") };
        let lines = shown(&headers);
        assert_eq!(lines[..2], ["allow-credentials: true", "allow-headers: x-y"]);
    }

    /// Method, headers, whether what does not match is answered, and the decision.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], bool, &'a CorsDecision);

    #[test]
    fn what_is_no_preflight_or_of_another_origin_goes_on_unless_it_is_answered_here() {
        let mark = CorsDecision::Mark(HeaderValue::from_static("https://a.example"));
        let empty = CorsDecision::Answer(HeaderMap::new());
        let table: [Case<'_>; 7] = [
            ("GET", &[ALLOWED], false, &mark),
            ("OPTIONS", &[ALLOWED], false, &mark),
            ("GET", &[ALLOWED, ASKED], false, &mark),
            ("GET", &[OTHER], true, &CorsDecision::Pass),
            ("GET", &[], true, &CorsDecision::Pass),
            ("OPTIONS", &[OTHER, ASKED], false, &CorsDecision::Pass),
            ("OPTIONS", &[OTHER, ASKED], true, &empty),
        ];
        for (method, headers, answer_unmatched, expected) in table {
            let found = decide(&cors(false, answer_unmatched), method, headers);
            assert_eq!(&found, expected, "{method} {headers:?}");
        }
        let subdomain = [("origin", "https://x.b.example")];
        assert!(matches!(decide(&cors(false, false), "GET", &subdomain), CorsDecision::Mark(_)));
        let pretender = [("origin", "https://x.b.example.evil")];
        assert_eq!(decide(&cors(false, false), "GET", &pretender), CorsDecision::Pass);
    }

    #[test]
    fn responses_are_marked_over_what_the_application_says() {
        let mut response = HeaderMap::new();
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        cors(true, false).mark(&mut response, HeaderValue::from_static("https://a.example"));
        assert_eq!(
            shown(&response),
            [
                "allow-credentials: true",
                "allow-origin: https://a.example",
                "expose-headers: x-one,x-two",
            ],
        );
    }
}
