//! Sends a request on: to the destination that the route chooses, to one endpoint after another.

use std::{num::NonZeroU16, rc::Rc, sync::Arc, time::Instant};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version as HttpVersion,
    header::{HOST, SET_COOKIE},
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::BodyExt as _;
use hyper::{Request, Response};
use mesh_api::workload::{AppProtocol, ServiceKey};
use tokio::time::sleep;

use super::{
    body::{Body, TimeLimit},
    exchange::Exchange,
    hash,
    http::SCHEME,
    inbound::Connection,
    replay::Replay,
    upgrade,
    upstream::{Opening, Received, Switch, UpstreamError, Version, Wanted},
    worker::spawn,
};
use crate::{
    balance::{self, Cluster, Context, NoEndpoint, Permit, Picked, Tried},
    mesh::{Backend, Way},
    route::{
        Destination, FORWARDED_CLIENT_CERT, Flag, Forward, HttpRoute, LocalReply, Means, Mirror,
        Next, Outcome, RequestHead, ResetReason, Tries, authority, remove_hop_by_hop,
        sanitise_response, set_authority, split_port,
    },
};

/// How long an endpoint took to begin its answer, in milliseconds.
const UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// A request that a route forwards.
pub(super) struct Forwarding<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) route: &'a Arc<HttpRoute>,
    pub(super) forward: &'a Forward,
    /// Port that the client connected to.
    pub(super) port: u16,
}

/// The tries of a request, and what they have in common.
struct Attempts<'a> {
    connection: &'a Connection,
    forward: &'a Forward,
    backend: Arc<Backend>,
    cluster: Arc<Cluster>,
    version: Version,
    switch: Option<Switch>,
    body: &'a Replay,
    request: &'a Parts,
    hash: Option<u64>,
    tried: Vec<Tried>,
    tries: Tries,
    /// Held while a retry is under way.
    retrying: Option<Permit>,
}

/// How a try ended.
enum Ended {
    Answered(Response<Received>),
    Failed(UpstreamError),
    TimedOut,
}

// === impl Forwarding ===

impl Forwarding<'_> {
    /// Sends the request and returns the answer, or what is answered in its place.
    pub(super) async fn run(
        &self,
        exchange: &mut Exchange,
        mut request: Parts,
        body: Replay,
    ) -> Result<Response<Body>, LocalReply> {
        let destination = self.forward.choose(rand::random()).map_err(LocalReply::NoDestination)?;
        let backend = self.backend(destination).ok_or(LocalReply::NoCluster)?;
        exchange.cluster = Some(backend.name.clone());
        let original = request.clone();
        self.forward
            .prepare(&mut request, destination, SCHEME, &exchange.facts())
            .map_err(|_| LocalReply::InvalidPath)?;
        let active = backend.cluster().request().map_err(|_| LocalReply::Overflow)?;
        let cluster = backend.cluster().clone();
        let hash = hash::of(cluster.policy(), &original, self.connection.client.ip());
        let (hash, cookie) = match hash {
            Some(hash) => (Some(hash), None),
            None => hash::new_cookie(cluster.policy(), rand::random()).unzip(),
        };
        let (version, switch) = spoken(&backend, original.version, exchange);
        let attempts = Attempts {
            connection: self.connection,
            forward: self.forward,
            cluster,
            version,
            switch,
            backend,
            body: &body,
            hash,
            request: &request,
            tried: Vec::new(),
            tries: Tries::default(),
            retrying: None,
        };
        let (begun, limit) = (
            tokio::time::Instant::now(),
            self.forward.timeout(&RequestHead::of(&original, SCHEME)),
        );
        let answered = attempts.run(exchange);
        let response = match limit {
            // What is still coming has not begun to wait.
            Some(limit) => tokio::select! {
                response = answered => response,
                () = body.silence(begun, limit) => Err(LocalReply::Timeout),
            },
            None => answered.await,
        };
        self.mirror(&request, &body);
        let response = response?;
        exchange.held.active = Some(active);
        exchange.limit = limit.map(|limit| Box::pin(body.elapse(begun, limit)) as TimeLimit);
        Ok(self.pass_on(response, exchange, (destination, &original), cookie))
    }

    /// Makes of an endpoint's answer the one that the client gets.
    fn pass_on(
        &self,
        response: Response<Received>,
        exchange: &Exchange,
        (destination, request): (&Destination, &Parts),
        cookie: Option<HeaderValue>,
    ) -> Response<Body> {
        let (mut parts, incoming) = response.into_parts();
        let protocol = remove_hop_by_hop(&mut parts.headers);
        if let Some(protocol) = protocol.filter(|_| parts.status.is_informational()) {
            upgrade::offer(&mut parts.headers, protocol);
        }
        sanitise_response(&mut parts.headers);
        if let Some(cookie) = cookie {
            parts.headers.append(SET_COOKIE, cookie);
        }
        if let Some(time) = exchange.upstream_time {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            parts.headers.insert(UPSTREAM_TIME, millis.into());
        }
        let head = RequestHead::of(request, SCHEME);
        self.route.finish(&mut parts, Some(destination), head, &exchange.facts());
        Response::from_parts(parts, Body::Passed(incoming))
    }
}

