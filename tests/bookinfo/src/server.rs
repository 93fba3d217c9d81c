//! Serves one of the services.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    Service, client::Hosts, details, productpage, propagation::from_service, ratings, reply::Reply,
    reviews,
};

/// A service, and where the others are.
pub(crate) struct App {
    pub(crate) service: Service,
    pub(crate) version: String,
    pub(crate) hosts: Hosts,
}

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr, app: App) -> Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let app = Arc::new(app);
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        tokio::spawn(connection(stream, app.clone()));
    }
}

async fn connection(stream: TcpStream, app: Arc<App>) {
    let service = service_fn(|request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.serve(request).await) }
    });
    // Clients come and go as they like.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

// === impl App ===

impl App {
    async fn serve(&self, request: Request<Incoming>) -> Reply {
        let about = about(&request);
        let reply = match self.service {
            Service::Productpage => productpage::answer(&self.hosts, request).await,
            Service::Details => details::answer(request.method(), request.uri().path()),
            Service::Reviews => reviews::answer(&self.version, &self.hosts, &request).await,
            Service::Ratings => {
                ratings::answer(&self.version, request.method(), request.uri().path()).await
            }
        };
        let (service, version, status) =
            (self.service.name(), &self.version, reply.status().as_u16());
        println!(
            "{}",
            json!({"service": service, "version": version, "status": status, "request": about})
        );
        reply
    }
}

/// Returns what the log says of a request: with the headers that it passed on.
fn about(request: &Request<Incoming>) -> Value {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut about = json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "host": request.headers().get(http::header::HOST).map(text),
    });
    for (name, value) in &from_service(request.headers()) {
        about[name.as_str()] = text(value).into();
    }
    about
}
