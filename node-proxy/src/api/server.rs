//! The API's server: requests are parsed and bounded here and carried out by a [`PodControl`].

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use fairlead_component::{
    http::{Handler, response, serve as serve_http},
    logging::LevelChange,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    ApiError, ApiErrorKind, ApiSocket, EXPLAIN_PATH, INVENTORY_PATH, LOGGING_PATH, Logging,
    NOTES_PATH, Note, Origin, PODS_PATH, PROFILE_PATH, PROFILE_TYPE, PassedConnections, PodControl,
    PodKey, PodSpec, types::ErrorBody,
};
use crate::{
    profile::{Kind, MAX_SECONDS, Window},
    supervise::control::MAX_FILTER_BYTES,
};

/// Largest request body, in bytes; a pod's specification has a few hundred.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Time to carry a request out, its body included. An enrolment takes milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that a profile takes in addition to its own: to attach to the kernel, and to read the symbols
/// of the program.
pub(super) const PROFILE_MARGIN: Duration = Duration::from_secs(30);

/// Largest list of notes, in bytes: some hundred for each pod of a full node.
const MAX_NOTES_BYTES: usize = 1024 * 1024;

/// The API as one kind of client finds it.
struct Api<'a, C> {
    control: &'a C,
    origin: Origin,
}

/// A failed request: status and body of its answer.
struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

/// Serves operators until dropped.
pub async fn serve<C: PodControl>(socket: &ApiSocket, control: &C) -> ! {
    let api = Api { control, origin: Origin::Operator };
    // Capture has no metrics of its own; a full API says so in the log.
    serve_http("api", socket, &api, &Counter::default()).await
}

/// Serves the agent until dropped.
pub async fn serve_agent<C: PodControl>(connections: &PassedConnections, control: &C) -> ! {
    let api = Api { control, origin: Origin::Agent };
    serve_http("agent", connections, &api, &Counter::default()).await
}

// === impl Api ===

impl<C: PodControl> Handler for Api<'_, C> {
    const EXCHANGE_TIMEOUT: Duration =
        Duration::from_secs(MAX_SECONDS as u64).saturating_add(PROFILE_MARGIN);

    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let asked = request.uri().path().strip_prefix(PROFILE_PATH);
        let answer = match asked.map(parse_profile) {
            // It ends by itself.
            Some(asked) => Ok(self.profile(request.method(), asked).await),
            None => timeout(REQUEST_TIMEOUT, self.answer(request)).await,
        };
        answer.unwrap_or_else(|_| Err(Failure::timed_out())).unwrap_or_else(Failure::into_response)
    }
}

impl<C: PodControl> Api<'_, C> {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match (parts.method, path.strip_prefix(PODS_PATH)) {
            (Method::GET, Some("")) => return Ok(json(StatusCode::OK, &self.control.list().await)),
            (Method::POST, Some("")) => {
                let spec = read_spec(body).await?;
                let status = self.control.add(spec, self.origin).await?;
                return Ok(json(StatusCode::CREATED, &status));
            }
            (Method::DELETE, Some(pod)) if pod.starts_with('/') => {
                self.control.remove(&parse_key(pod)?, self.origin).await?;
                return Ok(nothing());
            }
            (Method::GET, None)
                if path.starts_with(EXPLAIN_PATH) && self.origin == Origin::Operator =>
            {
                let question = path.strip_prefix(EXPLAIN_PATH).unwrap_or_default();
                let (pod, to) = parse_question(question)?;
                return Ok(json(StatusCode::OK, &self.control.explain(&pod, to).await?));
            }
            (method, None) if path == LOGGING_PATH && self.origin == Origin::Operator => {
                return self.log(&method, body).await;
            }
            (Method::GET, None) => {
                if let Some(version) = path.strip_prefix(INVENTORY_PATH) {
                    let inventory = self.control.inventory(parse_version(version)?).await;
                    return Ok(json(StatusCode::OK, &inventory));
                }
            }
            (Method::PUT, None) if path == NOTES_PATH && self.origin == Origin::Agent => {
                self.control.note(read_notes(body).await?);
                return Ok(nothing());
            }
            _ => {}
        }
        Err(Failure::no_such_request())
    }

    /// Takes a profile.
    async fn profile(
        &self,
        method: &Method,
        asked: Result<(Kind, Window), ApiError>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        if *method != Method::POST || self.origin != Origin::Operator {
            return Err(Failure::no_such_request());
        }
        let (kind, window) = asked?;
        let profile = self.control.profile(kind, window).await?;
        Ok(response(StatusCode::OK, PROFILE_TYPE, profile))
    }

    /// Says what is logged, and changes it.
    async fn log(&self, method: &Method, body: Incoming) -> Result<Response<Full<Bytes>>, Failure> {
        let change = match *method {
            Method::GET => return Ok(json(StatusCode::OK, &self.control.logging())),
            Method::PUT => LevelChange::Put(read_logging(body).await?.level),
            Method::DELETE => LevelChange::Reset,
            _ => return Err(Failure::no_such_request()),
        };
        Ok(json(StatusCode::OK, &self.control.log(change)?))
    }
}

