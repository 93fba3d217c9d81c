//! Requests over HTTP/1 that can be read in two ways (trust.md rows 49 to 51, 53, 54).

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use super::{super::FELT, Hostile, read_to_end};

/// What a request line and a host are followed by: headers, and what stands where the body is.
fn post(fields: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: raw\r\n{fields}\r\n{rest}")
}

/// What a second reader might take for a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: raw\r\n\r\n";

pub(super) fn requests_that_can_be_read_in_two_ways_are_answered_400_and_nothing_is_forwarded(
    hostile: &Hostile,
) -> Result<()> {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
    let cases = [
        // Row 49.
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunks),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunks),
        post("Content-Length: 0\r\nContent-Length: 44\r\n", HIDDEN),
        post("Content-Length: 0\r\nContent-Length: 0\r\n", HIDDEN),
        post("Content-Length: +5\r\n", HIDDEN),
        post("Content-Length: 0x5\r\n", HIDDEN),
        post("Content-Length: 5,5\r\n", HIDDEN),
        post("Content-Length: -0\r\n", HIDDEN),
        post("Content-Length: 99999999999999999999\r\n", HIDDEN),
        post("Transfer-Encoding: xchunked\r\n", &chunks),
        post("Transfer-Encoding: \u{b}chunked\r\n", &chunks),
        post("Transfer-Encoding : chunked\r\n", &chunks),
        post(" Transfer-Encoding: chunked\r\n", &chunks),
        post("Transfer-Encoding: chunked, identity\r\n", &chunks),
        post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", &chunks),
        // Row 50.
        "GET / HTTP/1.1\nHost: raw\n\n".to_owned(),
        head("Host: raw\nX: y"),
        head("Host: raw\r\nX: a\r\n b"),
        head("Host: raw\r\nX: a\r\n\tb"),
        head("Host: raw\r\nX: a\0b"),
        head("Host: raw\rX: y"),
        head("Host : raw"),
        head("Host: raw\r\nno colon"),
        "G\u{1}ET / HTTP/1.1\r\nHost: raw\r\n\r\n".to_owned(),
        "GET / HTTP/1.1 \r\nHost: raw\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: raw\r\n\r\n".to_owned(),
        "GET /a b HTTP/1.1\r\nHost: raw\r\n\r\n".to_owned(),
        "GET / HTTP/1.9\r\nHost: raw\r\n\r\n".to_owned(),
    ];
    let before = hostile.malformed()?;
    for case in &cases {
        let back = hostile.send(case.as_bytes()).with_context(|| format!("{case:?}"))?;
        ensure!(back.status() == 400 && back.answers() == 1, "{case:?}: {back:?}");
    }
    assert_eq!(hostile.recorder.sent(), "");
    // Some the library refuses before their line is over, if it comes in pieces.
    ensure!(hostile.malformed()? >= before + 20.0, "{}", hostile.malformed()?);
    // What comes before one of them is served, and what comes after is not.
    let good = "GET /first HTTP/1.1\r\nHost: raw\r\n\r\n";
    let back = hostile.send(format!("{good}{}{good}", cases[0]).as_bytes())?;
    assert_eq!((back.status(), back.answers()), (200, 2), "{back:?}");
    let requests = hostile.recorder.requests();
    assert!(requests.len() == 1 && requests[0].starts_with("GET /first "), "{requests:?}");
    hostile.is_well()
}

