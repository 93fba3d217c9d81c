//! The properties of a request that templates may name.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderName, Version};
use jiff::Timestamp;

use super::{View, put};
use crate::route::{flags::Flag, head::RequestHead, matching::joined};

/// A property of a request.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    Request { first: Property, second: Option<Property>, query: bool },
    Response { first: HeaderName, second: Option<HeaderName> },
    Protocol,
    StartTime { format: Option<Box<str>> },
    Duration,
    Address { whose: Whose, part: AddressPart },
    PeerUri,
    ServerName,
    UpstreamCluster,
    UpstreamFailure,
    RouteName,
    Hostname,
    Status,
    Flags { long: bool },
    Details,
    TerminationDetails,
    Attempts,
    BytesReceived,
    BytesSent,
}

/// What `REQ` may name.
#[derive(Clone, Debug)]
pub(super) enum Property {
    Header(HeaderName),
    Method,
    Scheme,
    Authority,
    Path,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    DownstreamRemote,
    DownstreamLocal,
    UpstreamRemote,
    UpstreamLocal,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum AddressPart {
    Whole,
    Ip,
    Port,
}

// === impl Operator ===

impl Operator {
    /// Returns the property of a name, with what stands in parentheses after it.
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Option<Self> {
        match (name, argument) {
            ("REQ", Some(argument)) => Self::request(argument, true),
            ("REQ_WITHOUT_QUERY", Some(argument)) => Self::request(argument, false),
            ("RESP", Some(argument)) => {
                let (first, second) = alternatives(argument);
                let second = match second {
                    Some(second) => Some(second.parse().ok()?),
                    None => None,
                };
                Some(Self::Response { first: first.parse().ok()?, second })
            }
            ("START_TIME", None | Some("")) => Some(Self::StartTime { format: None }),
            ("START_TIME", Some(format)) => {
                // What cannot be said of one time cannot be said of any.
                jiff::fmt::strtime::format(format, Timestamp::UNIX_EPOCH).ok()?;
                Some(Self::StartTime { format: Some(format.into()) })
            }
            (name, None) => Self::plain(name).or_else(|| Self::address(name)),
            (_, Some(_)) => None,
        }
    }

    fn request(argument: &str, query: bool) -> Option<Self> {
        let (first, second) = alternatives(argument);
        let second = match second {
            Some(second) => Some(Property::parse(second)?),
            None => None,
        };
        Some(Self::Request { first: Property::parse(first)?, second, query })
    }

    fn plain(name: &str) -> Option<Self> {
        Some(match name {
            "PROTOCOL" => Self::Protocol,
            "DURATION" => Self::Duration,
            "DOWNSTREAM_PEER_URI_SAN" => Self::PeerUri,
            "REQUESTED_SERVER_NAME" => Self::ServerName,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Self::UpstreamCluster,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Self::UpstreamFailure,
            "ROUTE_NAME" => Self::RouteName,
            "HOSTNAME" => Self::Hostname,
            "RESPONSE_CODE" => Self::Status,
            "RESPONSE_FLAGS" => Self::Flags { long: false },
            "RESPONSE_FLAGS_LONG" => Self::Flags { long: true },
            "RESPONSE_CODE_DETAILS" => Self::Details,
            "CONNECTION_TERMINATION_DETAILS" => Self::TerminationDetails,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Self::Attempts,
            "BYTES_RECEIVED" => Self::BytesReceived,
            "BYTES_SENT" => Self::BytesSent,
            _ => return None,
        })
    }

    fn address(name: &str) -> Option<Self> {
        let (name, part) = if let Some(name) = name.strip_suffix("_WITHOUT_PORT") {
            (name, AddressPart::Ip)
        } else if let Some(name) = name.strip_suffix("_ADDRESS_PORT") {
            return Some(Self::Address { whose: Whose::parse(name)?, part: AddressPart::Port });
        } else if let Some(name) = name.strip_suffix("_PORT") {
            return Some(Self::Address { whose: Whose::parse(name)?, part: AddressPart::Port });
        } else {
            (name, AddressPart::Whole)
        };
        let whose = match name {
            "UPSTREAM_HOST" => Whose::UpstreamRemote,
            name => Whose::parse(name.strip_suffix("_ADDRESS")?)?,
        };
        Some(Self::Address { whose, part })
    }

