//! The HTTP endpoints for operators: metrics, readiness, and the admin page on loopback.

use std::future::Future;

use bytes::Bytes;
use fairlead_component::{
    http::{Handler, response, serve},
    logging::Levels,
    operator::{self, TEXT, change_levels, levels_in_force, pages},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{metrics::NodeMetrics, readiness::Readiness};

/// Port of [`serve_metrics`].
pub const METRICS_PORT: u16 = 15020;

/// Port of [`serve_readiness`].
pub const READINESS_PORT: u16 = 15021;

/// Port of [`serve_admin`], on loopback only.
pub const ADMIN_PORT: u16 = 15000;

/// What the admin page has.
const HELP: &str = "\
GET  /config_dump        what this proxy knows: workloads, services, policies, certificates without
                         their keys, and its live connections
GET  /logging            what it logs
POST /logging?level=L    changes that: a level, or target:level, or several with commas; ?reset
                         returns to what it was started with (for all processes: `fairlead-node
                         log-level`)
POST /quitquitquit       ends the node proxy, as SIGTERM does: connections that are open get the
                         drain period to finish; new ones of its pods go on without the mesh, or are
                         refused until it is started again if it runs with --keep-capture
";

struct AdminPages<'a, A>(&'a A);

/// What the admin page shows and changes.
pub trait Admin {
    /// Returns what this process knows: workloads, services, policies, certificates without keys,
    /// and live connections.
    fn config_dump(&self) -> impl Future<Output = Value>;

    /// Returns what changes the log.
    fn levels(&self) -> &Levels;

    /// Asks that the node proxy ends, in order.
    fn quit(&self);
}

/// Serves `/metrics` and `/stats/prometheus` until dropped.
pub async fn serve_metrics(listener: &TcpListener, metrics: &NodeMetrics) -> ! {
    let full = metrics.limit("metrics_connections");
    operator::serve_metrics(listener, || metrics.encode(), &full).await
}

/// Serves `/healthz/ready` until dropped.
pub async fn serve_readiness(
    listener: &TcpListener,
    readiness: &Readiness,
    metrics: &NodeMetrics,
) -> ! {
    let full = metrics.limit("readiness_connections");
    operator::serve_readiness(listener, readiness, &full).await
}

/// Serves the pages of [`HELP`] until dropped.
pub async fn serve_admin(listener: &TcpListener, admin: &impl Admin, metrics: &NodeMetrics) -> ! {
    let full = metrics.limit("admin_connections");
    serve("admin", listener, &AdminPages(admin), &full).await
}

// === impl AdminPages ===

impl<A: Admin> Handler for AdminPages<'_, A> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/config_dump") => {
                let dump = self.0.config_dump().await;
                response(StatusCode::OK, "application/json", format!("{dump:#}\n"))
            }
            (&Method::POST, "/logging") => {
                change_levels(self.0.levels(), request.uri().query().unwrap_or_default())
            }
            (&Method::POST, "/quitquitquit") => {
                self.0.quit();
                response(StatusCode::OK, TEXT, "shutting down now\n")
            }
            (&Method::GET | &Method::HEAD, "/logging") => levels_in_force(self.0.levels()),
            (_, "/quitquitquit") => {
                response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST is allowed\n")
            }
            _ => pages(&request, &["/", "/config_dump", "/logging"], || {
                response(StatusCode::OK, TEXT, HELP)
            }),
        }
    }
}

#[cfg(test)]
mod tests;
