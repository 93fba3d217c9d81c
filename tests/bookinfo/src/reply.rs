//! What services answer.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use serde_json::{Value, json};

/// What a service answers.
pub(crate) type Reply = Response<Full<Bytes>>;

/// Answers with JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", value.to_string())
}

/// Answers with a page.
pub(crate) fn html(text: String) -> Reply {
    reply(StatusCode::OK, "text/html; charset=utf-8", text)
}

/// Answers with a line of text.
pub(crate) fn text(status: StatusCode, text: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", text.to_owned())
}

/// Says that there is no such page.
pub(crate) fn not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "not found")
}

/// Says that the number of a book is none.
pub(crate) fn no_number() -> Reply {
    json(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product id"}))
}

/// Answers a probe.
pub(crate) fn healthy(service: &str) -> Reply {
    json(StatusCode::OK, &json!({ "status": format!("{service} is healthy") }))
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
