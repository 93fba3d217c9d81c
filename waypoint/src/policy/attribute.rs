//! The properties of a request that policies compare, and how.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;

use super::{Action, Claim, Subject};
use crate::route::{RequestHead, joined, split_port, text::TextMatch};

/// A property and the values that it may have.
#[derive(Debug)]
pub(super) enum Check {
    Text { attribute: Attribute, values: Values<TextMatch> },
    Address { attribute: AddressAttribute, values: Values<IpNet> },
    Port(Values<u16>),
}

/// Values of which one has to be hit, if there are any, and values of which none may be.
#[derive(Debug)]
pub(super) struct Values<T> {
    pub(super) any_of: Box<[T]>,
    pub(super) none_of: Box<[T]>,
}

/// A property that is a text, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    ServerName,
    Host,
    Method,
    Path,
    Header(HeaderName),
    RequestPrincipal,
    Audiences,
    Presenter,
    /// By the names of the claims around it, from the outermost.
    Claim(Box<[Box<str>]>),
}

/// A property that is an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressAttribute {
    Source,
    Remote,
    Destination,
}

// === impl Check ===

impl Check {
    /// Returns whether the property is as it has to be. Without a request, of a connection whose
    /// protocol is not looked at, no request can be allowed and every one is refused; nor is the server
    /// name known then that a client may have asked for in TLS.
    pub(super) fn holds(
        &self,
        action: Action,
        subject: &Subject<'_>,
        request: Option<&RequestHead<'_>>,
    ) -> bool {
        match self {
            Self::Text { attribute, .. }
                if request.is_none() && attribute.is_unread_without_request(subject) =>
            {
                action != Action::Allow
            }
            Self::Text { attribute, values } => values.hold(|condition| {
                attribute.any(subject, request, |value| attribute.hits(condition, value))
            }),
            Self::Address { attribute, values } => {
                let address = attribute.of(subject);
                values.hold(|network| network.contains(&address))
            }
            Self::Port(values) => values.hold(|port| *port == subject.destination.port()),
        }
    }
}

// === impl Values ===

impl<T> Values<T> {
    fn hold(&self, mut hits: impl FnMut(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&mut hits))
            && !self.none_of.iter().any(hits)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }
}

// === impl Attribute ===

impl Attribute {
    /// Returns whether it may be there, but is not read, where the protocol is not looked at.
    fn is_unread_without_request(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Principal | Self::Namespace | Self::ServiceAccount | Self::TrustDomain => false,
            Self::ServerName => subject.server_name.is_none(),
            Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::RequestPrincipal
            | Self::Audiences
            | Self::Presenter
            | Self::Claim(_) => true,
        }
    }

    fn hits(&self, condition: &TextMatch, value: &[u8]) -> bool {
        match (self, condition) {
            // An empty value is as good as none.
            (_, TextMatch::Present) => !value.is_empty(),
            (Self::Host, condition) => condition.matches_in_either_case(value),
            (_, condition) => condition.matches(value),
        }
    }

    /// Returns whether any of its values passes a test; one that is missing does not.
    fn any(
        &self,
        subject: &Subject<'_>,
        request: Option<&RequestHead<'_>>,
        mut passes: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let proven = subject.peer.identity.as_ref();
        let token = subject.token;
        let mut text = |value: Option<&str>| value.is_some_and(|value| passes(value.as_bytes()));
        match self {
            Self::Principal => text(proven.map(|proven| &*proven.principal)),
            Self::Namespace => text(proven.map(|proven| proven.identity.namespace.as_str())),
            Self::ServiceAccount => text(proven.map(|proven| &*proven.account)),
            Self::TrustDomain => text(proven.map(|proven| proven.identity.trust_domain.as_str())),
            Self::ServerName => text(subject.server_name),
            Self::Method => text(request.map(|request| request.method.as_str())),
            Self::Path => text(request.map(|request| request.path)),
            Self::Host => request.is_some_and(|request| {
                // A policy that names no port means the host at any: else a client would dodge it
                // by naming one.
                let host = split_port(request.authority).0;
                let host = host.strip_suffix('.').unwrap_or(host);
                text(Some(request.authority)) || text(Some(host))
            }),
            Self::Header(name) => request.is_some_and(|request| {
                let values = request.headers.get_all(name);
                let mut each = values.iter();
                match (each.next(), each.next()) {
                    (None, _) => false,
                    (Some(value), None) => passes(value.as_bytes()),
                    (Some(_), Some(_)) => passes(&joined(&values)),
                }
            }),
            Self::RequestPrincipal => text(token.map(|token| token.principal.as_str())),
            Self::Presenter => text(token.and_then(|token| token.presenter.as_deref())),
            Self::Audiences => {
                token.is_some_and(|token| token.audiences.iter().any(|value| text(Some(value))))
            }
            Self::Claim(names) => match token.and_then(|token| claim(&token.claims, names)) {
                Some(Claim::Text(value)) => text(Some(value)),
                Some(Claim::List(values)) => values.iter().any(|value| text(Some(value))),
                Some(Claim::Nested(_)) | None => false,
            },
        }
    }
}

/// Returns the claim at the end of a path of names.
fn claim<'a>(
    claims: &'a std::collections::BTreeMap<String, Claim>,
    names: &[Box<str>],
) -> Option<&'a Claim> {
    let (first, rest) = names.split_first()?;
    match (claims.get(&**first)?, rest) {
        (found, []) => Some(found),
        (Claim::Nested(inner), rest) => claim(inner, rest),
        (Claim::Text(_) | Claim::List(_), _) => None,
    }
}

// === impl AddressAttribute ===

impl AddressAttribute {
    /// Returns the address, as IPv4 where that is what is meant.
    fn of(self, subject: &Subject<'_>) -> IpAddr {
        let address = match self {
            Self::Source => subject.peer.address,
            Self::Remote => subject.remote,
            Self::Destination => subject.destination.ip(),
        };
        address.to_canonical()
    }
}
