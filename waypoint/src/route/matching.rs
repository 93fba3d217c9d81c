//! Which requests a route is for.

use http::{HeaderMap, HeaderName, header::GetAll};
use mesh_api::proto::l7;

use super::{
    head::RequestHead,
    invalid::{At, Invalid, Problem, each},
    path::PathMatch,
    text::TextMatch,
};

/// Which requests match; all that is set has to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpMatch {
    pub(crate) path: PathMatch,
    /// Most routes ask for nothing else, and there are many routes.
    beside_path: Option<Box<Conditions>>,
}

#[derive(Clone, Debug)]
struct Conditions {
    method: Option<TextMatch>,
    scheme: Option<TextMatch>,
    authority: Option<TextMatch>,
    headers: Box<[HeaderMatch]>,
    query: Box<[QueryMatch]>,
}

#[derive(Clone, Debug)]
struct HeaderMatch {
    property: Property,
    value: TextMatch,
    invert: bool,
}

/// What the name of a header match stands for.
#[derive(Clone, Debug)]
enum Property {
    Header(HeaderName),
    Method,
    Scheme,
    Authority,
    Path,
}

#[derive(Clone, Debug)]
struct QueryMatch {
    name: Box<str>,
    value: TextMatch,
}

// === impl HttpMatch ===

impl HttpMatch {
    /// Returns whether a request matches.
    pub(crate) fn matches(&self, request: &RequestHead<'_>) -> bool {
        let holds = |conditions: &Conditions| conditions.hold(request);
        self.path.matches(request.path) && self.beside_path.as_deref().is_none_or(holds)
    }
}

impl TryFrom<l7::HttpMatch> for HttpMatch {
    type Error = Invalid;

    fn try_from(wire: l7::HttpMatch) -> Result<Self, Invalid> {
        let l7::HttpMatch { path, method, scheme, authority, headers, query } = wire;
        let path = path.map(PathMatch::try_from).transpose().at("path")?.unwrap_or_default();
        let conditions = Conditions {
            method: method.map(TextMatch::try_from).transpose().at("method")?,
            scheme: scheme.map(TextMatch::try_from).transpose().at("scheme")?,
            authority: authority.map(TextMatch::try_from).transpose().at("authority")?,
            headers: each(headers, "headers", HeaderMatch::try_from)?,
            query: each(query, "query", QueryMatch::try_from)?,
        };
        Ok(Self { path, beside_path: (!conditions.is_empty()).then(|| Box::new(conditions)) })
    }
}

// === impl Conditions ===

impl Conditions {
    fn is_empty(&self) -> bool {
        let Self { method, scheme, authority, headers, query } = self;
        let texts = [method, scheme, authority];
        texts.iter().all(|text| text.is_none()) && headers.is_empty() && query.is_empty()
    }

    fn hold(&self, request: &RequestHead<'_>) -> bool {
        let holds = |condition: &Option<TextMatch>, value: &str| {
            condition.as_ref().is_none_or(|condition| condition.matches(value.as_bytes()))
        };
        holds(&self.method, request.method.as_str())
            && holds(&self.scheme, request.scheme)
            && holds(&self.authority, request.authority)
            && self.headers.iter().all(|header| header.matches(request))
            && self.query.iter().all(|parameter| parameter.matches(request.query))
    }
}

// === impl HeaderMatch ===

impl HeaderMatch {
    fn matches(&self, request: &RequestHead<'_>) -> bool {
        let value = |value: &str| self.matches_value(Some(value.as_bytes()));
        match &self.property {
            Property::Header(name) => self.matches_header(request.headers, name),
            Property::Method => value(request.method.as_str()),
            Property::Scheme => value(request.scheme),
            Property::Authority => value(request.authority),
            Property::Path => match request.query {
                Some(_) => value(&request.path_and_query()),
                None => value(request.path),
            },
        }
    }

    fn matches_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let values = headers.get_all(name);
        let mut each = values.iter();
        match (each.next(), each.next()) {
            (None, _) => self.matches_value(None),
            (Some(value), None) => self.matches_value(Some(value.as_bytes())),
            (Some(_), Some(_)) => self.matches_value(Some(&joined(&values))),
        }
    }

    /// A missing value counts as an empty one where it must not match, unless it must be missing.
    fn matches_value(&self, value: Option<&[u8]>) -> bool {
        match (value, self.invert, &self.value) {
            (Some(value), invert, condition) => condition.matches(value) != invert,
            (None, false, _) => false,
            (None, true, TextMatch::Present) => true,
            (None, true, condition) => !condition.matches(b""),
        }
    }
}

impl TryFrom<l7::HeaderMatch> for HeaderMatch {
    type Error = Invalid;

    fn try_from(wire: l7::HeaderMatch) -> Result<Self, Invalid> {
        let l7::HeaderMatch { name, value, invert } = wire;
        let property = match name.as_str() {
            ":method" => Property::Method,
            ":scheme" => Property::Scheme,
            ":authority" | "host" => Property::Authority,
            ":path" => Property::Path,
            other => Property::Header(
                HeaderName::from_lowercase(other.as_bytes())
                    .map_err(|_| Problem::HeaderName(name))
                    .at("name")?,
            ),
        };
        let value = value.ok_or(Problem::Missing).at("value")?;
        Ok(Self { property, value: TextMatch::try_from(value).at("value")?, invert })
    }
}

/// Returns several values of a header as the one that they are worth.
pub(crate) fn joined(values: &GetAll<'_, http::HeaderValue>) -> Vec<u8> {
    let mut joined = Vec::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            joined.push(b',');
        }
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

// === impl QueryMatch ===

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        query
            .and_then(|query| first_value(query, &self.name))
            .is_some_and(|value| self.value.matches(value.as_bytes()))
    }
}

impl TryFrom<l7::QueryMatch> for QueryMatch {
    type Error = Invalid;

    fn try_from(wire: l7::QueryMatch) -> Result<Self, Invalid> {
        let value = wire.value.ok_or(Problem::Missing).at("value")?;
        let value = TextMatch::try_from(value).at("value")?;
        Ok(Self { name: wire.name.into(), value })
    }
}

/// Returns the first value of a parameter, with its escapes as they are: neither names nor values
/// are decoded for routes, as Envoy's are not.
pub(crate) fn first_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests;
