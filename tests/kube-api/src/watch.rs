//! Watches: what happens to a collection, as it happens.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{
    BodyExt as _,
    channel::{Channel, Sender},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    answer::{Body, Refusal, json_response},
    object::Object,
    path::Place,
    query::{Query, Selector},
    server::Shared,
    store::Event,
    view::View,
};

/// Time between bookmarks while nothing happens.
const BOOKMARK_INTERVAL: Duration = Duration::from_millis(500);

/// Longest life of a watch that sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);

/// Events on their way to a client.
const QUEUED_EVENTS: usize = 16;

/// A watch of a collection.
pub(crate) struct Watch {
    pub(crate) place: Place,
    pub(crate) selector: Selector,
    pub(crate) view: View,
    bookmarks: bool,
    end: Instant,
    /// Events until it is cut off.
    left: Option<u32>,
}

/// What to send, or why to stop.
enum Next {
    Lines(Vec<Value>),
    Expired,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(place: Place, query: Query, view: View, left: Option<u32>) -> Self {
        let life = query.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let end = Instant::now() + life;
        Self { place, selector: query.selector, view, bookmarks: query.bookmarks, end, left }
    }

    /// Begins after `version`; without one, with everything that exists.
    pub(crate) fn start(self, shared: Arc<Shared>, version: Option<u64>) -> Response<Body> {
        let (sender, body) = Channel::<Bytes, io::Error>::new(QUEUED_EVENTS);
        tokio::spawn(self.run(shared, version, sender));
        json_response(StatusCode::OK, body.boxed_unsync())
    }

    async fn run(
        mut self,
        shared: Arc<Shared>,
        version: Option<u64>,
        mut sender: Sender<Bytes, io::Error>,
    ) {
        let mut changes = shared.changes.subscribe();
        let dropped = shared.dropped_watches.subscribe();
        let mut position = version;
        let mut bookmarked = None;
        loop {
            let _ = changes.borrow_and_update();
            let lines = match self.next(&shared, &mut position) {
                Next::Lines(lines) => lines,
                Next::Expired => vec![line("ERROR", &Refusal::Expired.status())],
            };
            let room = self.left.map_or(usize::MAX, |left| left as usize);
            for line in lines.iter().take(room) {
                if send(&mut sender, line).await.is_err() || line["type"] == "ERROR" {
                    return;
                }
            }
            self.left = self.left.map(|left| left.saturating_sub(count(&lines)));
            tokio::select! {
                news = timeout(BOOKMARK_INTERVAL, changes.changed()) => {
                    let is_quiet = news.is_err();
                    if is_quiet && self.bookmarks && position != bookmarked {
                        bookmarked = position;
                        if send(&mut sender, &self.bookmark(position)).await.is_err() {
                            return;
                        }
                    }
                }
                () = sleep_until(self.end) => return,
            }
            // What was sent has had time to arrive.
            if dropped.has_changed().unwrap_or(true) || self.left == Some(0) {
                return sender.abort(io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    /// Returns what happened since `position`, and moves it.
    fn next(&self, shared: &Shared, position: &mut Option<u64>) -> Next {
        let store = shared.store();
        let lines = match *position {
            None => store
                .list(&self.place, None)
                .filter(|(_, object)| self.selector.matches(object))
                .map(|(_, object)| line("ADDED", &self.view.of(&self.place, object)))
                .collect(),
            Some(version) => match store.since(version) {
                Ok(events) => events.filter_map(|event| self.line(event)).collect(),
                Err(_) => return Next::Expired,
            },
        };
        *position = Some(store.version());
        Next::Lines(lines)
    }

    /// Returns what the client is told of a change: an object that no longer matches is gone for it.
    fn line(&self, event: &Event) -> Option<Value> {
        let is_here = event.resource == self.place.resource
            && self.place.namespace.as_ref().is_none_or(|namespace| {
                event.object["metadata"].get("namespace").is_some_and(|own| own == namespace)
            });
        if !is_here {
            return None;
        }
        let did_match = event.before.as_ref().is_some_and(|before| self.selector.matches(before));
        let does_match = !event.is_deletion && self.selector.matches(&event.object);
        let kind = match (did_match, does_match) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(line(kind, &self.view.of(&self.place, &event.object)))
    }

    fn bookmark(&self, position: Option<u64>) -> Value {
        let version = position.unwrap_or_default().to_string();
        let mut object = Object::new();
        object.insert("metadata".to_owned(), json!({ "resourceVersion": version }));
        line("BOOKMARK", &self.view.of(&self.place, &object))
    }
}

fn line(kind: &str, object: &Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn count(lines: &[Value]) -> u32 {
    u32::try_from(lines.len()).unwrap_or(u32::MAX)
}

async fn send(sender: &mut Sender<Bytes, io::Error>, line: &Value) -> Result<(), ()> {
    sender.send_data(Bytes::from(format!("{line}\n"))).await.map_err(drop)
}
