//! Texts with properties of a request in them, in Envoy's notation: `%REQ(x)%`.
//!
//! Parsed once; header values and lines of access logs are made of them.

mod operator;

use std::{fmt::Write, net::SocketAddr, time::Duration};

use http::{HeaderMap, StatusCode, Version};
use mesh_api::identity::Identity;

use self::operator::Operator;
use super::{flags::Flags, head::RequestHead, invalid::Problem};

/// Longest template, in bytes: more than any value of a header that is accepted, and than any
/// format of a log.
pub const MAX_TEMPLATE_BYTES: usize = 16 * 1024;

/// A text with properties of a request in it.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<str>),
    Property { operator: Operator, max_chars: Option<usize> },
}

/// What a template says where a request lacks a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing: in headers.
    Empty,
    /// A dash: in logs.
    Dash,
}

/// All that templates may name of a request.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The request as it is at that time.
    pub request: RequestHead<'a>,
    /// The response, once there is one.
    pub response: Option<Response<'a>>,
    /// What neither of them says.
    pub facts: &'a Facts<'a>,
}

/// What templates may name of a response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// What is known of an exchange beside its headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Version that the client speaks.
    pub protocol: Version,
    /// When the request began, since 1970.
    pub start: Duration,
    /// How long it took.
    pub duration: Option<Duration>,
    /// The client's workload.
    pub downstream_remote: Option<SocketAddr>,
    /// What the client connected to.
    pub downstream_local: Option<SocketAddr>,
    /// Identity that the client proved.
    pub downstream_peer: Option<&'a Identity>,
    /// Server name that the client asked for.
    pub server_name: Option<&'a str>,
    /// Endpoint that got the request.
    pub upstream_host: Option<SocketAddr>,
    /// Own end of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    /// Name of the destination.
    pub upstream_cluster: Option<&'a str>,
    /// Why no connection to the endpoint could be made.
    pub upstream_failure: Option<&'a str>,
    /// Name of the route.
    pub route_name: Option<&'a str>,
    /// Name of the host that this runs on.
    pub hostname: Option<&'a str>,
    /// What went wrong.
    pub flags: Flags,
    /// Why the response is what it is.
    pub details: Option<&'a str>,
    /// Why the connection was ended.
    pub termination_details: Option<&'a str>,
    /// How often the request was tried.
    pub attempts: u32,
    /// Length of the request's body so far.
    pub bytes_received: u64,
    /// Length of the response's body so far.
    pub bytes_sent: u64,
}

// === impl Template ===

impl Template {
    /// Parses a text in which `%%` stands for a percent sign.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(Problem::TooLong { length: text.len(), limit: MAX_TEMPLATE_BYTES });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((plain, special)) = rest.split_once('%') {
            literal.push_str(plain);
            if let Some(after) = special.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (part, after) = Part::parse(special)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(part);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// Returns the text if it names no property.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Writes the text for a request.
    pub fn render(&self, view: &View<'_>, missing: Missing, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Property { operator, max_chars } => {
                    let start = out.len();
                    // Writing into a string cannot fail; what fails is a property that is missing.
                    if operator.write(view, out).is_none() {
                        out.truncate(start);
                        if missing == Missing::Dash {
                            out.push('-');
                        }
                    }
                    truncate(out, start, *max_chars);
                }
            }
        }
    }
}

// === impl Part ===

impl Part {
    /// Parses what follows a percent sign, up to the one that ends it; returns what is left.
    fn parse(text: &str) -> Result<(Self, &str), Problem> {
        let unknown = || Problem::Formatter(text.chars().take(MAX_SHOWN_CHARS).collect());
        // An argument may hold percent signs of its own: `%START_TIME(%Y)%`.
        let name_end = text.find(['(', ':', '%']).ok_or_else(unknown)?;
        let (name, rest) = text.split_at(name_end);
        let (argument, rest) = match rest.strip_prefix('(') {
            Some(inner) => {
                let (argument, rest) = inner.split_once(')').ok_or_else(unknown)?;
                (Some(argument), rest)
            }
            None => (None, rest),
        };
        let (length, rest) = rest.split_once('%').ok_or_else(unknown)?;
        let max_chars = match length.strip_prefix(':') {
            Some(length) => Some(length.parse().map_err(|_| unknown())?),
            None if length.is_empty() => None,
            None => return Err(unknown()),
        };
        let operator = Operator::parse(name, argument).ok_or_else(unknown)?;
        Ok((Self::Property { operator, max_chars }, rest))
    }
}

/// How much of a formatter that is not known is shown in the error, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// Shortens what was written since `start`.
fn truncate(out: &mut String, start: usize, max_chars: Option<usize>) {
    let Some(max_chars) = max_chars else { return };
    if let Some((end, _)) = out[start..].char_indices().nth(max_chars) {
        out.truncate(start + end);
    }
}

/// Writes something into a string, which cannot fail.
fn put(out: &mut String, value: impl std::fmt::Display) -> Option<()> {
    write!(out, "{value}").ok()
}

#[cfg(test)]
mod tests;
