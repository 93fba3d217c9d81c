//! A request with what becomes of it, until the last byte of its answer, or until its client goes
//! away: then it is counted and logged, once.

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONTENT_TYPE, USER_AGENT},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::body::Frame;

use super::{
    body::TimeLimit,
    counted::Kind,
    inbound::Connection,
    progress::UnderWay,
    replay::{Broken, Replay},
    upgrade::Upgrade,
};
use crate::{
    balance::{Instance, Permit, Picked},
    mesh::Target,
    route::{Facts, Flag, Flags, LocalReply, authority},
    telemetry::{self, GRPC, Messages, Record, RequestLabels, RequestTotals, Side},
};

/// Id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Highest status of gRPC.
const MAX_GRPC_STATUS: u16 = 16;

/// What gRPC calls unknown.
const UNKNOWN_GRPC_STATUS: u16 = 2;

/// A request with what becomes of it. It ends when it is dropped, whoever does that and when.
pub(super) struct Exchange {
    connection: Rc<Connection>,
    start: SystemTime,
    started: Instant,
    method: Method,
    path: Option<PathAndQuery>,
    version: Version,
    authority: Box<str>,
    forwarded_for: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    is_grpc: bool,
    body: Replay,
    under_way: UnderWay,
    /// What went wrong.
    pub(super) flags: Flags,
    /// Where the answer came from.
    pub(super) details: Cow<'static, str>,
    /// The route that was found.
    pub(super) route: Option<Arc<str>>,
    /// What the request was sent to.
    pub(super) cluster: Option<Arc<str>>,
    /// The endpoint that answered, or was tried last.
    pub(super) endpoint: Option<(Instance, SocketAddr)>,
    /// Until its answer began.
    pub(super) upstream_time: Option<Duration>,
    /// Why there is no connection to it.
    pub(super) failure: Option<String>,
    /// What is taken for as long as the answer takes.
    pub(super) held: Held,
    /// When all of the answer has to have been sent, if there is a limit.
    pub(super) limit: Option<TimeLimit>,
    /// Another protocol that the client asks for.
    pub(super) upgrade: Option<Upgrade>,
    /// Bytes of the client in that protocol.
    upgraded: u64,
    sent: Sent,
}

/// Places that a request takes until the last byte of its answer.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Among the requests to the endpoint.
    pub(super) picked: Option<Picked>,
    /// Among the requests to the destination.
    pub(super) active: Option<Permit>,
}

/// An exchange of which the answer has begun.
pub(super) struct Finished(Box<Exchange>);

/// What the client was sent.
#[derive(Debug, Default)]
struct Sent {
    /// None before the answer begins.
    status: Option<StatusCode>,
    grpc_status: Option<u16>,
    bytes: u64,
    messages: Messages,
    end: End,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// It did not, or did not even begin: the client went away, or reset the stream. Which of these
    /// it was, the library does not say.
    #[default]
    Unfinished,
    Complete,
    Broken,
    /// Its time was over.
    Late,
    /// In another protocol, nothing moved for too long.
    Idle,
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn new(
        connection: &Rc<Connection>,
        request: &Parts,
        body: Replay,
        under_way: UnderWay,
    ) -> Box<Self> {
        let header = |name: HeaderName| request.headers.get(name).cloned();
        Box::new(Self {
            connection: connection.clone(),
            start: SystemTime::now(),
            started: Instant::now(),
            method: request.method.clone(),
            path: request.uri.path_and_query().cloned(),
            version: request.version,
            authority: authority(request).into(),
            forwarded_for: header(FORWARDED_FOR),
            user_agent: header(USER_AGENT),
            request_id: header(REQUEST_ID),
            is_grpc: is_grpc(&request.headers),
            body,
            under_way,
            flags: Flags::default(),
            details: "via_upstream".into(),
            route: None,
            cluster: None,
            endpoint: None,
            upstream_time: None,
            failure: None,
            held: Held::default(),
            limit: None,
            upgrade: None,
            upgraded: 0,
            sent: Sent::default(),
        })
    }

