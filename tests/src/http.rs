//! The smallest HTTP client that reads health and metrics pages from inside a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::netns::Netns;

/// Time to connect, and time without a byte, before a page counts as unavailable.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest response accepted, in bytes: metrics of thousands of connections fit.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, as text.
    pub body: String,
}

/// Gets `path` from `server` as seen from inside `netns`.
pub fn http_get(netns: &Netns, server: SocketAddr, path: &str) -> Result<Response> {
    // The socket stays in the namespace it was made in, whatever thread uses it.
    let mut stream = netns
        .enter(|| Ok(TcpStream::connect_timeout(&server, TIMEOUT)?))
        .with_context(|| format!("connect to {server} in {}", netns.name()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut response)?;
    parse(&String::from_utf8_lossy(&response))
}

fn parse(response: &str) -> Result<Response> {
    let (head, body) = response.split_once("\r\n\r\n").context("no end of the header")?;
    let mut status_line = head.split(' ');
    let version = status_line.next().unwrap_or_default();
    ensure!(version.starts_with("HTTP/1."), "not HTTP: {version}");
    let status = status_line.next().context("no status")?.trim_end();
    Ok(Response { status: status.get(..3).unwrap_or(status).parse()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_split() {
        let response =
            parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nnot\r\n\r\nyet").unwrap();
        assert_eq!(response, Response { status: 503, body: "not\r\n\r\nyet".into() });
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n").unwrap().status, 200);
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for bad in ["", "220 ready\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
