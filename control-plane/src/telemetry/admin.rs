//! The admin interface: metrics, readiness, and what clients have been told.
//!
//! It has no access control; keep it on a local address.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_api::proto::{
    security::Authorization,
    workload::{Service, Workload},
};
use prost::Message;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, error, warn};

use super::metrics::Metrics;
use crate::{
    resource::{Kind, Resource},
    xds::{Published, clients::Clients, resource_type::ResourceType},
};

/// Connections at once; scrapers, probes and people need a handful.
const MAX_CONNECTIONS: usize = 64;

/// Request line and headers, in bytes; the largest request here has a few hundred.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Time to send the request line and headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a whole exchange: a peer that reads nothing does not hold its connection for longer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_mins(1);

/// Pause after a failed accept, which is most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "\
/metrics                      metrics for Prometheus
/ready                        200 when clients are served
/debug/syncz                  clients, and what each was told and confirmed
/debug/config_dump            names and versions of all resources
/debug/config_dump?name=NAME  one resource in full
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
    pub async fn serve(self, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let admin = self.clone();
                    tokio::spawn(async move {
                        admin.exchange(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin interface: accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn exchange(self, stream: TcpStream) {
        let service = service_fn(|request| {
            let response = self.answer(&request);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(EXCHANGE_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "admin interface: connection failed"),
            Err(_) => debug!("admin interface: connection took too long"),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
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
        let mut found = ResourceType::ALL.into_iter().take(2).flat_map(|t| store.of(t).find(name));
        match found.next() {
            Some((_, entry)) => json_response(&full(entry.resource())),
            None => response(StatusCode::NOT_FOUND, TEXT, "no resource has this name\n"),
        }
    }

    fn list(&self) -> Value {
        let store = self.published.store();
        let types = [ResourceType::Authorization, ResourceType::Address];
        let resources = types.into_iter().map(|resource_type| {
            let all = store.live(resource_type).map(|entry| summary(entry.resource()));
            (resource_type.url().to_owned(), Value::Array(all.collect()))
        });
        Value::Object(resources.collect())
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

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
