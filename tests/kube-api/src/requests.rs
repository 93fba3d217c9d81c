//! Requests, from their path to the store and back.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    admission::Candidate,
    answer::{self, Body, Refusal},
    discovery,
    object::{self, Object},
    patch::Format,
    path::{self, Place, Target},
    query::Query,
    server::{Shared, lock},
    store::{Key, list_object},
    token,
    view::View,
    watch::Watch,
};

/// Objects in a page of a list unless the client wants fewer.
const PAGE: usize = 500;

// === impl Shared ===

impl Shared {
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let view = View::asked_for(header_text(request.headers(), header::ACCEPT));
        let line = format!("{} {} {view:?}", request.method(), request.uri());
        lock(&self.requests).push(line);
        let (delay, status_delay, refused, missing, forbidden) = {
            let mut faults = lock(&self.faults);
            let refused = faults.refuse > 0;
            faults.refuse = faults.refuse.saturating_sub(1);
            (faults.delay, faults.status_delay, refused, faults.missing_group, faults.forbidden)
        };
        sleep(delay).await;
        if refused {
            return Refusal::TooManyRequests.response();
        }
        let path = request.uri().path();
        if missing.is_some_and(|group| path.starts_with(&format!("/apis/{group}/"))) {
            return Refusal::NotFound(format!("path {path}")).response();
        }
        if forbidden == Some(path) {
            return Refusal::Forbidden(path.to_owned()).response();
        }
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Refusal::Invalid(error.to_string()).response(),
        };
        let is_held = head.method != Method::GET && head.uri.path().ends_with("/status");
        let judged = if is_held && !status_delay.is_zero() {
            let later = async move {
                sleep(status_delay).await;
                self.judge(head, body).await
            };
            let judged = tokio::spawn(later).await;
            judged.unwrap_or_else(|error| Err(Refusal::Invalid(error.to_string())))
        } else {
            self.judge(head, body).await
        };
        judged.unwrap_or_else(|refusal| refusal.response())
    }

    async fn judge(self: Arc<Self>, head: Parts, body: Bytes) -> Result<Response<Body>, Refusal> {
        let path = head.uri.path();
        let query = Query::parse(head.uri.query().unwrap_or_default()).map_err(Refusal::Invalid)?;
        let view = View::asked_for(header_text(&head.headers, header::ACCEPT));
        let target = path::parse(path).ok_or_else(|| Refusal::NotFound(format!("path {path}")))?;
        let is_change = head.method != Method::GET;
        let response = match (head.method, target) {
            (Method::GET, Target::Discovery) => discovery::document(path)
                .map(|document| answer::json(&document))
                .ok_or_else(|| Refusal::NotFound(format!("path {path}"))),
            (Method::POST, Target::TokenReview) => self.review(&body),
            (Method::GET, Target::Collection(place)) => self.clone().collection(place, query, view),
            (Method::POST, Target::Collection(place)) => self.create(&place, parse(&body)?).await,
            (Method::DELETE, Target::Collection(place)) => self.delete_all(&place, &query),
            (method, Target::Object { place, name, status }) => {
                let format = header_text(&head.headers, header::CONTENT_TYPE);
                match method {
                    Method::PUT | Method::PATCH => {
                        let wanted = self.wanted(&method, &place, &name, (format, &body))?;
                        self.update(&place, &name, status, wanted, view).await
                    }
                    Method::GET => {
                        Ok(answer::json(&view.of(&place, self.store().get(&place, &name)?)))
                    }
                    Method::DELETE => {
                        Ok(answer::json(&view.of(&place, &self.store().delete(&place, &name)?)))
                    }
                    _ => Err(Refusal::Unsupported(format!("{method} {path}"))),
                }
            }
            (method, _) => Err(Refusal::Unsupported(format!("{method} {path}"))),
        };
        if is_change {
            self.changes.send_replace(());
        }
        response
    }

    async fn create(&self, place: &Place, object: Object) -> Result<Response<Body>, Refusal> {
        let candidate = Candidate { place, operation: "CREATE", object: &object, old: None };
        let warnings = self.admit(candidate).await?;
        let created = self.store().create(place, object)?;
        let response = answer::with_status(StatusCode::CREATED, &View::Whole.of(place, &created));
        Ok(answer::warned(response, &warnings))
    }

    /// Returns the object that a replacement or a patch asks for, and the one there is.
    fn wanted(
        &self,
        method: &Method,
        place: &Place,
        name: &str,
        (format, body): (&str, &[u8]),
    ) -> Result<(Object, Option<Object>), Refusal> {
        let before = self.store().get(place, name).cloned();
        if *method == Method::PUT {
            return Ok((parse(body)?, Some(before?)));
        }
        let unknown = || Refusal::Invalid(format!("a patch of type {format:?}"));
        let format = Format::of(format).ok_or_else(unknown)?;
        match before {
            Ok(before) => Ok((format.apply(before.clone(), body)?, Some(before))),
            Err(_) if format == Format::Apply => {
                let mut object = parse(body)?;
                object::metadata_mut(&mut object).insert("name".to_owned(), name.into());
                Ok((object, None))
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn update(
        &self,
        place: &Place,
        name: &str,
        status: bool,
        (object, old): (Object, Option<Object>),
        view: View,
    ) -> Result<Response<Body>, Refusal> {
        let Some(old) = old else {
            if status {
                return Err(Refusal::NotFound(format!("status of {name}")));
            }
            return self.create(place, object).await;
        };
        let mut warnings = Vec::new();
        if !status {
            let candidate =
                Candidate { place, operation: "UPDATE", object: &object, old: Some(&old) };
            warnings = self.admit(candidate).await?;
        }
        let updated = self.store().update(place, name, object, status)?;
        Ok(answer::warned(answer::json(&view.of(place, &updated)), &warnings))
    }

    fn collection(
        self: Arc<Self>,
        place: Place,
        query: Query,
        view: View,
    ) -> Result<Response<Body>, Refusal> {
        if query.is_watch {
            let version = query.resource_version.as_deref().filter(|version| *version != "0");
            let version = version
                .map(str::parse::<u64>)
                .transpose()
                .map_err(|_| Refusal::Invalid("resourceVersion is not a number".to_owned()))?;
            let left = lock(&self.faults).watch_events;
            return Ok(Watch::new(place, query, view, left).start(self, version));
        }
        let store = self.store();
        let start = query.next.as_deref().map(key_of).transpose()?;
        let limit = query.limit.unwrap_or(usize::MAX).min(PAGE);
        let mut matching = store
            .list(&place, start.as_ref())
            .filter(|(_, object)| query.selector.matches(object))
            .peekable();
        let mut items = Vec::new();
        let mut end = None;
        while items.len() < limit
            && let Some((key, object)) = matching.next()
        {
            items.push(view.of(&place, object));
            end = Some(key);
        }
        let next = matching.peek().and(end).map(|(namespace, name)| format!("{namespace}/{name}"));
        let list = list_object(&place, &items, store.version(), next);
        Ok(answer::json(&view.of_list(list)))
    }

    fn delete_all(&self, place: &Place, query: &Query) -> Result<Response<Body>, Refusal> {
        let mut store = self.store();
        let keys: Vec<Key> = store
            .list(place, None)
            .filter(|(_, object)| query.selector.matches(object))
            .map(|(key, _)| key.clone())
            .collect();
        for (namespace, name) in keys {
            let namespace = place.resource.namespaced.then_some(namespace);
            store.delete(&Place { namespace, ..place.clone() }, &name)?;
        }
        Ok(answer::json(&list_object(place, &[], store.version(), None)))
    }

    fn review(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let request = Value::Object(parse(body)?);
        let token = request["spec"]["token"].as_str().unwrap_or_default();
        let holder = lock(&self.tokens).get(token).cloned();
        Ok(answer::with_status(StatusCode::CREATED, &token::review(request, holder.as_ref())))
    }
}

fn parse(body: &[u8]) -> Result<Object, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::Invalid(format!("the body: {e}")))
}

fn key_of(next: &str) -> Result<Key, Refusal> {
    let (namespace, name) = next
        .split_once('/')
        .ok_or_else(|| Refusal::Invalid("continue is not from an earlier page".to_owned()))?;
    Ok((namespace.to_owned(), name.to_owned()))
}

fn header_text(headers: &http::HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
