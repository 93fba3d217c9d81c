//! Another protocol over a stream of HTTP/2: what HTTP/1.1 asks for by an upgrade is an extended CONNECT
//! there (RFC 8441).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
    response,
};
use hyper::{body::Incoming, ext::Protocol, upgrade};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    Dialler, Key, Pool, UpstreamError, Wanted,
    multiplexed::{Place, Stream},
    switch::{Held, Switch, Switched},
};
use crate::proxy::{body::Body, prefixed::Prefixed, upgrade::offer};

/// What the key of a client is hashed with (RFC 6455 section 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    protocol: HeaderValue,
    /// By which a client of WebSocket in HTTP/1.1 knows that it was heard.
    key: Option<HeaderValue>,
}

// === impl Pool ===

impl Pool {
    /// Sends a request for another protocol, and returns the answer that it would have in HTTP/1.1.
    pub(super) async fn switch_http2(
        &self,
        key: Key,
        dialler: &Dialler,
        wanted: &Wanted,
        switch: &Switch,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Option<Stream>), UpstreamError> {
        let Place { mut requests, stream } = self.place_for_one(key, dialler, wanted).await?;
        let limit = wanted.cluster.policy().pool.connect_timeout;
        let late = |_| UpstreamError::ConnectTimeout(limit);
        if !timeout(limit, stream.takes_extended_connect()).await.map_err(late)? {
            return Err(UpstreamError::NoExtendedConnect);
        }
        let (mut parts, body) = request.into_parts();
        let asked = Asked::take(&mut parts)?;
        let sent = requests.send_request(Request::from_parts(parts, body)).await;
        let mut response = sent.map_err(|error| stream.broken(&error))?;
        if response.status() != StatusCode::OK {
            return Ok((response, Some(stream)));
        }
        let upgraded = upgrade::on(&mut response).await.map_err(|error| stream.broken(&error))?;
        let io = Prefixed::new(Bytes::new(), Box::new(TokioIo::new(upgraded)) as _);
        switch.put(Switched { io, held: Held::Stream(stream) });
        let (mut parts, body) = response.into_parts();
        asked.agree(&mut parts);
        Ok((Response::from_parts(parts, body), None))
    }
}

// === impl Asked ===

impl Asked {
    /// Makes of a request for another protocol in HTTP/1.1 one in HTTP/2.
    fn take(request: &mut Parts) -> Result<Self, UpstreamError> {
        let headers = &mut request.headers;
        headers.remove(CONNECTION);
        headers.remove(CONTENT_LENGTH);
        let key = headers.remove(SEC_WEBSOCKET_KEY);
        let protocol = headers.remove(UPGRADE).ok_or(UpstreamError::NoExtendedConnect)?;
        let name = protocol.to_str().map_err(|_| UpstreamError::NoExtendedConnect)?;
        request.extensions.insert(Protocol::from(name));
        request.method = Method::CONNECT;
        Ok(Self { protocol, key })
    }

    /// Makes of the endpoint's agreement in HTTP/2 one in HTTP/1.1.
    fn agree(self, answer: &mut response::Parts) {
        answer.status = StatusCode::SWITCHING_PROTOCOLS;
        let is_websocket = self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        if let Some(accept) = self.key.filter(|_| is_websocket).and_then(|key| accept(&key)) {
            answer.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        offer(&mut answer.headers, self.protocol);
    }
}

/// Returns what a client of WebSocket expects for its key (RFC 6455 section 4.2.2).
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let hashed = [key.as_bytes(), WEBSOCKET_GUID.as_bytes()].concat();
    HeaderValue::try_from(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_the_agreement_that_of_http_1() {
        let request = Request::get("http://shop/chat")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            // The example of RFC 6455 section 1.3.
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let asked = Asked::take(&mut parts).unwrap();
        assert_eq!(parts.method, Method::CONNECT);
        assert_eq!(parts.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
        let names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["sec-websocket-version"]);
        let (mut answer, ()) = Response::new(()).into_parts();
        asked.agree(&mut answer);
        assert_eq!(answer.status, StatusCode::SWITCHING_PROTOCOLS);
        for (name, value) in [
            (UPGRADE, "websocket"),
            (CONNECTION, "upgrade"),
            (SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ] {
            assert_eq!(answer.headers.get(&name).unwrap(), value, "{name}");
        }
    }

    #[test]
    fn other_protocols_need_no_key() {
        let request = Request::get("http://shop/").header(UPGRADE, "plain").body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let (mut answer, ()) = Response::new(()).into_parts();
        Asked::take(&mut parts).unwrap().agree(&mut answer);
        assert!(!answer.headers.contains_key(SEC_WEBSOCKET_ACCEPT));
        assert!(Asked::take(&mut parts).is_err());
    }
}