impl Forwarding<'_> {
    /// Returns what stands behind a destination, if there is such.
    fn backend(&self, destination: &Destination) -> Option<Arc<Backend>> {
        if let Some((backend, _)) = self.connection.direct() {
            return Some(backend.clone());
        }
        let subset = destination.subset.as_deref().unwrap_or_default();
        self.backend_of(&destination.service, destination.port, subset)
    }

    fn backend_of(
        &self,
        service: &ServiceKey,
        port: Option<NonZeroU16>,
        subset: &str,
    ) -> Option<Arc<Backend>> {
        let snapshot = self.connection.worker.snapshot();
        let view = snapshot.service(service)?;
        let port = port.map_or_else(|| view.port_or(self.port), NonZeroU16::get);
        view.backend(port, subset).cloned()
    }

    /// Sends copies of the request where the route wants them. Nobody waits for what is answered.
    fn mirror(&self, request: &Parts, body: &Replay) {
        for mirror in &self.forward.mirrors {
            if !mirror.share.holds(rand::random()) {
                continue;
            }
            // A body that is still coming, or that was too long to be kept, cannot be sent again.
            let Some(content) = body.whole() else { continue };
            let subset = mirror.subset.as_deref().unwrap_or_default();
            let Some(backend) = self.backend_of(&mirror.service, mirror.port, subset) else {
                continue;
            };
            let copy = copy_of(mirror, request);
            let connection = self.connection.clone();
            spawn(async move {
                if let Err(error) = send_copy(&connection, &backend, copy, Body::of(content)).await
                {
                    tracing::debug!(%error, "a copy of a request was lost");
                }
            });
        }
    }
}

fn copy_of(mirror: &Mirror, request: &Parts) -> Parts {
    let mut copy = request.clone();
    upgrade::withdraw(&mut copy.headers);
    if let Some(shadow) = mirror.authority(authority(request)) {
        // A suffix of a host that was accepted is accepted, too.
        let _ = set_authority(&mut copy, &shadow);
    }
    copy
}

async fn send_copy(
    connection: &Connection,
    backend: &Arc<Backend>,
    copy: Parts,
    body: Body,
) -> Result<(), UpstreamError> {
    let cluster = backend.cluster().clone();
    let _active = cluster.request()?;
    let picked = cluster.choose(&Context::default(), rand::random(), Instant::now());
    let Ok(picked) = picked else { return Ok(()) };
    let version = version_to(backend, copy.version);
    let wanted = wanted(connection, backend, &cluster, &picked, version, &copy);
    let mut copy = addressed(copy, version)?;
    introduce(connection, &wanted.way, &mut copy.headers);
    let request = Request::from_parts(copy, body);
    let response = connection.worker.upstreams.send(&wanted, request).await?;
    // Read to its end, so that the connection can be used again.
    let mut body = response.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    Ok(())
}

// === impl Attempts ===

