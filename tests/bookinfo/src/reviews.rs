//! What readers wrote, with stars or without.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    client::Hosts,
    propagation::from_service,
    reply::{self, Reply},
};

/// Who wrote what.
const REVIEWS: [(&str, &str); 2] = [
    ("Reviewer1", "Two pairs of twins, one long day, and not a dull line. I laughed all the way."),
    ("Reviewer2", "Great fun, though there is more to think about in his other plays."),
];

/// What a version shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stars {
    /// It does not ask for ratings.
    None,
    Black,
    Red,
}

/// Answers a request.
pub(crate) async fn answer(version: &str, hosts: &Hosts, request: &Request<Incoming>) -> Reply {
    let path = request.uri().path();
    match (request.method(), path.strip_prefix("/reviews/")) {
        (&Method::GET, Some(book)) => match book.parse() {
            Ok(book) => reviews(Stars::of(version), hosts, request, book).await,
            Err(_) => reply::no_number(),
        },
        (&Method::GET, None) if path == "/health" => reply::healthy("Reviews"),
        _ => reply::not_found(),
    }
}

async fn reviews(stars: Stars, hosts: &Hosts, request: &Request<Incoming>, book: u32) -> Reply {
    let ratings = match stars.patience() {
        Some(limit) => {
            let headers = from_service(request.headers());
            let path = format!("/ratings/{book}");
            let answer = hosts.get(&hosts.ratings, &path, &headers, limit).await;
            answer.ok().filter(|answer| answer.status == StatusCode::OK).map(|answer| answer.body)
        }
        None => None,
    };
    let reviews: Vec<_> = REVIEWS
        .iter()
        .map(|(reviewer, text)| {
            let mut review = json!({"reviewer": reviewer, "text": text});
            if let Some(color) = stars.color() {
                review["rating"] = rating(ratings.as_ref(), reviewer, color);
            }
            review
        })
        .collect();
    reply::json(StatusCode::OK, &json!({"id": book.to_string(), "reviews": reviews}))
}

fn rating(ratings: Option<&Value>, reviewer: &str, color: &str) -> Value {
    match ratings.and_then(|ratings| ratings["ratings"][reviewer].as_u64()) {
        Some(stars) => json!({"stars": stars, "color": color}),
        None => json!({"error": "Ratings service is currently unavailable"}),
    }
}

// === impl Stars ===

impl Stars {
    fn of(version: &str) -> Self {
        match version {
            "v2" => Self::Black,
            "v3" => Self::Red,
            _ => Self::None,
        }
    }

    fn color(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Black => Some("black"),
            Self::Red => Some("red"),
        }
    }

    /// Returns how long the version waits for ratings.
    fn patience(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Black => Some(Duration::from_secs(10)),
            Self::Red => Some(Duration::from_millis(2500)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rating_has_stars_or_says_that_there_are_none() {
        let ratings = json!({"ratings": {"Reviewer1": 5}});
        let stars = json!({"stars": 5, "color": "red"});
        assert_eq!(rating(Some(&ratings), "Reviewer1", "red"), stars);
        let error = json!({"error": "Ratings service is currently unavailable"});
        assert_eq!(rating(Some(&ratings), "Reviewer2", "red"), error);
        assert_eq!(rating(None, "Reviewer1", "red"), error);
    }

    #[test]
    fn versions_differ_in_their_stars() {
        let stars = ["v1", "v2", "v3", "v4"].map(Stars::of);
        assert_eq!(stars, [Stars::None, Stars::Black, Stars::Red, Stars::None]);
    }
}