    /// Notes the id that the request was given.
    pub(super) fn identified(&mut self, id: &HeaderValue) {
        self.request_id = Some(id.clone());
    }

    /// Notes that it is answered here.
    pub(super) fn answered(&mut self, reply: LocalReply) {
        if let Some(flag) = reply.flag() {
            self.flags.insert(flag);
        }
        self.details = reply.details().into();
    }

    /// Returns whether the client went away before it had sent all of the request.
    pub(super) fn is_left(&self) -> bool {
        self.body.broken() == Some(Broken::Left)
    }

    /// Returns whether it is a call of gRPC, whose refusals travel in headers.
    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Returns what headers may be made of.
    pub(super) fn facts(&self) -> Facts<'_> {
        let since = self.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Facts {
            protocol: self.version,
            start: since,
            duration: Some(self.started.elapsed()),
            downstream_remote: Some(self.connection.client),
            downstream_local: self.connection.address,
            downstream_peer: Some(&self.connection.source),
            upstream_host: self.endpoint.as_ref().map(|(_, address)| *address),
            upstream_cluster: self.cluster.as_deref(),
            upstream_failure: self.failure.as_deref(),
            route_name: self.route.as_deref(),
            flags: self.flags,
            details: Some(&self.details),
            ..Facts::default()
        }
    }

    /// Has the exchange end with the answer that begins so.
    pub(super) fn finish(mut self: Box<Self>, status: StatusCode, headers: &HeaderMap) -> Finished {
        self.sent.status = Some(status);
        self.sent.grpc_status = grpc_status(headers);
        self.under_way.progress().offered();
        Finished(self)
    }
}

/// Returns whether a request is a call of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Returns the status of a call. One that gRPC does not know means unknown, as it does to clients: each is
/// a value of a label, of which an endpoint must not make as many as it likes.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()?;
    Some(if status > MAX_GRPC_STATUS { UNKNOWN_GRPC_STATUS } else { status })
}

// === impl Finished ===

impl Finished {
    /// Notes that nothing is there for the client to take.
    pub(super) fn waits(&self) {
        self.0.under_way.progress().taken();
    }

    /// Notes what is sent of the body.
    pub(super) fn sent(&mut self, frame: &Frame<Bytes>) {
        let Exchange { under_way, sent, is_grpc, .. } = &mut *self.0;
        under_way.progress().offered();
        if let Some(data) = frame.data_ref() {
            sent.bytes += data.len() as u64;
            if *is_grpc {
                sent.messages.advance(data);
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            sent.grpc_status = grpc_status(trailers).or(sent.grpc_status);
            sent.end = End::Complete;
        }
    }

    /// Notes what was passed on in another protocol.
    pub(super) fn passed(&mut self, received: u64, sent: u64) {
        self.0.upgraded += received;
        self.0.sent.bytes += sent;
    }

    /// Notes that all of the body is sent.
    pub(super) fn completed(&mut self) {
        self.0.sent.end = End::Complete;
    }

    /// Notes that the rest of the body comes too late.
    pub(super) fn late(&mut self) {
        self.0.sent.end = End::Late;
    }

    /// Notes that nothing moved any more in that protocol.
    pub(super) fn idle(&mut self) {
        self.0.connection.worker.shared.metrics.limit("tcp_idle").inc();
        self.0.sent.end = End::Idle;
    }

    /// Notes that the rest of the body is lost.
    pub(super) fn broken(&mut self) {
        self.0.sent.end = End::Broken;
    }
}

// === impl Exchange ===

impl Drop for Exchange {
    fn drop(&mut self) {
        match self.sent.end {
            End::Complete => {}
            End::Broken => {
                self.flags.insert(Flag::UpstreamConnectionTermination);
                self.details = "upstream_reset_after_response_started".into();
            }
            End::Late => {
                self.flags.insert(Flag::UpstreamRequestTimeout);
                self.details = "response_timeout".into();
            }
            End::Idle => {
                self.flags.insert(Flag::StreamIdleTimeout);
                self.details = "stream_idle_timeout".into();
            }
            End::Unfinished => {
                self.flags.insert(Flag::DownstreamConnectionTermination);
                self.details = "downstream_remote_disconnect".into();
            }
        }
        self.tell();
    }
}

impl Exchange {
    /// Counts and logs it.
    fn tell(&self) {
        let totals = RequestTotals {
            duration: self.started.elapsed(),
            received: self.body.received() + self.upgraded,
            sent: self.sent.bytes,
            messages: [self.body.messages(), self.sent.messages.count()],
        };
        self.count(totals);
        self.log(totals);
    }