impl Attempts<'_> {
    /// Tries one endpoint after another, as the route wants it.
    async fn run(mut self, exchange: &mut Exchange) -> Result<Response<Received>, LocalReply> {
        loop {
            let Ok(picked) = self.choose() else { return Err(LocalReply::NoHealthyUpstream) };
            let endpoint = picked.endpoint();
            exchange.endpoint = Some((endpoint.instance.clone(), endpoint.address));
            self.tried.push(picked.tried());
            let began = Instant::now();
            let ended = self.attempt(&picked).await?;
            exchange.upstream_time = Some(began.elapsed());
            picked.report(ended.outcome(), Instant::now());
            match self.next(&ended) {
                Next::Done => return ended.into_answer(exchange, picked),
                Next::GiveUp(flag) => {
                    exchange.flags.insert(flag);
                    return ended.into_answer(exchange, picked);
                }
                Next::Retry { pause } => {
                    drop((ended, picked));
                    sleep(pause).await;
                }
            }
        }
    }

    /// Decides what follows a try, and takes a place among the retries if it is another one.
    fn next(&mut self, ended: &Ended) -> Next {
        let Some(policy) = &self.forward.retry else { return Next::Done };
        // The retry that has just ended counts no more; the next one does until it has ended.
        self.retrying = None;
        let (outcome, random) = (ended.as_outcome(), rand::random());
        // An endpoint that has seen a part of a request may have acted upon it, and has said no to the
        // rest (as in Envoy).
        let is_settled = self.body.has_ended() || !ended.is_seen();
        let means = Means { replayable: self.body.is_whole() && is_settled, admitted: true };
        let mut tries = self.tries.clone();
        let next = tries.next(policy, outcome, means, random);
        if let Next::Retry { .. } = next {
            match self.cluster.retry() {
                Ok(permit) => self.retrying = Some(permit),
                Err(_) => return Next::GiveUp(Flag::UpstreamOverflow),
            }
        }
        self.tries = tries;
        next
    }

    fn choose(&self) -> Result<Picked, NoEndpoint> {
        let policy = self.forward.retry.as_ref();
        let same = policy.is_some_and(|policy| policy.same_endpoints);
        let context = Context {
            hash: self.hash,
            target: self.connection.address,
            tried: if same { &[] } else { &self.tried },
            other_localities: policy.is_some_and(|policy| policy.other_localities),
        };
        self.cluster.choose(&context, rand::random(), Instant::now())
    }

    /// Sends the request to an endpoint.
    async fn attempt(&self, picked: &Picked) -> Result<Ended, LocalReply> {
        let mut parts =
            addressed(self.request.clone(), self.version).map_err(|_| LocalReply::InvalidPath)?;
        if self.forward.retry.is_some() {
            self.tries.mark(&mut parts.headers);
        }
        let mut wanted = wanted(
            self.connection,
            &self.backend,
            &self.cluster,
            picked,
            self.version,
            self.request,
        );
        wanted.switch.clone_from(&self.switch);
        introduce(self.connection, &wanted.way, &mut parts.headers);
        let request = Request::from_parts(parts, Body::Kept(self.body.read()));
        let begun = tokio::time::Instant::now();
        let sending = self.connection.worker.upstreams.send(&wanted, request);
        let limit = self.forward.retry.as_ref().and_then(|policy| policy.per_try_timeout);
        let sent = match limit {
            // As for all of the tries; what has begun is the answer, however long it takes.
            Some(limit) => tokio::select! {
                sent = sending => sent,
                () = self.body.silence(begun, limit) => return Ok(Ended::TimedOut),
            },
            None => sending.await,
        };
        match sent {
            Ok(response) => Ok(Ended::Answered(response)),
            Err(UpstreamError::Overflow(_)) => Err(LocalReply::Overflow),
            // The endpoint is not to blame.
            Err(_) if self.body.broken().is_some() => Err(LocalReply::BrokenRequest),
            Err(error) => Ok(Ended::Failed(error)),
        }
    }
}

fn wanted(
    connection: &Connection,
    backend: &Arc<Backend>,
    cluster: &Arc<Cluster>,
    picked: &Picked,
    version: Version,
    request: &Parts,
) -> Wanted {
    let endpoint = picked.endpoint();
    let addressed = connection.address.unwrap_or(endpoint.address);
    let opening = backend.preamble().and_then(|preamble| {
        let (host, _) = split_port(authority(request));
        Opening::of(preamble, connection.client, addressed, host)
    });
    Wanted {
        way: backend.way(endpoint),
        address: endpoint.address,
        backend: backend.clone(),
        cluster: cluster.clone(),
        version,
        opening,
        switch: None,
        client: connection.client,
    }
}

/// Tells an endpoint who asks, if it is one of the mesh: who is outside has no business with it.
fn introduce(connection: &Connection, way: &Way, headers: &mut HeaderMap) {
    if let (Way::Tunnel(..), Some(client)) = (way, connection.client_cert()) {
        headers.insert(FORWARDED_CLIENT_CERT, client.clone());
    }
}

/// Returns which HTTP an endpoint is spoken to in, and where its connection goes if it is asked for
/// another protocol.
fn spoken(
    backend: &Backend,
    client: HttpVersion,
    exchange: &Exchange,
) -> (Version, Option<Switch>) {
    let Some(asked) = &exchange.upgrade else { return (version_to(backend, client), None) };
    // Whatever the client speaks: endpoints that are not declared to take it in HTTP/2 do in HTTP/1.1.
    (version_to(backend, HttpVersion::HTTP_11), Some(asked.switch.clone()))
}

