//! Asks the other services.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// Port of all services.
const PORT: u16 = 9080;

/// Longest answer that is read, in bytes: those of Bookinfo have less than 2 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// Where the services are.
#[derive(Debug, clap::Args)]
pub(crate) struct Hosts {
    /// Name of details.
    #[arg(long, env = "DETAILS_HOSTNAME", default_value = "details")]
    pub(crate) details: String,
    /// Name of reviews.
    #[arg(long, env = "REVIEWS_HOSTNAME", default_value = "reviews")]
    pub(crate) reviews: String,
    /// Name of ratings.
    #[arg(long, env = "RATINGS_HOSTNAME", default_value = "ratings")]
    pub(crate) ratings: String,
    /// What the names end with.
    #[arg(long, env = "SERVICES_DOMAIN", default_value = "")]
    pub(crate) domain: String,
}

/// What a service answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

// === impl Hosts ===

impl Hosts {
    /// Asks one of these hosts for `path`, for at most `limit`.
    pub(crate) async fn get(
        &self,
        host: &str,
        path: &str,
        headers: &HeaderMap,
        limit: Duration,
    ) -> Result<Answer> {
        let host = if self.domain.is_empty() {
            host.to_owned()
        } else {
            format!("{host}.{}", self.domain)
        };
        timeout(limit, exchange(&host, path, headers)).await.context("no answer in time")?
    }
}

async fn exchange(host: &str, path: &str, headers: &HeaderMap) -> Result<Answer> {
    let stream = TcpStream::connect((host, PORT)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
    headers.clone_into(request.headers_mut());
    request.headers_mut().insert(HOST, HeaderValue::try_from(format!("{host}:{PORT}"))?);
    let asked = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        // What proxies answer in place of a service is no JSON.
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Answer { status: head.status, body })
    };
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => {
            ended?;
            asked.await
        }
    }
}
