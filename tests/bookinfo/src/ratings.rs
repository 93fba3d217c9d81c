//! Numbers of stars.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use crate::reply::{self, Reply};

/// Version that answers 503.
const UNAVAILABLE: &str = "v-unavailable";

/// Version that takes its time.
const DELAYED: &str = "v-delayed";

/// The time that it takes: many requests begin meanwhile, also on a busy machine.
const DELAY: Duration = Duration::from_secs(2);

/// Answers a request.
pub(crate) async fn answer(version: &str, method: &Method, path: &str) -> Reply {
    match (method, path.strip_prefix("/ratings/")) {
        (&Method::GET, Some(book)) => match book.parse() {
            Ok(book) => ratings(version, book).await,
            Err(_) => reply::no_number(),
        },
        (&Method::GET, None) if path == "/health" => reply::healthy("Ratings"),
        _ => reply::not_found(),
    }
}

async fn ratings(version: &str, book: u32) -> Reply {
    match version {
        UNAVAILABLE => {
            let error = json!({"error": "Service unavailable"});
            return reply::json(StatusCode::SERVICE_UNAVAILABLE, &error);
        }
        DELAYED => sleep(DELAY).await,
        _ => {}
    }
    let ratings = json!({"id": book, "ratings": {"Reviewer1": 5, "Reviewer2": 4}});
    reply::json(StatusCode::OK, &ratings)
}
