//! The access log: a line for each request, in Envoy's default format, or the same as JSON.

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use fairlead_component::logging::{LogFormat, VERBATIM};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::route::Flags;

/// How requests are logged.
#[derive(Clone, Copy, Debug)]
pub struct AccessLog(LogFormat);

/// What is said about a request that has ended.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// When it came.
    pub start: SystemTime,
    /// Its method.
    pub method: &'a str,
    /// Its path and query, as the client sent them.
    pub path: &'a str,
    /// Its version of HTTP.
    pub protocol: &'a str,
    /// Status of the answer; none if there was none.
    pub status: Option<StatusCode>,
    /// What went wrong.
    pub flags: Flags,
    /// Where the answer came from.
    pub details: &'a str,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// From its first byte to the last one of the answer.
    pub duration: Duration,
    /// Until the endpoint's answer began.
    pub upstream_time: Option<Duration>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<&'a str>,
    /// `user-agent`.
    pub user_agent: Option<&'a str>,
    /// `x-request-id`.
    pub request_id: Option<&'a str>,
    /// Whom it was addressed to.
    pub authority: &'a str,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// Name of what it was sent to.
    pub upstream_cluster: Option<&'a str>,
    /// Why no connection to the endpoint could be made.
    pub upstream_failure: Option<&'a str>,
    /// What the client connected to.
    pub local_address: Option<SocketAddr>,
    /// The client.
    pub remote_address: SocketAddr,
    /// Name of the route.
    pub route: Option<&'a str>,
}

/// A value, or a dash without one.
struct Or<T>(Option<T>);

// === impl AccessLog ===

impl AccessLog {
    /// Writes lines in this form.
    pub fn new(format: LogFormat) -> Self {
        Self(format)
    }

    /// Writes a line, unless that is turned off.
    pub fn write(self, record: &RequestRecord<'_>) {
        match self.0 {
            LogFormat::Plain => tracing::info!(target: VERBATIM, "{}", record.as_text()),
            LogFormat::Json => tracing::info!(target: VERBATIM, "{}", record.as_json()),
        }
    }
}

// === impl RequestRecord ===

impl RequestRecord<'_> {
    /// Returns the line in Envoy's default format.
    fn as_text(&self) -> impl Display {
        fmt::from_fn(move |f| {
            write!(f, "[{}] ", timestamp(self.start))?;
            write!(f, "\"{} {} {}\" ", self.method, self.path, self.protocol)?;
            let status = self.status.map_or(0, |status| status.as_u16());
            write!(f, "{status} {} {} - ", self.flags, self.details)?;
            write!(f, "\"{}\" ", Or(self.upstream_failure))?;
            write!(f, "{} {} {} ", self.received, self.sent, self.duration.as_millis())?;
            write!(f, "{} ", Or(self.upstream_time.map(|time| time.as_millis())))?;
            write!(f, "\"{}\" ", Or(self.forwarded_for))?;
            write!(f, "\"{}\" ", Or(self.user_agent))?;
            write!(f, "\"{}\" ", Or(self.request_id))?;
            write!(f, "\"{}\" ", self.authority)?;
            write!(f, "\"{}\" ", Or(self.upstream_host))?;
            write!(f, "{} - ", Or(self.upstream_cluster))?;
            write!(f, "{} {} ", Or(self.local_address), self.remote_address)?;
            write!(f, "- {}", Or(self.route))
        })
    }

    /// Returns the same as JSON, under Envoy's names.
    fn as_json(&self) -> serde_json::Value {
        json!({
            "start_time": timestamp(self.start).to_string(),
            "method": self.method,
            "path": self.path,
            "protocol": self.protocol,
            "response_code": self.status.map_or(0, |status| status.as_u16()),
            "response_flags": self.flags.to_string(),
            "response_code_details": self.details,
            "connection_termination_details": null,
            "upstream_transport_failure_reason": self.upstream_failure,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "duration": millis(self.duration),
            "upstream_service_time": self.upstream_time.map(millis),
            "x_forwarded_for": self.forwarded_for,
            "user_agent": self.user_agent,
            "request_id": self.request_id,
            "authority": self.authority,
            "upstream_host": self.upstream_host,
            "upstream_cluster": self.upstream_cluster,
            "upstream_local_address": null,
            "downstream_local_address": self.local_address,
            "downstream_remote_address": self.remote_address,
            "requested_server_name": null,
            "route_name": self.route,
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a time as `2026-01-31T12:00:00.000Z`.
fn timestamp(time: SystemTime) -> impl Display {
    fmt::from_fn(move |f| match Timestamp::try_from(time) {
        Ok(time) => write!(f, "{time:.3}"),
        // Times that the clock can show are in range.
        Err(_) => f.write_str("-"),
    })
}

impl<T: Display> Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Flag;

    fn record() -> RequestRecord<'static> {
        RequestRecord {
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            method: "GET",
            path: "/productpage?u=normal",
            protocol: "HTTP/1.1",
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            flags: Flags::default().with(Flag::NoHealthyUpstream),
            details: "no_healthy_upstream",
            received: 0,
            sent: 19,
            duration: Duration::from_millis(2),
            upstream_time: None,
            forwarded_for: None,
            user_agent: Some("curl/8"),
            request_id: Some("x"),
            authority: "productpage:9080",
            upstream_host: None,
            upstream_cluster: Some("inbound-vip|9080|http|productpage.default.svc.cluster.local"),
            upstream_failure: None,
            local_address: "10.96.0.10:9080".parse().ok(),
            remote_address: "10.1.0.2:40000".parse().unwrap(),
            route: Some("default"),
        }
    }

    #[test]
    fn a_line_has_the_fields_of_envoys_default_format_in_its_order() {
        assert_eq!(
            record().as_text().to_string(),
            "[1970-01-01T00:00:01.500Z] \"GET /productpage?u=normal HTTP/1.1\" 503 UH \
             no_healthy_upstream - \"-\" 0 19 2 - \"-\" \"curl/8\" \"x\" \"productpage:9080\" \"-\" \
             inbound-vip|9080|http|productpage.default.svc.cluster.local - 10.96.0.10:9080 \
             10.1.0.2:40000 - default"
        );
    }

    #[test]
    fn json_has_the_same_with_numbers_as_numbers() {
        let json = record().as_json();
        assert_eq!(json["response_code"], 503);
        assert_eq!(json["response_flags"], "UH");
        assert_eq!(json["upstream_service_time"], serde_json::Value::Null);
        assert_eq!(json["downstream_local_address"], "10.96.0.10:9080");
        assert_eq!(json["duration"], 2);
    }
}
