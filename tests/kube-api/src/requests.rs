//! Requests, from their path to the store and back.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
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
        let (delay, refused, missing) = {
            let mut faults = lock(&self.faults);
            let refused = faults.refuse > 0;
            faults.refuse = faults.refuse.saturating_sub(1);
            (faults.delay, refused, faults.missing_group)
        };
        sleep(delay).await;
        if refused {
            return Refusal::TooManyRequests.response();
        }
        let path = request.uri().path();
        if missing.is_some_and(|group| path.starts_with(&format!("/apis/{group}/"))) {
            return Refusal::NotFound(format!("path {path}")).response();
        }
        self.judge(request).await.unwrap_or_else(|refusal| refusal.response())
    }

    async fn judge(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let query = Query::parse(head.uri.query().unwrap_or_default()).map_err(Refusal::Invalid)?;
        let view = View::asked_for(header_text(&head.headers, header::ACCEPT));
        let target = path::parse(path).ok_or_else(|| Refusal::NotFound(format!("path {path}")))?;
        let body = body.collect().await.map_err(|e| Refusal::Invalid(e.to_string()))?.to_bytes();
        let is_change = head.method != Method::GET;
        let response = match (head.method, target) {
            (Method::GET, Target::Discovery) => discovery::document(path)
                .map(|document| answer::json(&document))
                .ok_or_else(|| Refusal::NotFound(format!("path {path}"))),
            (Method::POST, Target::TokenReview) => self.review(&body),
            (Method::GET, Target::Collection(place)) => self.clone().collection(place, query, view),
            (Method::POST, Target::Collection(place)) => {
                let created = self.store().create(&place, parse(&body)?)?;
                Ok(answer::with_status(StatusCode::CREATED, &View::Whole.of(&place, &created)))
            }
            (Method::DELETE, Target::Collection(place)) => self.delete_all(&place, &query),
            (method, Target::Object { place, name, status }) => {
                let format = header_text(&head.headers, header::CONTENT_TYPE);
                self.object(&method, &place, &name, status, (format, &body), view)
            }
            (method, _) => Err(Refusal::Unsupported(format!("{method} {path}"))),
        };
        if is_change {
            self.changes.send_replace(());
        }
        response
    }

    fn object(
        &self,
        method: &Method,
        place: &Place,
        name: &str,
        status: bool,
        (format, body): (&str, &[u8]),
        view: View,
    ) -> Result<Response<Body>, Refusal> {
        let mut store = self.store();
        let object = match *method {
            Method::GET => store.get(place, name)?.clone(),
            Method::PUT => store.update(place, name, parse(body)?, status)?,
            Method::DELETE => store.delete(place, name)?,
            Method::PATCH => {
                let unknown = || Refusal::Invalid(format!("a patch of type {format:?}"));
                let format = Format::of(format).ok_or_else(unknown)?;
                match store.get(place, name).cloned() {
                    Ok(before) => store.update(place, name, format.apply(before, body)?, status)?,
                    Err(_) if format == Format::Apply && !status => {
                        let mut object = parse(body)?;
                        let fields = object::metadata_mut(&mut object);
                        fields.insert("name".to_owned(), name.into());
                        store.create(place, object)?
                    }
                    Err(refusal) => return Err(refusal),
                }
            }
            _ => return Err(Refusal::Unsupported(method.to_string())),
        };
        Ok(answer::json(&view.of(place, &object)))
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
