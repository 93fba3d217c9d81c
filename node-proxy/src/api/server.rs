//! The API's server: requests are parsed and bounded here and carried out by a [`PodControl`].

use std::time::Duration;

use bytes::Bytes;
use fairlead_component::http::{Handler, response, serve as serve_http};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    ApiError, ApiErrorKind, ApiSocket, PODS_PATH, PodControl, PodKey, PodSpec, types::ErrorBody,
};

/// Largest request body, in bytes; a pod's specification has a few hundred.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Time to carry a request out, its body included. An enrolment takes milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Api<'a, C>(&'a C);

/// A failed request: status and body of its answer.
struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

/// Serves the API until dropped.
pub async fn serve<C: PodControl>(socket: &ApiSocket, control: &C) -> ! {
    // Capture has no metrics of its own; a full API says so in the log.
    serve_http("api", socket, &Api(control), &Counter::default()).await
}

// === impl Api ===

impl<C: PodControl> Handler for Api<'_, C> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = timeout(REQUEST_TIMEOUT, self.answer(request)).await;
        answer.unwrap_or_else(|_| Err(Failure::timed_out())).unwrap_or_else(Failure::into_response)
    }
}

impl<C: PodControl> Api<'_, C> {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let (parts, body) = request.into_parts();
        match (parts.method, parts.uri.path().strip_prefix(PODS_PATH)) {
            (Method::GET, Some("")) => Ok(json(StatusCode::OK, &self.0.list().await)),
            (Method::POST, Some("")) => {
                let spec = read_spec(body).await?;
                Ok(json(StatusCode::CREATED, &self.0.add(spec).await?))
            }
            (Method::DELETE, Some(pod)) if pod.starts_with('/') => {
                self.0.remove(&parse_key(pod)?).await?;
                Ok(json(StatusCode::OK, &serde_json::json!({})))
            }
            _ => Err(Failure::no_such_request()),
        }
    }
}

async fn read_spec(body: Incoming) -> Result<PodSpec, Failure> {
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(Failure::too_large()),
        Err(error) => {
            let message = format!("the body was cut off ({error})");
            return Err(ApiError::invalid(message, "send it again").into());
        }
    };
    let spec: PodSpec = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(
            format!("the body is not a pod specification: {error}"),
            "send namespace, name, service_account, netns and, if wanted, uid",
        )
    })?;
    spec.validate()?;
    Ok(spec)
}

/// Parses `/namespace/name`.
fn parse_key(path: &str) -> Result<PodKey, ApiError> {
    const REMEDY: &str = "use /v1/pods/{namespace}/{name}";
    let invalid = |error: &dyn ToString| ApiError::invalid(error.to_string(), REMEDY);
    let (namespace, name) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or_else(|| invalid(&"the path names no pod"))?;
    Ok(PodKey {
        namespace: namespace.parse().map_err(|error| invalid(&error))?,
        name: name.parse().map_err(|error| invalid(&error))?,
    })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(body) {
        Ok(body) => response(status, "application/json", body),
        // A path that is not UTF-8 has no JSON form.
        Err(error) => Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer has no JSON form: {error}"),
            "use UTF-8 paths",
        )
        .into_response(),
    }
}

// === impl Failure ===

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), remedy: remedy.into() } }
    }

    fn no_such_request() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no such request",
            "use GET or POST /v1/pods, or DELETE /v1/pods/{namespace}/{name}",
        )
    }

    fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body exceeds {MAX_BODY_BYTES} bytes"),
            "send one pod specification",
        )
    }

    fn timed_out() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("not finished within {} s", REQUEST_TIMEOUT.as_secs()),
            "see the log of fairlead-node, and list the pods before you try again",
        )
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        json(self.status, &self.body)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match error.kind {
            ApiErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ApiErrorKind::NotFound => StatusCode::NOT_FOUND,
            ApiErrorKind::Conflict => StatusCode::CONFLICT,
            ApiErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message, error.remedy)
    }
}