/// Returns which HTTP an endpoint is spoken to in.
fn version_to(backend: &Backend, client: HttpVersion) -> Version {
    let as_client = if client == HttpVersion::HTTP_2 { Version::Http2 } else { Version::Http1 };
    match backend.cluster().policy().pool.http_version {
        balance::HttpVersion::AlwaysHttp2 => Version::Http2,
        balance::HttpVersion::AsClient => as_client,
        balance::HttpVersion::ByPort => match backend.protocol {
            AppProtocol::Http2 | AppProtocol::Grpc => Version::Http2,
            AppProtocol::Http1 => Version::Http1,
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => as_client,
        },
    }
}

/// Puts the address of a request where its version has it: HTTP/1 into a header, HTTP/2 into the URI.
fn addressed(mut parts: Parts, version: Version) -> Result<Parts, UpstreamError> {
    let invalid = |error: http::Error| UpstreamError::Connect(error.to_string());
    let target = parts.uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    match version {
        Version::Http1 => {
            if !parts.headers.contains_key(HOST) {
                let host = HeaderValue::from_str(authority(&parts));
                parts.headers.insert(HOST, host.map_err(|error| invalid(error.into()))?);
            }
            parts.uri = target.into();
            parts.version = HttpVersion::HTTP_11;
        }
        Version::Http2 => {
            let host = authority(&parts).to_owned();
            let uri = Uri::builder().scheme(Scheme::HTTP).authority(host).path_and_query(target);
            parts.uri = uri.build().map_err(invalid)?;
            parts.headers.remove(HOST);
            parts.version = HttpVersion::HTTP_2;
        }
    }
    Ok(parts)
}

// === impl Ended ===

impl Ended {
    /// Returns whether the endpoint may have seen something of the request.
    fn is_seen(&self) -> bool {
        match self {
            Self::Answered(_) | Self::TimedOut => true,
            Self::Failed(error) => !error.is_before_request(),
        }
    }

    /// Returns what the endpoint is judged by.
    fn outcome(&self) -> balance::Outcome {
        match self {
            Self::Answered(response) => balance::Outcome::Response(response.status().as_u16()),
            Self::TimedOut => balance::Outcome::Timeout,
            // It can be as well as any.
            Self::Failed(UpstreamError::NoExtendedConnect) => balance::Outcome::Abandoned,
            Self::Failed(error) if error.is_before_request() => balance::Outcome::ConnectFailure,
            Self::Failed(_) => balance::Outcome::Reset,
        }
    }

    /// Returns what it is decided by whether there is another try.
    fn as_outcome(&self) -> Outcome<'_> {
        match self {
            Self::Answered(response) => {
                Outcome::Response { status: response.status(), headers: response.headers() }
            }
            Self::TimedOut => Outcome::TimedOut,
            Self::Failed(error) => {
                Outcome::Reset { reason: reason(error), request_sent: !error.is_before_request() }
            }
        }
    }

    /// Returns the answer; the endpoint has it in hand until its last byte.
    fn into_answer(
        self,
        exchange: &mut Exchange,
        picked: Picked,
    ) -> Result<Response<Received>, LocalReply> {
        match self {
            Self::Answered(response) => {
                exchange.held.picked = Some(picked);
                Ok(response)
            }
            Self::TimedOut => Err(LocalReply::PerTryTimeout),
            Self::Failed(error) => {
                exchange.failure = Some(error.to_string());
                Err(LocalReply::UpstreamReset(reason(&error)))
            }
        }
    }
}

fn reason(error: &UpstreamError) -> ResetReason {
    match error {
        UpstreamError::ConnectTimeout(_) => ResetReason::ConnectionTimeout,
        UpstreamError::Reset(_) => ResetReason::ConnectionTermination,
        // As an endpoint does that is asked nevertheless.
        UpstreamError::StreamReset(_) | UpstreamError::NoExtendedConnect => {
            ResetReason::RemoteReset
        }
        UpstreamError::RefusedStream => ResetReason::RemoteRefusedStream,
        UpstreamError::Protocol(_) | UpstreamError::Excess(_) | UpstreamError::Unasked => {
            ResetReason::ProtocolError
        }
        UpstreamError::NoCertificate(_)
        | UpstreamError::Connect(_)
        | UpstreamError::Tls(_)
        | UpstreamError::Refused(_)
        | UpstreamError::Overflow(_)
        | UpstreamError::Unsupported(_) => ResetReason::ConnectionFailure,
    }
}