    fn count(&self, totals: RequestTotals) {
        let Sent { status, grpc_status, .. } = self.sent;
        let connection = &*self.connection;
        let destination = self.endpoint.as_ref().map(|(instance, _)| &*instance.workload);
        let service = match &connection.target {
            Target::Service(view, _) => Some((&view.service().key, &*view.service().name)),
            Target::Workload(..) => None,
        };
        let labels = RequestLabels {
            source: Side {
                workload: connection.client_workload.as_deref(),
                principal: Some(&connection.source),
            },
            destination: Side {
                workload: destination,
                principal: destination.map(|workload| &workload.identity),
            },
            service,
            protocol: if self.is_grpc { GRPC } else { "http" },
            status: Some(status.map_or(0, |status| status.as_u16())),
            grpc_status,
            flags: self.flags,
        };
        let kind = Kind {
            destination: self.endpoint.as_ref().map(|(instance, _)| instance.workload.clone()),
            is_grpc: self.is_grpc,
            status: labels.status.unwrap_or_default(),
            grpc_status,
            flags: self.flags,
        };
        let metrics = &connection.worker.shared.metrics;
        connection.counted.of(kind, || metrics.requests(&labels)).add(totals);
    }

    fn log(&self, totals: RequestTotals) {
        let RequestTotals { duration, received, sent, messages: _ } = totals;
        let connection = &*self.connection;
        let [forwarded_for, user_agent, request_id] =
            [&self.forwarded_for, &self.user_agent, &self.request_id]
                .map(|value| value.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes())));
        let request = telemetry::Request {
            method: self.method.as_str(),
            path: self.path.as_ref().map_or("/", PathAndQuery::as_str),
            protocol: protocol(self.version),
            status: self.sent.status,
            details: &self.details,
            upstream_time: self.upstream_time,
            forwarded_for: forwarded_for.as_deref(),
            user_agent: user_agent.as_deref(),
            request_id: request_id.as_deref(),
            authority: &self.authority,
        };
        connection.worker.shared.access_log.write(&Record {
            start: self.start,
            request: Some(request),
            flags: self.flags,
            termination: None,
            received,
            sent,
            duration,
            upstream_host: self.endpoint.as_ref().map(|(_, address)| *address),
            upstream_cluster: self.cluster.as_deref(),
            upstream_failure: self.failure.as_deref(),
            local_address: connection.address,
            remote_address: connection.client,
            route: self.route.as_deref().filter(|name| !name.is_empty()),
        });
    }
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 {
        "HTTP/2"
    } else if version == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_one_of_the_statuses_that_grpc_knows() {
        for (value, expected) in [
            (None, None),
            (Some("0"), Some(0)),
            (Some("16"), Some(16)),
            (Some("17"), Some(2)),
            (Some("65535"), Some(2)),
            (Some("65536"), None),
            (Some("-1"), None),
            (Some("ok"), None),
        ] {
            let header = |value| (GRPC_STATUS, HeaderValue::from_static(value));
            let headers: HeaderMap = value.map(header).into_iter().collect();
            assert_eq!(grpc_status(&headers), expected, "{value:?}");
        }
    }
}
