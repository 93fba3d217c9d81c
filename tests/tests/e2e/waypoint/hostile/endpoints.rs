//! Endpoints that answer with what is no answer, or more than one (trust.md rows 58 and 59).

use std::io::{Read as _, Write as _};

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;

use super::{super::FELT, Stage};

/// What a client must not get to see.
const HIDDEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n";

pub(super) fn answers_that_can_be_read_in_two_ways_are_answered_502_and_not_passed_on(
    stage: &Stage,
) -> Result<()> {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let long =
        format!("{}ok", head(&format!("Content-Length: 2\r\nX: {}\r\n", "y".repeat(1 << 20))));
    let doubtful = [
        head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + HIDDEN,
        head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n" + HIDDEN,
        head("Content-Length: 2\r\nContent-Length: 6\r\n") + "ok" + HIDDEN,
        head("Content-Length: 2\r\nContent-Length: 2\r\n") + "ok" + HIDDEN,
        head("Content-Length: 2, 2\r\n") + "ok" + HIDDEN,
        head("Content-Length: +2\r\n") + "ok" + HIDDEN,
        head("Content-Length: 0x2\r\n") + "ok" + HIDDEN,
        head("Transfer-Encoding: gzip\r\n") + HIDDEN,
        head("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n" + HIDDEN,
        // Response splitting: a name or a value with the end of the head in it.
        head("X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n") + "ok",
        head("X: a\0b\r\nContent-Length: 2\r\n") + "ok",
        head("X : a\r\nContent-Length: 2\r\n") + "ok",
        "HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "no answer at all\r\n\r\n".to_owned(),
        long,
    ];
    stage.hostile.in_bounded_memory(|| {
        for answer in &doubtful {
            let shown = &answer[..answer.len().min(90)];
            let back = stage.answered(answer.as_bytes(), false)?;
            ensure!(back.status() == 502 && back.answers() == 1, "{shown:?}: {back:?}");
            ensure!(!back.text.contains("hidden"), "{shown:?}: {back:?}");
        }
        Ok(())
    })?;
    let labels = [("response_code", "502"), ("response_flags", "UPE")];
    let metrics = stage.hostile.bound.waypoint.metrics()?;
    let counted = metrics.sum("istio_requests_total", &labels);
    ensure!(counted >= 15.0, "{counted}");
    stage.hostile.is_well()
}

pub(super) fn what_an_endpoint_says_before_and_after_its_answer_is_nobodys_answer(
    stage: &Stage,
) -> Result<()> {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    // Interim answers: they are none, and there may be some.
    for (number, status) in [(100, 200), (101, 502), (10_000, 502)] {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(number);
        let back = stage.answered(interim + answer, false)?;
        assert_eq!((back.status(), back.answers()), (status, 1), "{number}: {back:?}");
    }
    // One answer too many: the connection is not used again.
    for _ in 0..10 {
        let back = stage.answered(answer.to_owned() + HIDDEN, false)?;
        assert_eq!((back.status(), back.answers()), (200, 1), "{back:?}");
        assert!(back.text.ends_with("ok"), "{back:?}");
    }
    // Too little: the client is not made to believe that it is all.
    let back = stage.answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true)?;
    assert!(back.text.ends_with("half") && !back.text.contains("0\r\n\r\n"), "{back:?}");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let back = stage.answered(chunked, true)?;
    assert!(!back.text.ends_with("0\r\n\r\n"), "{back:?}");
    // None.
    let back = stage.answered("", true)?;
    assert_eq!(back.status(), 503, "{back:?}");
    stage.hostile.is_well()
}

pub(super) fn an_answer_to_a_request_that_goes_on_leaves_nothing_behind(
    stage: &Stage,
) -> Result<()> {
    const BODY: usize = 1 << 20;
    let refusal = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let head = format!("POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: {BODY}\r\n\r\n");
    for closes in [false, true] {
        stage.script.answers(refusal, closes);
        let mut socket = stage.hostile.dial()?;
        socket.write_all(head.as_bytes())?;
        let mut early = [0; 12];
        socket.read_exact(&mut early)?;
        assert_eq!(&early, b"HTTP/1.1 413");
        // The rest is taken or refused, and is no request, whatever it looks like.
        let mut body = HIDDEN_REQUEST.repeat(BODY / HIDDEN_REQUEST.len() + 1);
        body.truncate(BODY);
        let before = stage.script.asked();
        if socket.write_all(body.as_bytes()).is_ok() {
            let _ = socket.write_all(ASK);
        }
        drop(socket);
        // Others, who may get the same connection to the endpoint, get their own answer.
        stage.script.answers("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown", false);
        for _ in 0..5 {
            let back = stage.hostile.send(ASK)?;
            ensure!(back.status() == 200 && back.text.ends_with("own"), "{closes}: {back:?}");
        }
        ensure!(stage.script.asked() >= before + 5);
    }
    stage.hostile.is_well()
}

/// What a body may look like.
const HIDDEN_REQUEST: &str = "GET /hidden HTTP/1.1\r\nHost: raw\r\n\r\n";

pub(super) fn a_request_of_which_an_endpoint_has_seen_a_part_is_not_tried_again(
    stage: &Stage,
) -> Result<()> {
    stage.hostile.write(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw]
  http:
  - route: [{destination: {host: raw}}]
    retries: {attempts: 3, retryOn: '5xx,reset,connect-failure'}
    headers: {request: {set: {x-mark: here}}}
",
    )?;
    // A whole request is tried four times: then the route is in force.
    let tries = |request: &[u8]| {
        stage.script.answers("", true);
        let before = stage.script.asked();
        let mut socket = stage.hostile.dial()?;
        socket.write_all(request)?;
        let mut status = [0; 12];
        socket.read_exact(&mut status)?;
        assert_eq!(&status, b"HTTP/1.1 503");
        anyhow::Ok(stage.script.asked() - before)
    };
    wait_for("the route", FELT, || Ok((tries(ASK)? == 4).then_some(())))?;
    let whole =
        b"POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole";
    assert_eq!(tries(whole)?, 4);
    let part = b"POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: 99\r\n\r\npart";
    assert_eq!(tries(part)?, 1);
    stage.hostile.is_well()
}
