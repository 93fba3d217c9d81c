//! Requests that go on: where, as what, and how long they may take.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use mesh_api::{proto::l7, workload::ServiceKey};

use super::{
    head::{RequestHead, split_port},
    headers::HeaderMutation,
    invalid::{At, Invalid, each},
    path::PathMatch,
    retry::RetryPolicy,
    rewrite::{Rewrite, Unwritable, apply_to_authority},
    split::{Destination, Split},
    template::Facts,
    wire::{self, Share},
};

/// How long a gRPC client waits.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a host gets where its copies are to be told from it.
const SHADOW_SUFFIX: &str = "-shadow";

/// Status where no destination has a share.
const NO_DESTINATION: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// What is forwarded, where to and how.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Destinations and their shares.
    pub destinations: Split,
    /// Whether failures are tried again.
    pub retry: Option<RetryPolicy>,
    /// Who gets copies.
    pub mirrors: Box<[Mirror]>,
    timeout: Option<Duration>,
    headers: HeaderMutation,
    /// With the paths that it is for.
    rewrite: Option<Box<(Rewrite, PathMatch)>>,
}

/// Who gets copies of requests, and of how many.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Service.
    pub service: ServiceKey,
    /// Port of the service; none for the one that the traffic was addressed to.
    pub port: Option<NonZeroU16>,
    /// Subset of the service; none for all of it.
    pub subset: Option<Arc<str>>,
    /// Of which requests.
    pub share: Share,
    shadow_suffix: bool,
}

// === impl Forward ===

impl Forward {
    /// Compiles what is done with requests whose path is `matched`.
    pub(crate) fn compile(
        wire: l7::Forward,
        matched: &PathMatch,
        headers: HeaderMutation,
    ) -> Result<Self, Invalid> {
        let rewrite = wire.rewrite.map(|rewrite| Rewrite::compile(rewrite, matched));
        let rewrite = rewrite.transpose().at("rewrite")?;
        Ok(Self {
            destinations: Split::try_from(wire.destinations)?,
            timeout: wire::period(wire.timeout).at("timeout")?,
            retry: wire.retry.map(RetryPolicy::try_from).transpose().at("retry")?,
            mirrors: each(wire.mirrors, "mirrors", Mirror::try_from)?,
            rewrite: rewrite.map(|rewrite| Box::new((rewrite, matched.clone()))),
            headers,
        })
    }

    /// Returns the destination of a request with this random number, or what it is answered where
    /// there is none.
    pub fn choose(&self, random: u64) -> Result<&Destination, StatusCode> {
        let chosen = self.destinations.choose(random).ok_or(NO_DESTINATION)?;
        chosen.refusal.map_or(Ok(chosen), Err)
    }

    /// Returns how long all tries of a request together may take: as its route says, or as long as
    /// a gRPC client says if that is less.
    pub fn timeout(&self, request: &RequestHead<'_>) -> Option<Duration> {
        let asked = request.headers.get(GRPC_TIMEOUT).filter(|_| request.is_grpc());
        let asked = asked.and_then(|value| grpc_timeout(value.as_bytes()));
        match (self.timeout, asked) {
            (Some(limit), Some(asked)) => Some(limit.min(asked)),
            (limit, asked) => limit.or(asked),
        }
    }

    /// Makes of a request what its destination gets: headers as the route says, then as the
    /// destination says, then path and authority.
    pub fn prepare(
        &self,
        request: &mut Parts,
        destination: &Destination,
        scheme: &str,
        facts: &Facts<'_>,
    ) -> Result<(), Unwritable> {
        let rewrite = self.rewrite.as_deref();
        let authority = rewrite
            .and_then(|(rewrite, _)| rewrite.authority.clone())
            .or_else(|| self.headers.authority(request, scheme, facts))
            .or_else(|| destination.request_headers.authority(request, scheme, facts));
        self.headers.apply_to_request(request, scheme, facts);
        destination.request_headers.apply_to_request(request, scheme, facts);
        if let Some((rewrite, matched)) = rewrite {
            rewrite.apply_to_path(request, matched)?;
        }
        authority.map_or(Ok(()), |authority| apply_to_authority(request, &authority))
    }
}

/// Parses at most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_hours(amount)),
        b'M' => Some(Duration::from_mins(amount)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

// === impl Mirror ===

impl Mirror {
    /// Returns the authority of a copy, if it is another one than that of the request.
    pub fn authority(&self, request: &str) -> Option<HeaderValue> {
        if !self.shadow_suffix {
            return None;
        }
        let (host, port) = split_port(request);
        let shadow = match port {
            Some(port) => [host, SHADOW_SUFFIX, ":", port].concat(),
            None => [host, SHADOW_SUFFIX].concat(),
        };
        HeaderValue::from_str(&shadow).ok()
    }
}

impl TryFrom<l7::Mirror> for Mirror {
    type Error = Invalid;

    fn try_from(wire: l7::Mirror) -> Result<Self, Invalid> {
        Ok(Self {
            service: wire::service(wire.service).at("service")?,
            port: wire::port(wire.port).at("port")?,
            subset: (!wire.subset.is_empty()).then(|| wire.subset.into()),
            share: Share::compile(wire.per_million).at("per_million")?,
            shadow_suffix: wire.shadow_suffix,
        })
    }
}

#[cfg(test)]
mod tests;
