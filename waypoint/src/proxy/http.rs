//! Requests: from the first byte of one to what is answered.

use std::{error::Error as _, rc::Rc, sync::Arc};

use h2::Reason;
use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, LOCATION},
    request::Parts,
};
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;

use super::{
    body::{Body, ResponseBody},
    calming::{Calming, take_leave},
    checked::Checked,
    exchange::{Exchange, REQUEST_ID, is_grpc},
    forward::Forwarding,
    inbound::{Connection, RequestIo},
    local_executor::{StreamExecutor, stop_of_stream},
    progress::{Exchanges, Fate, Progress},
    replay::Replay,
    upgrade::{Upgrade, settle_connect},
    worker::spawn,
};
use crate::{
    http1::asks_for_another_protocol,
    limits::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_REQUESTS_AT_ONCE},
    policy::Verdict,
    route::{
        Abort, Action, CorsDecision, Found, HttpRoute, LocalReply, RequestHead, normalise,
        remove_hop_by_hop, sanitise,
    },
};

/// What requests come by: tunnels are encrypted, what is in them is not.
pub(super) const SCHEME: &str = "http";

/// Type of bodies that are made here.
const TEXT: &str = "text/plain";

/// Version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// What a request is answered.
pub(super) enum Answer {
    /// By an endpoint, or by what the route says.
    Response(Response<Body>),
    /// By this proxy.
    Local(LocalReply),
}

/// Nobody is left to be answered.
#[derive(Debug, thiserror::Error)]
#[error("the client went away in its request")]
struct Left;

/// Serves the requests of a connection.
pub(super) async fn serve(connection: Rc<Connection>, io: RequestIo, version: Version) {
    let client = connection.client;
    let served = match version {
        Version::Http1 => serve_http1(connection, io).await,
        Version::Http2 => serve_http2(connection, io).await,
    };
    if let Err(error) = served {
        tracing::debug!(%client, %error, "connection of a client ended");
    }
}

async fn serve_http1(connection: Rc<Connection>, io: RequestIo) -> hyper::Result<()> {
    let shared = connection.worker.shared.clone();
    let (mut draining, exchanges) = (connection.worker.draining.clone(), Exchanges::new());
    let service = service(&connection, &exchanges);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The time of a head is seen to where it is known to have begun.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES);
    let (io, mut left) = Checked::new(io, connection.client, shared.clone());
    let mut served = Box::pin(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let mut is_leaving = false;
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            // An error means that the process ends at once.
            _ = draining.wait_for(|draining| *draining), if !is_leaving => {}
            () = connection.unbound(), if !is_leaving => {}
            fate = exchanges.watch(shared.patience, |lapse| shared.metrics.lapsed(lapse)) => {
                if is_leaving || fate == Fate::Stuck {
                    return Ok(());
                }
            }
        }
        is_leaving = true;
        served.as_mut().graceful_shutdown();
    };
    drop(served);
    if let Ok(io) = left.try_recv() {
        take_leave(io, &[]).await;
    }
    ended
}

async fn serve_http2(connection: Rc<Connection>, io: RequestIo) -> hyper::Result<()> {
    let shared = connection.worker.shared.clone();
    let (mut draining, exchanges) = (connection.worker.draining.clone(), Exchanges::new());
    let service = service(&connection, &exchanges);
    let (io, watch) = Calming::new(io);
    let mut builder = http2::Builder::new(StreamExecutor);
    let header_bytes = u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_REQUESTS_AT_ONCE)
        .max_header_list_size(header_bytes);
    let mut served = Box::pin(builder.serve_connection(TokioIo::new(io), service));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if is_excess(&ended) {
                    shared.metrics.limit("request_frames").inc();
                }
                return ended;
            }
            excess = watch.excess() => {
                shared.metrics.limit("request_frames").inc();
                tracing::info!(client = %connection.client, %excess, "connection of a client ended");
                drop(served);
                watch.take_leave().await;
                return Ok(());
            }
            // An error means that the process ends at once.
            _ = draining.wait_for(|draining| *draining), if !is_leaving => {}
            () = connection.unbound(), if !is_leaving => {}
            fate = exchanges.watch(shared.patience, |lapse| shared.metrics.lapsed(lapse)) => {
                if is_leaving || fate == Fate::Stuck {
                    return Ok(());
                }
            }
        }
        is_leaving = true;
        served.as_mut().graceful_shutdown();
    }
}

