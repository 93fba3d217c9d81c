//! The admin interface: metrics, readiness, and what clients have been told.
//!
//! It has no access control; keep it on a local address.

use std::sync::Arc;

use bytes::Bytes;
use fairlead_component::http::{Handler, response, serve};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mesh_api::proto::{
    l7::{Credential, Resource as L7},
    security::Authorization,
    workload::{Service, Workload},
};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::error;

use super::metrics::Metrics;
use crate::{
    resource::{Kind, Resource},
    xds::{Published, clients::Clients, resource_type::ResourceType},
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Types that together are everything.
const COLLECTIONS: [ResourceType; 4] = [
    ResourceType::Authorization,
    ResourceType::Address,
    ResourceType::Credential,
    ResourceType::L7,
];

const INDEX: &str = "\
/metrics                      metrics for Prometheus
/ready                        200 when clients are served
/debug/syncz                  clients, and what each was told and confirmed
/debug/config_dump            names and versions of all resources
/debug/config_dump?name=NAME  one resource in full, but for what secrets hold
";

/// What the admin interface shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// Its resources.
    pub published: Arc<Published>,
    /// Its clients.
    pub clients: Clients,
}

// === impl Admin ===

impl Admin {
    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) -> ! {
        let full = self.metrics.limit("admin_connections");
        serve("admin", &listener, &self, &full).await
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is allowed\n");
        }
        match request.uri().path() {
            "/" => response(StatusCode::OK, TEXT, INDEX),
            "/metrics" => self.metrics(),
            "/ready" => self.ready(),
            "/debug/syncz" => json_response(&self.clients.view()),
            "/debug/config_dump" => self.config_dump(request.uri().query()),
            _ => response(
                StatusCode::NOT_FOUND,
                TEXT,
                format!("not found; this server has\n{INDEX}"),
            ),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.encode() {
            Ok(body) => response(StatusCode::OK, TEXT, body),
            Err(error) => {
                error!(%error, "the metrics cannot be encoded");
                response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "encoding failed\n")
            }
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.published.has_state() {
            return response(StatusCode::OK, TEXT, "ready\n");
        }
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: waiting for the first state\n")
    }

    fn config_dump(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let name = query.and_then(|query| query.strip_prefix("name="));
        let Some(name) = name else { return json_response(&self.list()) };
        let store = self.published.store();
        let mut found = COLLECTIONS.into_iter().flat_map(|t| store.of(t).find(name));
        match found.next() {
            Some((_, entry)) => json_response(&full(entry.resource())),
            None => response(StatusCode::NOT_FOUND, TEXT, "no resource has this name\n"),
        }
    }

    fn list(&self) -> Value {
        let store = self.published.store();
        let resources = COLLECTIONS.into_iter().map(|resource_type| {
            let all = store.live(resource_type).map(|entry| summary(entry.resource()));
            (resource_type.url().to_owned(), Value::Array(all.collect()))
        });
        Value::Object(resources.collect())
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // A dump of a large mesh takes long, and the task that serves has other work.
        let admin = self.clone();
        let page = tokio::task::spawn_blocking(move || admin.answer(&request)).await;
        page.unwrap_or_else(|error| {
            error!(%error, "a page cannot be made");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page cannot be made\n")
        })
    }
}

fn summary(resource: &Resource) -> Value {
    json!({
        "name": resource.name.as_str(),
        "version": resource.version.to_string(),
        "aliases": resource.aliases,
        "bytes": resource.body.len(),
    })
}

fn full(resource: &Resource) -> Value {
    fn text<M: Message + Default + std::fmt::Debug>(body: &Bytes) -> String {
        match M::decode(body.clone()) {
            Ok(message) => format!("{message:#?}"),
            Err(error) => error.to_string(),
        }
    }
    let content = match resource.kind {
        Kind::Workload => text::<Workload>(&resource.body),
        Kind::Service => text::<Service>(&resource.body),
        Kind::Authorization => text::<Authorization>(&resource.body),
        Kind::L7 => text::<L7>(&resource.body),
        Kind::Credential => text::<Credential>(&resource.body),
    };
    let mut value = summary(resource);
    value["content"] = content.lines().collect();
    value
}

fn json_response(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => response(StatusCode::OK, JSON, body + "\n"),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}
