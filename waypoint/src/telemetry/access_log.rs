//! The access log: a line for each request and for each connection whose protocol is not looked at, in Envoy's default format, or the same as JSON.

use std::{
    fmt::{self, Display, Write as _},
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

/// What is said about a request or a connection that has ended.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it came.
    pub start: SystemTime,
    /// What only requests have; none of a connection.
    pub request: Option<Request<'a>>,
    /// What went wrong.
    pub flags: Flags,
    /// Why a connection was ended here.
    pub termination: Option<&'a str>,
    /// Bytes of the client, of a request those of its body.
    pub received: u64,
    /// Bytes that it was sent, of a response those of its body.
    pub sent: u64,
    /// From its first byte to the last one of the answer.
    pub duration: Duration,
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

/// What is said about a request alone.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path and query, as the client sent them.
    pub path: &'a str,
    /// Its version of HTTP.
    pub protocol: &'a str,
    /// Status of the answer; none if there was none.
    pub status: Option<StatusCode>,
    /// Where the answer came from.
    pub details: &'a str,
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
}

/// What a client says, so that it neither ends the field that it is in nor directs a terminal.
struct Escaped<'a>(&'a str);

/// A value, or a dash without one.
struct Or<T>(Option<T>);

// === impl AccessLog ===

impl AccessLog {
    /// Writes lines in this form.
    pub fn new(format: LogFormat) -> Self {
        Self(format)
    }

    /// Writes a line, unless that is turned off.
    pub fn write(self, record: &Record<'_>) {
        match self.0 {
            LogFormat::Plain => tracing::info!(target: VERBATIM, "{}", record.as_text()),
            LogFormat::Json => tracing::info!(target: VERBATIM, "{}", record.as_json()),
        }
    }
}

// === impl Record ===