/// Returns whether the library has had enough of a client.
fn is_excess(ended: &hyper::Result<()>) -> bool {
    let source = ended.as_ref().err().and_then(|error| error.source());
    let error = source.and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|e| e.is_library() && e.reason() == Some(Reason::ENHANCE_YOUR_CALM))
}

/// Returns what answers the requests of a connection.
fn service(
    connection: &Rc<Connection>,
    exchanges: &Rc<Exchanges>,
) -> impl HttpService<
    Incoming,
    ResBody = ResponseBody,
    Error = Left,
    Future: Future<Output = Result<Response<ResponseBody>, Left>> + 'static,
> + use<> {
    let (connection, exchanges) = (connection.clone(), exchanges.clone());
    service_fn(move |request: Request<Incoming>| {
        // Begun at once: the library drops the answer of a client that is gone already unpolled.
        let (connection, under_way) = (connection.clone(), exchanges.begin());
        let progress = under_way.progress().clone();
        let (parts, incoming) = request.into_parts();
        let body = Replay::new(incoming, is_grpc(&parts.headers), &progress);
        let exchange = Exchange::new(&connection, &parts, body.clone(), under_way);
        async move { answer(connection, &progress, exchange, parts, body).await }
    })
}

async fn answer(
    connection: Rc<Connection>,
    progress: &Progress,
    mut exchange: Box<Exchange>,
    parts: Parts,
    body: Replay,
) -> Result<Response<ResponseBody>, Left> {
    if let Some(stop) = stop_of_stream() {
        progress.stops_by(stop);
    }
    let is_unsure = parts.version == http::Version::HTTP_11
        && asks_for_another_protocol(&parts.method, &parts.headers);
    let answer = tokio::select! {
        answer = Box::pin(decide(&connection, &mut exchange, parts, body)) => answer,
        lapse = progress.lapsed() => Answer::Local(lapse.into()),
    };
    let response = match answer {
        Answer::Response(response) => response,
        Answer::Local(LocalReply::BrokenRequest) if exchange.is_left() => return Err(Left),
        Answer::Local(reply) => answered(&mut exchange, reply),
    };
    let (mut parts, mut body) = response.into_parts();
    match exchange.upgrade.take().map_or(Ok(None), |upgrade| upgrade.settle(&mut parts)) {
        Ok(None) => {}
        Ok(Some(tunnel)) => {
            let finished = exchange.finish(parts.status, &parts.headers);
            finished.waits();
            spawn(tunnel.run(finished));
            return Ok(Response::from_parts(parts, ResponseBody::of_upgrade()));
        }
        Err(reply) => (parts, body) = answered(&mut exchange, reply).into_parts(),
    }
    if is_unsure {
        // What the client sent in the hope of another protocol is no request (RFC 9110 7.8).
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let limit = exchange.limit.take();
    let mut finished = exchange.finish(parts.status, &parts.headers);
    if body.is_end_stream() {
        finished.completed();
    }
    Ok(Response::from_parts(parts, ResponseBody::new(body, finished, limit)))
}

/// Notes that a request is answered here, and returns the response.
fn answered(exchange: &mut Exchange, reply: LocalReply) -> Response<Body> {
    exchange.answered(reply);
    local(reply, exchange.is_grpc())
}

/// Returns the response that a reply stands for.
fn local(reply: LocalReply, is_grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::of(""));
    let headers = response.headers_mut();
    if is_grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(reply.grpc_status())));
        headers.insert("grpc-message", HeaderValue::from_static(reply.body()));
        return response;
    }
    if !reply.body().is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    }
    if reply == LocalReply::Overflow {
        headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    }
    *response.status_mut() = reply.status();
    *response.body_mut() = Body::of(reply.body());
    response
}