async fn read_logging(body: Incoming) -> Result<Logging, Failure> {
    let body = read(body, MAX_BODY_BYTES).await?;
    let logging: Logging = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(format!("the body names no level: {error}"), "send a level")
    })?;
    if logging.level.is_empty() || logging.level.len() > MAX_FILTER_BYTES {
        let message = format!("the level has {} bytes", logging.level.len());
        let remedy = format!("write one with 1 to {MAX_FILTER_BYTES}");
        return Err(ApiError::invalid(message, remedy).into());
    }
    Ok(logging)
}

async fn read_spec(body: Incoming) -> Result<PodSpec, Failure> {
    let body = read(body, MAX_BODY_BYTES).await?;
    let spec: PodSpec = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(
            format!("the body is not a pod specification: {error}"),
            "send namespace, name, service_account, netns and, if wanted, uid",
        )
    })?;
    spec.validate()?;
    Ok(spec)
}

async fn read_notes(body: Incoming) -> Result<Vec<Note>, Failure> {
    let body = read(body, MAX_NOTES_BYTES).await?;
    let notes = serde_json::from_slice(&body);
    Ok(notes.map_err(|error| {
        ApiError::invalid(format!("the body is no list of notes: {error}"), "send such a list")
    })?)
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, Failure> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(limit)),
        Err(error) => {
            let message = format!("the body was cut off ({error})");
            Err(ApiError::invalid(message, "send it again").into())
        }
    }
}

/// Parses `/version`, or nothing.
fn parse_version(path: &str) -> Result<Option<u64>, Failure> {
    if path.is_empty() {
        return Ok(None);
    }
    let version = path.strip_prefix('/').and_then(|version| version.parse().ok());
    version.map(Some).ok_or_else(Failure::no_such_request)
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

/// Parses `/namespace/name/address:port`.
fn parse_question(path: &str) -> Result<(PodKey, SocketAddr), ApiError> {
    const REMEDY: &str = "use /v1/explain/{namespace}/{name}/{address}:{port}";
    let (pod, to) = path
        .rsplit_once('/')
        .and_then(|(pod, to)| Some((pod, to.parse().ok()?)))
        .ok_or_else(|| ApiError::invalid("the path names no pod and address", REMEDY))?;
    Ok((parse_key(pod)?, to))
}

/// Parses `/kind/seconds`.
fn parse_profile(path: &str) -> Result<(Kind, Window), ApiError> {
    const REMEDY: &str = "use /v1/profile/cpu/{seconds} or /v1/profile/heap/{seconds}";
    let mut parts = path.split('/').skip(1);
    let kind = match parts.next() {
        Some("cpu") => Kind::Cpu,
        Some("heap") => Kind::Heap,
        Some(_) | None => return Err(ApiError::invalid("the path names no profile", REMEDY)),
    };
    let window = parts.next().unwrap_or_default().parse::<Window>();
    match (window, parts.next()) {
        (Ok(window), None) => Ok((kind, window)),
        (Err(error), None) => Err(ApiError::invalid(error.to_string(), REMEDY)),
        (_, Some(_)) => Err(ApiError::invalid("the path names more than a profile", REMEDY)),
    }
}

fn nothing() -> Response<Full<Bytes>> {
    json(StatusCode::OK, &serde_json::json!({}))
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

    fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body exceeds {limit} bytes"),
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
