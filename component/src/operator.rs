//! The pages that every process has for operators: metrics and readiness.

use std::fmt;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::ACCEPT};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tracing::error;

use crate::{
    http::{Handler, response, serve},
    logging::Levels,
    readiness::Readiness,
};

/// Type of pages of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_FULL: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct MetricsPages<F>(F);

struct ReadinessPage<'a>(&'a Readiness);

/// Serves what `encode` returns at `/metrics` and `/stats/prometheus` until dropped; `full` counts how
/// often there were too many connections.
pub async fn serve_metrics(
    listener: &TcpListener,
    encode: impl Fn() -> Result<String, fmt::Error>,
    full: &Counter,
) -> ! {
    serve("metrics", listener, &MetricsPages(encode), full).await
}

/// Serves `/healthz/ready` until dropped; `full` as above.
pub async fn serve_readiness(listener: &TcpListener, readiness: &Readiness, full: &Counter) -> ! {
    serve("readiness", listener, &ReadinessPage(readiness), full).await
}

/// Answers GET and HEAD of the given paths by `page`, and names the paths to all others.
pub fn pages(
    request: &Request<Incoming>,
    paths: &[&str],
    page: impl FnOnce() -> Response<Full<Bytes>>,
) -> Response<Full<Bytes>> {
    if !paths.contains(&request.uri().path()) {
        let body = format!("not found; this server has {}\n", paths.join(" and "));
        return response(StatusCode::NOT_FOUND, TEXT, body);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is allowed\n");
    }
    page()
}

/// Changes what is logged as the query says, `level=info,access:off` or `reset`, and answers with what
/// is in force then.
pub fn change_levels(levels: &Levels, query: &str) -> Response<Full<Bytes>> {
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let changed = match &*key {
            "level" => levels.change(&value).map_err(|error| error.to_string()),
            "reset" => {
                levels.reset();
                Ok(())
            }
            other => Err(format!("unknown parameter \"{other}\"; use level=LEVEL or reset")),
        };
        if let Err(error) = changed {
            return response(StatusCode::BAD_REQUEST, TEXT, error + "\n");
        }
    }
    levels_in_force(levels)
}

/// Answers with what is logged.
pub fn levels_in_force(levels: &Levels) -> Response<Full<Bytes>> {
    response(StatusCode::OK, TEXT, format!("current log level is {levels}\n"))
}

// === impl MetricsPages ===

impl<F: Fn() -> Result<String, fmt::Error>> Handler for MetricsPages<F> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        pages(&request, &["/metrics", "/stats/prometheus"], || match self.0() {
            Ok(body) => response(StatusCode::OK, metrics_content_type(&request), body),
            Err(error) => {
                error!(%error, "the metrics cannot be encoded");
                response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "encoding failed\n")
            }
        })
    }
}

fn metrics_content_type<B>(request: &Request<B>) -> &'static str {
    let accepts = request.headers().get_all(ACCEPT).iter();
    let mut accepts = accepts.filter_map(|accept| accept.to_str().ok());
    if accepts.any(|accept| accept.contains(OPEN_METRICS)) { OPEN_METRICS_FULL } else { TEXT }
}

// === impl ReadinessPage ===

impl Handler for ReadinessPage<'_> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        pages(&request, &["/healthz/ready"], || {
            let pending = self.0.pending();
            if pending.is_empty() {
                return response(StatusCode::OK, TEXT, "ready");
            }
            let body = format!("not ready, pending: {}", pending.join(", "));
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, body)
        })
    }
}