/// Decides what becomes of a request, and does it.
async fn decide(
    connection: &Rc<Connection>,
    exchange: &mut Exchange,
    mut request: Parts,
    body: Replay,
) -> Answer {
    if let Err(refused) = settle_connect(&mut request, rand::random()) {
        return Answer::Local(refused);
    }
    let is_sound = sanitise(&mut request, rand::random()).is_ok()
        && normalise(&mut request, connection.normalisation()).is_ok();
    if let Some(id) = request.headers.get(REQUEST_ID) {
        exchange.identified(id);
    }
    if !is_sound {
        return Answer::Local(LocalReply::InvalidPath);
    }
    if let Verdict::Deny(denied) = connection.judge(Some(&RequestHead::of(&request, SCHEME))) {
        exchange.details = denied.to_string().into();
        return Answer::Response(local(LocalReply::AccessDenied, exchange.is_grpc()));
    }
    let protocol = remove_hop_by_hop(&mut request.headers);
    exchange.upgrade = Upgrade::of(&mut request, protocol);
    let found = route_of(connection, &request);
    // Once policies and routes were looked at: a service leaves its waypoint before they are gone.
    if connection.is_unbound() {
        return Answer::Local(LocalReply::NoCluster);
    }
    let Some((route, port)) = found else { return Answer::Local(LocalReply::NoRoute) };
    exchange.route = Some(route.name.clone());
    let mut marked = None;
    if let Some(cors) = &route.cors {
        match cors.decide(&RequestHead::of(&request, SCHEME)) {
            CorsDecision::Answer(headers) => return preflight(headers),
            CorsDecision::Mark(origin) => marked = Some(origin),
            CorsDecision::Pass => {}
        }
    }
    if let Some(abort) = inject(&route, exchange).await {
        return abort;
    }
    let done = act(connection, (&route, port), exchange, request, body).await;
    let mut response = match done {
        Ok(response) => response,
        // Without the mark, a script would not be told what went wrong either.
        Err(reply) if marked.is_some() && reply != LocalReply::BrokenRequest => {
            answered(exchange, reply)
        }
        Err(reply) => return Answer::Local(reply),
    };
    if let (Some(cors), Some(origin)) = (&route.cors, marked) {
        cors.mark(response.headers_mut(), origin);
    }
    Answer::Response(response)
}

/// Returns the route of a request and the port that it came to; none if there is none.
fn route_of(connection: &Connection, request: &Parts) -> Option<(Arc<HttpRoute>, u16)> {
    let Some((view, port)) = connection.service() else {
        let (_, route) = connection.direct()?;
        return Some((route.clone(), connection.address?.port()));
    };
    let routes = view.routes(port, connection.source.namespace.as_str())?;
    let labels = connection.client_labels(routes);
    let client = connection.client_with(labels.as_deref());
    let route = match routes.find(&RequestHead::of(request, SCHEME), client) {
        Found::Route(route) => route.clone(),
        Found::NoMatch => return None,
        Found::NoRoutes => view.default_route().clone(),
    };
    Some((route, port))
}

/// Does with a request what its route says.
async fn act(
    connection: &Rc<Connection>,
    (route, port): (&Arc<HttpRoute>, u16),
    exchange: &mut Exchange,
    request: Parts,
    body: Replay,
) -> Result<Response<Body>, LocalReply> {
    let mut response = Response::new(Body::of(""));
    match &route.action {
        Action::Forward(forward) => {
            let forwarding = Forwarding { connection, route, forward, port };
            return forwarding.run(exchange, request, body).await;
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(&RequestHead::of(&request, SCHEME), port);
            let location = location.map_err(|_| LocalReply::InvalidPath)?;
            *response.status_mut() = redirect.status();
            response.headers_mut().insert(LOCATION, location);
        }
        Action::Respond(direct) => {
            *response.status_mut() = direct.status;
            if !direct.body.is_empty() {
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
            }
            *response.body_mut() = Body::of(direct.body.clone());
        }
    }
    exchange.details = "direct_response".into();
    Ok(finish(route, response, &request, exchange))
}

/// Does to a response that is made here what the route says.
fn finish(
    route: &Arc<HttpRoute>,
    response: Response<Body>,
    request: &Parts,
    exchange: &Exchange,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    route.finish(&mut parts, None, RequestHead::of(request, SCHEME), &exchange.facts());
    Response::from_parts(parts, body)
}

fn preflight(headers: http::HeaderMap) -> Answer {
    let mut response = Response::new(Body::of(""));
    *response.headers_mut() = headers;
    Answer::Response(response)
}

/// Injects the faults of a route: a pause, an answer, or both.
async fn inject(route: &HttpRoute, exchange: &mut Exchange) -> Option<Answer> {
    let injected = route.fault.as_ref()?.roll(rand::random(), rand::random());
    if let Some(delay) = injected.delay {
        exchange.flags.insert(crate::route::Flag::DelayInjected);
        sleep(delay).await;
    }
    match injected.abort? {
        Abort::Http(status) => Some(Answer::Local(LocalReply::FaultAbort(status))),
        Abort::Grpc(status) => {
            exchange.answered(LocalReply::FaultAbort(StatusCode::OK));
            let mut response = Response::new(Body::of(""));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
            headers.insert("grpc-message", HeaderValue::from_static("fault filter abort"));
            Some(Answer::Response(response))
        }
    }
}
