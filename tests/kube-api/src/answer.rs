//! Answers as bodies, and refusals as the API's `Status` objects.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

/// Body of an answer: whole, or a stream of events.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound(String),
    Forbidden(String),
    AlreadyExists(String),
    Conflict(String),
    /// The version asked for is no longer remembered.
    Expired,
    Invalid(String),
    Unsupported(String),
    TooManyRequests,
    /// Something else that the server needs does not work.
    Internal(String),
}

// === impl Refusal ===

impl Refusal {
    /// Returns the object that tells a client about it.
    pub(crate) fn status(&self) -> Value {
        let (code, reason, message) = self.parts();
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code.as_u16(),
        })
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let (code, ..) = self.parts();
        let mut response = with_status(code, &self.status());
        if *self == Self::TooManyRequests {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn parts(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::NotFound(what) => {
                (StatusCode::NOT_FOUND, "NotFound", format!("{what} not found"))
            }
            Self::Forbidden(what) => {
                (StatusCode::FORBIDDEN, "Forbidden", format!("{what} is forbidden"))
            }
            Self::AlreadyExists(what) => {
                (StatusCode::CONFLICT, "AlreadyExists", format!("{what} already exists"))
            }
            Self::Conflict(what) => (
                StatusCode::CONFLICT,
                "Conflict",
                format!(
                    "{what}: the object has been modified; apply the change to its newest version"
                ),
            ),
            Self::Expired => (StatusCode::GONE, "Expired", "too old resource version".to_owned()),
            Self::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why.clone()),
            Self::Unsupported(what) => (
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                format!("{what} is not supported here"),
            ),
            Self::Internal(why) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why.clone())
            }
            Self::TooManyRequests => (
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                "too many requests, please try again later".to_owned(),
            ),
        }
    }
}

/// Adds warnings, which clients show to people.
pub(crate) fn warned(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let warning = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&warning) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// Answers 200 with JSON.
pub(crate) fn json(value: &Value) -> Response<Body> {
    with_status(StatusCode::OK, value)
}

/// Answers with JSON.
pub(crate) fn with_status(code: StatusCode, value: &Value) -> Response<Body> {
    let body =
        Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    json_response(code, body)
}

/// Answers with a body of JSON.
pub(crate) fn json_response(code: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
