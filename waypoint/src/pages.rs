//! What the waypoint shows operators.

use std::{
    future::{Future, pending},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fairlead_component::{
    http::{Handler, response, serve},
    logging::Levels,
    operator::{TEXT, change_levels, levels_in_force, pages, serve_metrics, serve_readiness},
    readiness::Readiness,
};
use fairlead_tunnel::identity::{self, IdentityStore};
use fairlead_waypoint::{cli::RunArgs, proxy::worker::Shared, telemetry::clusters};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::{net::TcpListener, sync::Notify};

/// What the admin page has.
const HELP: &str = "\
GET  /config_dump        what this waypoint knows: services, routes, certificates without their keys,
                         which parts secrets have
GET  /logging            what it logs
POST /logging?level=L    changes that: a level, or target:level, or several with commas; ?reset
                         returns to what it was started with
POST /quitquitquit       ends the waypoint, as SIGTERM does: open connections get the drain period
";

/// What the pages show.
pub(crate) struct Pages<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) identities: &'a IdentityStore,
    pub(crate) readiness: &'a Readiness,
}

struct Admin {
    shared: Arc<Shared>,
    identities: IdentityStore,
    levels: Levels,
    quit: Arc<Notify>,
}

// === impl Pages ===

impl Pages<'_> {
    /// Listens, and returns what serves.
    pub(crate) async fn serve(
        self,
        levels: Levels,
        quit: Arc<Notify>,
    ) -> Result<impl Future<Output = Result<()>>> {
        let Self { args, shared, identities, readiness } = self;
        let (metrics, ready, admin) = (
            listen("--metrics-address", args.metrics_address).await?,
            listen("--readiness-address", args.readiness_address).await?,
            listen("--admin-address", args.admin_address).await?,
        );
        let (shared, readiness) = (shared.clone(), readiness.clone());
        let pages = Admin { shared: shared.clone(), identities: identities.clone(), levels, quit };
        Ok(async move {
            let full = &shared.metrics.full;
            let encode = || shared.metrics.encode(&clusters(shared.snapshot.load().statistics()));
            tokio::select! {
                never = serve_metrics(&metrics, encode, full) => never,
                never = serve_readiness(&ready, &readiness, full) => never,
                never = serve("admin", &admin, &pages, full) => never,
                () = pending() => {}
            }
            Ok(())
        })
    }
}

async fn listen(option: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}: give another {option}"))
}

// === impl Admin ===

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/config_dump") => {
                let snapshot = self.shared.snapshot.load();
                let dump = json!({
                    "gateway": &*self.shared.gateway,
                    "version": env!("CARGO_PKG_VERSION"),
                    "services": snapshot.dump(),
                    "credentials": snapshot.dump_credentials(),
                    "certificates": identity::dump::certificates(
                        &self.identities.certificates(),
                        SystemTime::now(),
                    ),
                });
                response(StatusCode::OK, "application/json", format!("{dump:#}\n"))
            }
            (&Method::POST, "/logging") => {
                change_levels(&self.levels, request.uri().query().unwrap_or_default())
            }
            (&Method::GET | &Method::HEAD, "/logging") => levels_in_force(&self.levels),
            (&Method::POST, "/quitquitquit") => {
                self.quit.notify_one();
                response(StatusCode::OK, TEXT, "shutting down now\n")
            }
            (_, "/quitquitquit") => {
                response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST is allowed\n")
            }
            _ => pages(&request, &["/", "/config_dump", "/logging"], || {
                response(StatusCode::OK, TEXT, HELP)
            }),
        }
    }
}
