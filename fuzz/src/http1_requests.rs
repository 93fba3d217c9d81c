//! Requests over HTTP/1, as the library sees them once they are checked.

use std::{cell::RefCell, convert::Infallible, time::Duration};

use bytes::Bytes;
use fairlead_waypoint::http1::Framing;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Builder,
    time::timeout,
};

/// Bytes on the way to either end.
const ON_THE_WAY: usize = 64 << 10;

/// Time after which the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A method, and a body if all of it came.
type Seen = (String, Option<Vec<u8>>);

/// The input is what a client sends. Whichever way it comes, it is judged alike; and of what is let
/// through the library sees those requests that a naive reader does, or it sees none.
pub fn http1_requests(data: &[u8]) {
    let sound = sound(data, data.len().max(1));
    for piece in [1, 7] {
        // Lines are judged at their ends: in pieces, more of a bad one has been let through.
        let in_pieces = self::sound(data, piece);
        assert!(in_pieces.0.len() >= sound.0.len(), "in pieces of {piece}");
        assert!(!in_pieces.0[sound.0.len()..].contains(&b'\n'), "in pieces of {piece}");
        assert_eq!(in_pieces.1, sound.1, "in pieces of {piece}");
    }
    let (bytes, is_refused) = sound;
    let expected = naive(bytes);
    let seen = served(&[bytes, if is_refused { b"\0\r\n\r\n" } else { b"" }].concat());
    assert!(seen.len() <= expected.len(), "{seen:?} for {expected:?}");
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen.0, expected.0);
        if let (Some(seen), Some(expected)) = (&seen.1, &expected.1) {
            assert_eq!(seen, expected);
        }
        assert!(seen.1.is_none() || expected.1.is_some(), "a body that has not ended");
    }
}

/// Returns what is let through, and whether the rest is refused.
fn sound(data: &[u8], piece: usize) -> (&[u8], bool) {
    let mut framing = Framing::default();
    let mut sound = 0;
    for piece in data.chunks(piece) {
        if let Err(refused) = framing.advance(piece) {
            return (&data[..sound + refused.sound], true);
        }
        sound += piece.len();
    }
    (data, false)
}

/// Returns the requests whose heads are there, read without looking twice.
fn naive(mut bytes: &[u8]) -> Vec<Seen> {
    let mut requests = Vec::new();
    loop {
        while let [b'\r', b'\n', rest @ ..] = bytes {
            bytes = rest;
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { break };
        let (head, rest) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
        let mut lines = head.split("\r\n");
        let method = lines.next().and_then(|line| line.split(' ').next()).unwrap_or_default();
        let fields: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])))
            .collect();
        let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        let body = if field("transfer-encoding").is_some() {
            naive_chunks(rest)
        } else {
            let length = field("content-length").and_then(|length| length.parse().ok());
            let length: usize = length.unwrap_or_default();
            rest.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest))
        };
        let Some((body, rest)) = body else {
            requests.push((method.to_owned(), None));
            break;
        };
        requests.push((method.to_owned(), Some(body)));
        let asks = |value: &str| !value.eq_ignore_ascii_case("h2c");
        let asked = fields.iter().any(|(name, value)| name == "upgrade" && asks(value));
        // What follows is no HTTP.
        if method == "CONNECT" || asked {
            break;
        }
        bytes = rest;
    }
    requests
}

/// Returns a body in chunks, and what follows it.
fn naive_chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let line = |bytes: &[u8]| bytes.windows(2).position(|two| two == b"\r\n");
    let mut body = Vec::new();
    loop {
        let end = line(bytes)?;
        let digits: String = bytes[..end]
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .map(|byte| char::from(*byte))
            .collect();
        let size = usize::from_str_radix(&digits, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            break;
        }
        let (chunk, rest) = bytes.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    // Trailers, to the empty line.
    loop {
        let end = line(bytes)?;
        bytes = &bytes[end + 2..];
        if end == 0 {
            return Some((body, bytes));
        }
    }
}

/// Returns the requests that the library serves.
fn served(bytes: &[u8]) -> Vec<Seen> {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let seen = RefCell::new(Vec::new());
    let work = async {
        let (client, server) = tokio::io::duplex(ON_THE_WAY);
        let serve = async {
            let service = service_fn(|request| answer(request, &seen));
            let mut builder = http1::Builder::new();
            builder.header_read_timeout(None);
            // How it ends is the client's business.
            let _ = builder.serve_connection(TokioIo::new(server), service).await;
        };
        let (mut receive, mut send) = tokio::io::split(client);
        let write = async {
            let _ = send.write_all(bytes).await;
            let _ = send.shutdown().await;
        };
        let read = async {
            let _ = receive.read_to_end(&mut Vec::new()).await;
        };
        let all = async { tokio::join!(serve, write, read) };
        assert!(timeout(PATIENCE, all).await.is_ok(), "the server hangs");
    };
    runtime.block_on(work);
    seen.into_inner()
}

async fn answer(
    request: Request<Incoming>,
    seen: &RefCell<Vec<Seen>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
    seen.borrow_mut().push((head.method.to_string(), body));
    let asks = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"h2c");
    let asked = head.headers.get_all(http::header::UPGRADE).iter().any(asks);
    let mut response = Response::new(Empty::new());
    if head.method == http::Method::CONNECT || asked {
        // As the waypoint does.
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
    }
    Ok(response)
}