pub(super) fn requests_that_name_their_host_in_doubtful_ways_are_refused(
    hostile: &Hostile,
) -> Result<()> {
    hostile.recorder.forget();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: raw\r\nHost: other\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: raw@other\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: raw/path\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: raw:80:80\r\n", 400),
        ("GET http://user@raw/ HTTP/1.1\r\nHost: raw\r\n", 400),
        // RFC 9112 3.2.3: only CONNECT is about a host and nothing else.
        ("GET raw:80 HTTP/1.1\r\nHost: raw\r\n", 400),
        // RFC 9112 3.2.2: the target says it, and replaces what the header says.
        ("GET http://target/ HTTP/1.1\r\nHost: header\r\n", 200),
    ] {
        let back = hostile.send(format!("{request}Connection: close\r\n\r\n").as_bytes())?;
        assert_eq!(back.status(), status, "{request:?}: {back:?}");
    }
    let sent = hostile.recorder.sent().to_ascii_lowercase();
    assert!(sent.starts_with("get / http/1.1\r\n"), "{sent}");
    assert!(sent.contains("\r\nhost: target\r\n") && !sent.contains("header"), "{sent}");
    assert_eq!(hostile.recorder.requests().len(), 1, "{sent}");
    hostile.is_well()
}

pub(super) fn bodies_in_chunks_that_are_none_end_the_request_and_the_endpoint_sees_no_end_of_it(
    hostile: &Hostile,
) -> Result<()> {
    hostile.recorder.forget();
    let chunked = |chunks: &str| post("Transfer-Encoding: chunked\r\n", chunks);
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(1 << 20));
    hostile.in_bounded_memory(|| {
        for chunks in [
            &*long,
            "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
            "5\r\nabcdeXX0\r\n\r\n",
            "5\r\nabcde0\r\n\r\n",
            "5 \r\nabcde\r\n0\r\n\r\n",
            "0x5\r\nabcde\r\n0\r\n\r\n",
            "5\nabcde\r\n0\r\n\r\n",
            "5;a\nabcde\r\n0\r\n\r\n",
            "-1\r\nabcde\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n",
            "1\r\na\r\n0\r\nX : y\r\n\r\n",
        ] {
            let request = chunked(chunks) + HIDDEN;
            let back = hostile.send(request.as_bytes())?;
            let shown = &chunks[..chunks.len().min(30)];
            ensure!(matches!(back.status(), 0 | 400), "{shown:?}: {back:?}");
            ensure!(back.answers() <= 1, "{shown:?}: {back:?}");
        }
        Ok(())
    })?;
    // The last line end is missing, and then so is the connection.
    let back = hostile.send_all(chunked("5\r\nabcde\r\n0\r\n").as_bytes())?;
    ensure!(matches!(back.status(), 0 | 400), "{back:?}");
    let requests = hostile.recorder.requests();
    assert!(requests.is_empty(), "{requests:?}");
    assert!(!hostile.recorder.sent().contains("hidden"));
    hostile.is_well()
}

pub(super) fn an_upgrade_that_nobody_agrees_to_does_not_hide_a_request(
    hostile: &Hostile,
) -> Result<()> {
    let asking = |upgrade: &str, more: &str| {
        format!(
            "GET /asks HTTP/1.1\r\nHost: raw\r\nConnection: upgrade{more}\r\n\
             Upgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n"
        )
    };
    hostile.recorder.forget();
    // The application answers with 200: what comes next was meant for another protocol.
    let back = hostile.send(format!("{}{HIDDEN}", asking("websocket", "")).as_bytes())?;
    assert_eq!((back.status(), back.answers()), (200, 1), "{back:?}");
    assert!(back.text.to_ascii_lowercase().contains("connection: close"), "{back:?}");
    assert!(!hostile.recorder.sent().contains("hidden"), "{}", hostile.recorder.sent());
    hostile.recorder.forget();
    // HTTP/2 is not heard of, and the connection goes on as it was.
    let settings = ", HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA";
    let mut socket = hostile.dial()?;
    let next = "GET /next HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n";
    socket.write_all(format!("{}{next}", asking("h2c", settings)).as_bytes())?;
    let back = read_to_end(&mut socket)?;
    assert_eq!((back.status(), back.answers()), (200, 2), "{back:?}");
    let sent = hostile.recorder.sent().to_ascii_lowercase();
    assert!(!sent.contains("\r\nupgrade:") && !sent.contains("http2-settings"), "{sent}");
    wait_for("both requests", FELT, || Ok((hostile.recorder.requests().len() == 2).then_some(())))?;
    hostile.is_well()
}