impl Record<'_> {
    /// Returns the line in Envoy's default format.
    fn as_text(&self) -> impl Display {
        fmt::from_fn(move |f| {
            let request = self.request.as_ref();
            write!(f, "[{}] ", timestamp(self.start))?;
            write!(f, "\"{} ", Or(request.map(|request| Escaped(request.method))))?;
            write!(f, "{} ", Or(request.map(|request| Escaped(request.path))))?;
            write!(f, "{}\" ", Or(request.map(|request| request.protocol)))?;
            write!(f, "{} {} ", self.status(), self.flags)?;
            write!(f, "{} {} ", Or(request.map(|request| request.details)), Or(self.termination))?;
            write!(f, "\"{}\" ", Or(self.upstream_failure))?;
            write!(f, "{} {} {} ", self.received, self.sent, self.duration.as_millis())?;
            let upstream_time = request.and_then(|request| request.upstream_time);
            write!(f, "{} ", Or(upstream_time.map(|time| time.as_millis())))?;
            write!(
                f,
                "\"{}\" ",
                Or(request.and_then(|request| request.forwarded_for).map(Escaped))
            )?;
            write!(f, "\"{}\" ", Or(request.and_then(|request| request.user_agent).map(Escaped)))?;
            write!(f, "\"{}\" ", Or(request.and_then(|request| request.request_id).map(Escaped)))?;
            write!(f, "\"{}\" ", Or(request.map(|request| Escaped(request.authority))))?;
            write!(f, "\"{}\" ", Or(self.upstream_host))?;
            write!(f, "{} - ", Or(self.upstream_cluster))?;
            write!(f, "{} {} ", Or(self.local_address), self.remote_address)?;
            write!(f, "- {}", Or(self.route))
        })
    }

    /// Returns the same as JSON, under Envoy's names.
    fn as_json(&self) -> serde_json::Value {
        let request = self.request.as_ref();
        json!({
            "start_time": timestamp(self.start).to_string(),
            "method": request.map(|request| request.method),
            "path": request.map(|request| request.path),
            "protocol": request.map(|request| request.protocol),
            "response_code": self.status(),
            "response_flags": self.flags.to_string(),
            "response_code_details": request.map(|request| request.details),
            "connection_termination_details": self.termination,
            "upstream_transport_failure_reason": self.upstream_failure,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "duration": millis(self.duration),
            "upstream_service_time": request.and_then(|request| request.upstream_time).map(millis),
            "x_forwarded_for": request.and_then(|request| request.forwarded_for),
            "user_agent": request.and_then(|request| request.user_agent),
            "request_id": request.and_then(|request| request.request_id),
            "authority": request.map(|request| request.authority),
            "upstream_host": self.upstream_host,
            "upstream_cluster": self.upstream_cluster,
            "upstream_local_address": null,
            "downstream_local_address": self.local_address,
            "downstream_remote_address": self.remote_address,
            "requested_server_name": null,
            "route_name": self.route,
        })
    }

    /// Returns the status of the answer; 0 without one.
    fn status(&self) -> u16 {
        let status = self.request.as_ref().and_then(|request| request.status);
        status.map_or(0, |status| status.as_u16())
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

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                // Controls, and what turns the direction of text.
                _ if character.is_control() || is_format(character) => {
                    write!(f, "{}", character.escape_unicode())?;
                }
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Returns whether a character is not seen itself and changes how others are.
fn is_format(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Flag;

    fn record() -> Record<'static> {
        let request = Request {
            method: "GET",
            path: "/productpage?u=normal",
            protocol: "HTTP/1.1",
            status: Some(StatusCode::SERVICE_UNAVAILABLE),
            details: "no_healthy_upstream",
            upstream_time: None,
            forwarded_for: None,
            user_agent: Some("curl/8"),
            request_id: Some("x"),
            authority: "productpage:9080",
        };
        Record {
            start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            request: Some(request),
            flags: Flags::default().with(Flag::NoHealthyUpstream),
            termination: None,
            received: 0,
            sent: 19,
            duration: Duration::from_millis(2),
            upstream_host: None,
            upstream_cluster: Some("inbound-vip|9080|http|productpage.default.svc.cluster.local"),
            upstream_failure: None,
            local_address: "10.96.0.10:9080".parse().ok(),
            remote_address: "10.1.0.2:40000".parse().unwrap(),
            route: Some("default"),
        }
    }

    /// A connection that a policy refused.
    fn refused() -> Record<'static> {
        let termination = Some("rbac_access_denied_matched_policy[none]");
        let flags = Flags::default();
        Record { request: None, flags, termination, sent: 0, route: None, ..record() }
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
    fn what_a_client_says_stays_in_its_field() {
        for (said, shown) in [
            ("curl/8", "curl/8"),
            ("Mozilla/5.0 (X; é) {a}", "Mozilla/5.0 (X; é) {a}"),
            (r#"x" "id" "host"#, r#"x\" \"id\" \"host"#),
            (r#"\" x"#, r#"\\\" x"#),
            ("a\tb\u{9b}31m\u{7f}", r"a\u{9}b\u{9b}31m\u{7f}"),
            ("a\u{202e}b\u{2028}c", r"a\u{202e}b\u{2028}c"),
        ] {
            assert_eq!(Escaped(said).to_string(), shown);
        }
        let mut record = record();
        let request = record.request.as_mut().unwrap();
        (request.authority, request.user_agent) = (r#"h" "1.2.3.4:80"#, Some(r#"a" b"#));
        let line = record.as_text().to_string();
        assert!(line.contains(r#" "a\" b" "x" "h\" \"1.2.3.4:80" "-" inbound-vip"#), "{line}");
    }

    #[test]
    fn of_a_connection_the_line_says_what_there_is() {
        assert_eq!(
            refused().as_text().to_string(),
            "[1970-01-01T00:00:01.500Z] \"- - -\" 0 - - rbac_access_denied_matched_policy[none] \"-\" \
             0 0 2 - \"-\" \"-\" \"-\" \"-\" \"-\" \
             inbound-vip|9080|http|productpage.default.svc.cluster.local - 10.96.0.10:9080 \
             10.1.0.2:40000 - -"
        );
        let json = refused().as_json();
        assert_eq!(
            json["connection_termination_details"],
            "rbac_access_denied_matched_policy[none]"
        );
        for field in ["method", "path", "protocol", "response_code_details", "authority"] {
            assert_eq!(json[field], serde_json::Value::Null, "{field}");
        }
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
