//! Requests to speak another protocol from here on: WebSocket and others (RFC 9110 section 7.8), in
//! HTTP/2 an extended CONNECT (RFC 8441). Both are decided on as the same GET, whichever of them client
//! and endpoint speak.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fairlead_tunnel::hbone::duplex::Lingering;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
    response,
};
use hyper::{ext::Protocol, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    checked::Checked,
    exchange::Finished,
    idle::{Passed, pass},
    inbound::RequestIo,
    prefixed::Prefixed,
    upstream::{Io, Switch, Switched},
    watched::Watched,
};
use crate::{
    limits::DEFAULT_TCP_IDLE_TIMEOUT,
    route::{LocalReply, ResetReason},
};

/// A request of a client to speak another protocol.
#[derive(Debug)]
pub(super) struct Upgrade {
    client: OnUpgrade,
    /// Whether the client speaks HTTP/2, in which success alone says that it was heard.
    is_connect: bool,
    /// Where the endpoint's connection is put once it has agreed.
    pub(super) switch: Switch,
}

/// Both ends of what is spoken after an upgrade.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: OnUpgrade,
    endpoint: Switched,
}

/// Makes of an extended CONNECT the GET that asks for the same in HTTP/1.1, of which `random` is the
/// nonce. Any other CONNECT wants a tunnel to anywhere, which no service behind a waypoint is.
pub(super) fn settle_connect(request: &mut Parts, random: u128) -> Result<(), LocalReply> {
    if request.method != Method::CONNECT {
        return Ok(());
    }
    let protocol = request.extensions.get::<Protocol>().ok_or(LocalReply::UpgradeRefused)?;
    let name = HeaderValue::from_str(protocol.as_str()).map_err(|_| LocalReply::UpgradeRefused)?;
    request.method = Method::GET;
    let headers = &mut request.headers;
    if name.as_bytes().eq_ignore_ascii_case(b"websocket")
        && !headers.contains_key(SEC_WEBSOCKET_KEY)
    {
        let nonce = STANDARD.encode(random.to_be_bytes());
        let nonce = HeaderValue::try_from(nonce).map_err(|_| LocalReply::UpgradeRefused)?;
        headers.insert(SEC_WEBSOCKET_KEY, nonce);
    }
    offer(headers, name);
    Ok(())
}

/// Has the next neighbour be asked for a protocol, or told that it is spoken.
pub(super) fn offer(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Has the next neighbour be asked for nothing but an answer.
pub(super) fn withdraw(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
}

// === impl Upgrade ===

impl Upgrade {
    /// Returns what `request` asks for, of which `protocol` is left where neighbours do not look:
    /// it is put back for routes and the endpoint.
    pub(super) fn of(request: &mut Parts, protocol: Option<HeaderValue>) -> Option<Self> {
        let client = request.extensions.remove::<OnUpgrade>()?;
        offer(&mut request.headers, protocol?);
        let is_connect = request.version == Version::HTTP_2;
        Some(Self { client, is_connect, switch: Switch::default() })
    }

    /// Makes of an endpoint's answer the one that the client is given. One that would make the client
    /// believe what is not so becomes another.
    pub(super) fn settle(self, answer: &mut response::Parts) -> Result<Option<Tunnel>, LocalReply> {
        let Some(endpoint) = self.switch.take() else {
            // The endpoint, or this proxy, took it for an ordinary request.
            let is_misread = self.is_connect && answer.status.is_success();
            let wrong = LocalReply::UpstreamReset(ResetReason::ProtocolError);
            return if is_misread { Err(wrong) } else { Ok(None) };
        };
        if self.is_connect {
            answer.status = StatusCode::OK;
            withdraw(&mut answer.headers);
            answer.headers.remove(SEC_WEBSOCKET_ACCEPT);
        }
        Ok(Some(Tunnel { client: self.client, endpoint }))
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Passes bytes between client and endpoint until both directions have ended, one is broken, or
    /// nothing moves any more.
    pub(super) async fn run(self, mut finished: Finished) {
        let client = match self.client.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a client went away in its upgrade"),
        };
        let mut client = match client.downcast::<TokioIo<Checked<RequestIo>>>() {
            Ok(parts) => {
                let Some(io) = parts.io.into_inner().into_inner() else { return };
                Watched::new(unread(parts.read_buf, io))
            }
            // A stream of HTTP/2.
            Err(client) => Watched::new(Box::new(TokioIo::new(client)) as Box<dyn Io>),
        };
        let Switched { io, held: _held } = self.endpoint;
        let mut endpoint = Watched::new(io);
        let ended = pass(&mut client, &mut endpoint, Some(DEFAULT_TCP_IDLE_TIMEOUT)).await;
        finished.passed(client.read().get(), endpoint.read().get());
        match ended {
            Passed::Whole => finished.completed(),
            // Without an end the client is known to have gone away.
            Passed::Broken if client.is_broken => {}
            Passed::Broken => finished.broken(),
            Passed::Idle => finished.idle(),
        }
    }
}

/// Returns the connection of a client, of which `read` has been read too far. Its two directions end
/// each on its own from here on.
fn unread(read: bytes::Bytes, io: RequestIo) -> Box<dyn Io> {
    Box::new(Prefixed::new(read, io.map(Lingering::into_duplex)))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn connect(protocol: Option<&'static str>, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::connect("http://shop/chat?room=1").version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(protocol) = protocol {
            parts.extensions.insert(Protocol::from_static(protocol));
        }
        parts
    }

    #[test]
    fn an_extended_connect_becomes_the_get_of_http_1() {
        let mut request = connect(Some("websocket"), &[]);
        settle_connect(&mut request, 1).unwrap();
        assert_eq!(request.method, Method::GET);
        assert_eq!(request.uri, "http://shop/chat?room=1");
        for (name, value) in [
            (CONNECTION, "upgrade"),
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_KEY, "AAAAAAAAAAAAAAAAAAAAAQ=="),
        ] {
            assert_eq!(request.headers.get(&name).unwrap(), value, "{name}");
        }
        // A proxy before this one may have kept the nonce of its client, and others need none.
        let mut kept = connect(Some("WebSocket"), &[("sec-websocket-key", "kept")]);
        settle_connect(&mut kept, 1).unwrap();
        assert_eq!(kept.headers.get(SEC_WEBSOCKET_KEY).unwrap(), "kept");
        let mut other = connect(Some("connect-udp"), &[]);
        settle_connect(&mut other, 1).unwrap();
        assert!(!other.headers.contains_key(SEC_WEBSOCKET_KEY));
    }

    #[test]
    fn a_connect_without_a_protocol_is_refused_and_other_methods_are_as_they_were() {
        let refused = settle_connect(&mut connect(None, &[]), 1);
        assert_eq!(refused, Err(LocalReply::UpgradeRefused));
        let (mut get, ()) = Request::get("/").body(()).unwrap().into_parts();
        settle_connect(&mut get, 1).unwrap();
        assert!(get.headers.is_empty());
    }

    #[test]
    fn only_a_client_that_can_be_upgraded_asks_for_it() {
        let (mut request, ()) = Request::get("/").body(()).unwrap().into_parts();
        let websocket = HeaderValue::from_static("websocket");
        assert!(Upgrade::of(&mut request, Some(websocket)).is_none());
        assert!(request.headers.is_empty());
    }
}
