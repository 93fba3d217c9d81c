//! The page.

mod page;
mod session;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Hosts},
    propagation::from_page,
    reply::{self, Reply},
};

/// Time for an answer of another service.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often reviews are asked for: once more than necessary, which the documents make use of.
const REVIEWS_TRIES: usize = 2;

/// The only book.
const BOOK: u32 = 0;

/// Longest form that is read, in bytes: a name fits.
const MAX_FORM_BYTES: usize = 4096;

/// What another service said: an error is what the page says in its place.
type Said = Result<Value, (StatusCode, &'static str)>;

/// Answers a request.
pub(crate) async fn answer(hosts: &Hosts, request: Request<Incoming>) -> Reply {
    let user = session::user(request.headers());
    let headers = from_page(request.headers(), user.as_deref());
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/" | "/index.html") => reply::html(page::index()),
        (&Method::GET, "/health") => reply::text(StatusCode::OK, "Product page is healthy"),
        (&Method::GET, "/productpage") => {
            let details = details(hosts, &headers, BOOK).await;
            let reviews = reviews(hosts, &headers, BOOK).await;
            reply::html(page::product(user.as_deref(), &details, &reviews))
        }
        (&Method::POST, "/login") => login(request).await,
        (&Method::GET, "/logout") => back(request.headers(), session::end()),
        (&Method::GET, path) => match path.strip_prefix("/api/v1/products") {
            Some(rest) => products(hosts, &headers, rest).await,
            None => reply::not_found(),
        },
        _ => reply::not_found(),
    }
}

/// Answers below `/api/v1/products`.
async fn products(hosts: &Hosts, headers: &HeaderMap, path: &str) -> Reply {
    let Some(rest) = path.strip_prefix('/').filter(|rest| !rest.is_empty()) else {
        return reply::json(StatusCode::OK, &json!([{"id": BOOK, "title": page::TITLE}]));
    };
    let (book, part) = rest.split_once('/').unwrap_or((rest, ""));
    let Ok(book) = book.parse() else { return reply::no_number() };
    let said = match part {
        "" => details(hosts, headers, book).await,
        "reviews" => reviews(hosts, headers, book).await,
        "ratings" => ratings(hosts, headers, book).await,
        _ => return reply::not_found(),
    };
    match said {
        Ok(value) => reply::json(StatusCode::OK, &value),
        Err((status, error)) => reply::json(status, &json!({ "error": error })),
    }
}

async fn details(hosts: &Hosts, headers: &HeaderMap, book: u32) -> Said {
    let answer = hosts.get(&hosts.details, &format!("/details/{book}"), headers, PATIENCE).await;
    said(answer.ok(), "Sorry, product details are currently unavailable for this book.")
}

async fn reviews(hosts: &Hosts, headers: &HeaderMap, book: u32) -> Said {
    let mut answer = None;
    for _ in 0..REVIEWS_TRIES {
        let path = format!("/reviews/{book}");
        answer = hosts.get(&hosts.reviews, &path, headers, PATIENCE).await.ok();
        if answer.as_ref().is_some_and(|answer| answer.status == StatusCode::OK) {
            break;
        }
    }
    said(answer, "Sorry, product reviews are currently unavailable for this book.")
}

async fn ratings(hosts: &Hosts, headers: &HeaderMap, book: u32) -> Said {
    let answer = hosts.get(&hosts.ratings, &format!("/ratings/{book}"), headers, PATIENCE).await;
    said(answer.ok(), "Sorry, product ratings are currently unavailable for this book.")
}

fn said(answer: Option<Answer>, sorry: &'static str) -> Said {
    match answer {
        Some(Answer { status: StatusCode::OK, body }) => Ok(body),
        Some(Answer { status, .. }) => Err((status, sorry)),
        None => Err((StatusCode::INTERNAL_SERVER_ERROR, sorry)),
    }
}

/// Everyone is who they say they are.
async fn login(request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let Ok(form) = Limited::new(body, MAX_FORM_BYTES).collect().await else {
        return reply::text(StatusCode::BAD_REQUEST, "the form cannot be read");
    };
    let form = form.to_bytes();
    let mut fields = form_urlencoded::parse(&form);
    let user = fields.find_map(|(name, value)| (name == "username").then_some(value));
    back(&head.headers, session::begin(&user.unwrap_or_default()))
}

/// Sends a browser back to where it came from, with another session.
fn back(request: &HeaderMap, session: HeaderValue) -> Reply {
    let mut reply = reply::text(StatusCode::FOUND, "");
    let from = request.get(header::REFERER).cloned();
    let from = from.unwrap_or(HeaderValue::from_static("/productpage"));
    reply.headers_mut().insert(header::LOCATION, from);
    reply.headers_mut().insert(header::SET_COOKIE, session);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_success_becomes_an_apology_with_the_same_status() {
        let answer = |status| Some(Answer { status, body: json!({"id": 0}) });
        assert_eq!(said(answer(StatusCode::OK), "sorry"), Ok(json!({"id": 0})));
        let error = StatusCode::GATEWAY_TIMEOUT;
        assert_eq!(said(answer(error), "sorry"), Err((error, "sorry")));
        assert_eq!(said(None, "sorry"), Err((StatusCode::INTERNAL_SERVER_ERROR, "sorry")));
    }
}
