//! Facts about a book.

use http::{Method, StatusCode};
use serde_json::json;

use crate::reply::{self, Reply};

/// Answers a request.
pub(crate) fn answer(method: &Method, path: &str) -> Reply {
    match (method, path.strip_prefix("/details/")) {
        (&Method::GET, Some(book)) => book.parse().map_or_else(|_| reply::no_number(), details),
        (&Method::GET, None) if path == "/health" => reply::healthy("Details"),
        _ => reply::not_found(),
    }
}

fn details(book: u32) -> Reply {
    let details = json!({
        "id": book,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    });
    reply::json(StatusCode::OK, &details)
}
