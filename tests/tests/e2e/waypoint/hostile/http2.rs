//! Requests over HTTP/2 that would be two over HTTP/1 (trust.md row 52), and too much of what makes them
//! (rows 34 to 36 and 39).

use std::io::Write as _;

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt as _;

use super::Hostile;
use crate::{
    hbone::excess,
    peer::{Frame, PREFACE, adopt, block_on, header_block, read_frame, write_frame},
};

/// What a server of HTTP/1 might take for a request of its own.
const HIDDEN: &[u8] = b"GET /hidden HTTP/1.1\r\nHost: raw\r\n\r\n";

/// The first byte of a header block whose status is 200 (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

/// What is wrong, the request's headers, and what follows them.
type Case = (&'static str, Vec<(&'static str, &'static [u8])>, &'static [u8]);

pub(super) fn requests_over_http2_that_would_be_two_over_http1_are_reset(
    hostile: &Hostile,
) -> Result<()> {
    for (what, headers, body) in cases() {
        hostile.recorder.forget();
        ensure!(!is_answered(hostile, &headers, body)?, "{what}: it is answered");
        let sent = hostile.recorder.sent().to_ascii_lowercase();
        ensure!(!sent.contains("hidden"), "{what}: {sent}");
    }
    // Both ways of saying so are right in themselves.
    for (what, headers, body) in [
        ("no body", post(b"POST", b"/", &[("content-length", b"0")]), &b""[..]),
        ("a body", post(b"POST", b"/", &[("content-length", b"4")]), b"body"),
    ] {
        ensure!(is_answered(hostile, &headers, body)?, "{what}: it is not answered");
    }
    hostile.is_well()
}

pub(super) fn floods_end_the_connection_that_they_come_by_and_are_counted(
    hostile: &Hostile,
) -> Result<()> {
    let before = hostile.limit_reached("request_frames")?;
    let head = header_block(&post(b"POST", b"/", &[]));
    let open = Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, head);
    let connect = async || {
        let mut io = adopt(hostile.dial()?)?;
        io.write_all(PREFACE).await?;
        write_frame(&mut io, &Frame::no_settings()).await?;
        Ok(io)
    };
    let floods = excess::check_floods_of(&open, connect, || hostile.is_well())?;
    let floods = f64::from(u32::try_from(floods)?);
    hostile.wait_limit("request_frames", before + floods - 0.5)
}

/// The node of the endpoints must not take the waypoint for the client: it would end tunnels that carry
/// what others are being answered.
pub(super) fn requests_that_are_given_up_at_once_end_no_tunnel_that_others_use(
    hostile: &Hostile,
) -> Result<()> {
    const CONNECTIONS: usize = 300;
    const REQUESTS: u32 = 50;
    let head = header_block(&post(b"GET", b"/", &[]));
    let mut flood = [PREFACE, &Frame::no_settings().to_bytes()].concat();
    for stream in (0..REQUESTS).map(|n| 2 * n + 1) {
        let flags = Frame::END_HEADERS | Frame::END_STREAM;
        flood.extend(Frame::new(Frame::HEADERS, flags, stream, head.clone()).to_bytes());
        flood.extend(Frame::new(Frame::RST_STREAM, 0, stream, [0, 0, 0, 8]).to_bytes());
    }
    let calmed = || {
        let metrics = hostile.mesh.n2.metrics()?;
        anyhow::Ok(metrics.sum("fairlead_limit_reached_total", &[("limit", "tunnel_frames")]))
    };
    let before = calmed()?;
    for _ in 0..CONNECTIONS {
        // What ends the connection may have come before.
        let _ = hostile.dial()?.write_all(&flood);
    }
    let more = calmed()? - before;
    ensure!(more < 0.5, "{more} tunnels of the waypoint were ended");
    hostile.is_well()
}

fn cases() -> Vec<Case> {
    let plain = |headers: &[(&'static str, &'static [u8])]| post(b"POST", b"/", headers);
    vec![
        // H2.CL.
        ("content-length of none", plain(&[("content-length", b"0")]), HIDDEN),
        (
            "content-length of less",
            plain(&[("content-length", b"4")]),
            b"bodyGET /hidden HTTP/1.1\r\n",
        ),
        ("content-length of more", plain(&[("content-length", b"999")]), b"body"),
        (
            "content-length twice",
            plain(&[("content-length", b"0"), ("content-length", b"37")]),
            HIDDEN,
        ),
        ("content-length of no number", plain(&[("content-length", b"+37")]), HIDDEN),
        // H2.TE.
        (
            "transfer-encoding",
            plain(&[("transfer-encoding", b"chunked")]),
            b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
        ),
        ("te", plain(&[("te", b"chunked")]), b""),
        ("connection", plain(&[("connection", b"transfer-encoding")]), b""),
        // Line breaks.
        ("a value", plain(&[("x", b"y\r\nhidden: 1")]), b""),
        ("a value's line feed", plain(&[("x", b"y\nhidden: 1")]), b""),
        ("a value's zero", plain(&[("x", b"y\0hidden: 1")]), b""),
        ("a name", plain(&[("x: y\r\nhidden", b"1")]), b""),
        ("a name's colon", plain(&[("hidden:", b"1")]), b""),
        ("a path", post(b"GET", b"/ HTTP/1.1\r\nhidden: 1\r\n\r\nGET /hidden", &[]), b""),
        ("a space in a path", post(b"GET", b"/hidden HTTP/1.1", &[]), b""),
        ("a method", post(b"GET / HTTP/1.1\r\nhidden: 1\r\n\r\nGET", b"/hidden", &[]), b""),
        ("a space in a method", post(b"GET /hidden", b"/", &[]), b""),
        (
            "an authority",
            vec![
                (":method", b"GET"),
                (":scheme", b"http"),
                (":path", b"/"),
                (":authority", b"raw\r\nhidden: 1"),
            ],
            b"",
        ),
        (
            "a scheme",
            vec![
                (":method", b"GET"),
                (":scheme", b"http://hidden/?"),
                (":path", b"/hidden"),
                (":authority", b"raw"),
            ],
            b"",
        ),
    ]
}

/// Returns the headers of a request.
fn post(
    method: &'static [u8],
    path: &'static [u8],
    headers: &[(&'static str, &'static [u8])],
) -> Vec<(&'static str, &'static [u8])> {
    let first: [(_, &'static [u8]); 4] =
        [(":method", method), (":scheme", b"http"), (":path", path), (":authority", b"raw")];
    [&first[..], headers].concat()
}

/// Returns whether a request is answered with success. It ends with its body.
fn is_answered(hostile: &Hostile, headers: &[(&str, &[u8])], body: &[u8]) -> Result<bool> {
    let socket = hostile.dial()?;
    block_on(async {
        let mut io = adopt(socket)?;
        io.write_all(PREFACE).await?;
        write_frame(&mut io, &Frame::no_settings()).await?;
        let head = Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, header_block(headers));
        let rest = Frame::new(Frame::DATA, Frame::END_STREAM, 1, body);
        // What ends the connection may have come before.
        let _ = io.write_all(&[head.to_bytes(), rest.to_bytes()].concat()).await;
        while let Ok(frame) = read_frame(&mut io).await {
            match (frame.kind, frame.payload.first()) {
                (Frame::HEADERS, Some(&STATUS_200)) => return Ok(true),
                (Frame::HEADERS | Frame::RST_STREAM | Frame::GOAWAY, _) => return Ok(false),
                _ => {}
            }
        }
        Ok(false)
    })
}