    /// Writes the property; `None` if the request has none.
    pub(super) fn write(&self, view: &View<'_>, out: &mut String) -> Option<()> {
        let facts = view.facts;
        match self {
            Self::Request { first, second, query } => first
                .write(&view.request, *query, out)
                .or_else(|| second.as_ref()?.write(&view.request, *query, out)),
            Self::Response { first, second } => {
                let headers = view.response?.headers;
                header(headers, first, out).or_else(|| header(headers, second.as_ref()?, out))
            }
            Self::Protocol => put(out, protocol(facts.protocol)),
            Self::StartTime { format } => time(facts.start, format.as_deref(), out),
            Self::Duration => put(out, facts.duration?.as_millis()),
            Self::Address { whose, part } => part.write(whose.of(view)?, out),
            Self::PeerUri => put(out, facts.downstream_peer?),
            Self::ServerName => put(out, facts.server_name?),
            Self::UpstreamCluster => put(out, facts.upstream_cluster?),
            Self::UpstreamFailure => put(out, facts.upstream_failure?),
            Self::RouteName => put(out, facts.route_name?),
            Self::Hostname => put(out, facts.hostname?),
            Self::Status => put(out, view.response.map_or(0, |response| response.status.as_u16())),
            Self::Flags { long: false } => {
                (!facts.flags.is_empty()).then(|| put(out, facts.flags))?
            }
            Self::Flags { long: true } => {
                (!facts.flags.is_empty()).then_some(())?;
                for (index, flag) in facts.flags.iter().enumerate() {
                    put(out, if index > 0 { "," } else { "" })?;
                    put(out, Flag::long_name(flag))?;
                }
                Some(())
            }
            Self::Details => put(out, facts.details?),
            Self::TerminationDetails => put(out, facts.termination_details?),
            Self::Attempts => (facts.attempts > 0).then(|| put(out, facts.attempts))?,
            Self::BytesReceived => put(out, facts.bytes_received),
            Self::BytesSent => put(out, facts.bytes_sent),
        }
    }
}

/// Splits `a?b`: the second is named where the first is missing.
fn alternatives(argument: &str) -> (&str, Option<&str>) {
    argument.split_once('?').map_or((argument, None), |(first, second)| (first, Some(second)))
}

// === impl Property ===

impl Property {
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Some(Self::Method),
            ":scheme" => Some(Self::Scheme),
            ":authority" | "host" => Some(Self::Authority),
            ":path" => Some(Self::Path),
            other => other.parse().ok().map(Self::Header),
        }
    }

    fn write(&self, request: &RequestHead<'_>, query: bool, out: &mut String) -> Option<()> {
        let before_query = |text: &mut String, start: usize| {
            if let (false, Some(end)) = (query, text[start..].find('?')) {
                text.truncate(start + end);
            }
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let start = out.len();
        match self {
            Self::Header(name) => header(request.headers, name, out)?,
            Self::Method => put(out, request.method)?,
            Self::Scheme => put(out, some(request.scheme)?)?,
            Self::Authority => put(out, some(request.authority)?)?,
            Self::Path => put(out, request.path_and_query())?,
        }
        before_query(out, start);
        Some(())
    }
}

/// Writes a header, several values joined; what is not UTF-8 is shown as such.
fn header(headers: &HeaderMap, name: &HeaderName, out: &mut String) -> Option<()> {
    let values = headers.get_all(name);
    let mut each = values.iter();
    let (first, second) = (each.next()?, each.next());
    match (first.to_str(), second) {
        (Ok(text), None) => out.push_str(text),
        _ => out.push_str(&String::from_utf8_lossy(&joined(&values))),
    }
    Some(())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// Writes a time, in UTC with milliseconds unless asked otherwise.
fn time(since_1970: Duration, format: Option<&str>, out: &mut String) -> Option<()> {
    const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";
    let at = Timestamp::UNIX_EPOCH.checked_add(since_1970).ok()?;
    out.push_str(&jiff::fmt::strtime::format(format.unwrap_or(DEFAULT), at).ok()?);
    Some(())
}

// === impl Whose ===

impl Whose {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "DOWNSTREAM_REMOTE" | "DOWNSTREAM_DIRECT_REMOTE" => Some(Self::DownstreamRemote),
            "DOWNSTREAM_LOCAL" => Some(Self::DownstreamLocal),
            "UPSTREAM_REMOTE" => Some(Self::UpstreamRemote),
            "UPSTREAM_LOCAL" => Some(Self::UpstreamLocal),
            _ => None,
        }
    }

    fn of(self, view: &View<'_>) -> Option<SocketAddr> {
        match self {
            Self::DownstreamRemote => view.facts.downstream_remote,
            Self::DownstreamLocal => view.facts.downstream_local,
            Self::UpstreamRemote => view.facts.upstream_host,
            Self::UpstreamLocal => view.facts.upstream_local,
        }
    }
}

// === impl AddressPart ===

impl AddressPart {
    fn write(self, address: SocketAddr, out: &mut String) -> Option<()> {
        match self {
            Self::Whole => put(out, address),
            Self::Ip => put(out, address.ip()),
            Self::Port => put(out, address.port()),
        }
    }
}
