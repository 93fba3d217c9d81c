//! Heads that are too large (row 56 of trust.md).

use std::io::Write as _;

use anyhow::{Result, ensure};

use super::{Hostile, read_to_end};

pub(super) fn heads_that_are_too_large_are_answered_431_and_cost_little(
    hostile: &Hostile,
) -> Result<()> {
    hostile.recorder.forget();
    let before = hostile.limit_reached("request_head")?;
    let request = |fields: &str| format!("GET / HTTP/1.1\r\nHost: raw\r\n{fields}\r\n");
    let long = request(&format!("X: {}\r\n", "y".repeat(10 << 20)));
    let many = request(&"X: y\r\n".repeat(10_000));
    let just_too_many = request(&"X: y\r\n".repeat(100));
    let just_too_long = request(&format!("X: {}\r\n", "y".repeat(60 << 10)));
    hostile.in_bounded_memory(|| {
        for (what, request) in [
            ("10 MB", &long),
            ("10,000 headers", &many),
            ("101 headers", &just_too_many),
            ("60 KiB", &just_too_long),
        ] {
            let back = hostile.send(request.as_bytes())?;
            // While the client still sends, the answer may be lost with the connection.
            let may_be_lost = request.len() > 100 << 10;
            let is_told = back.status() == 431 || may_be_lost && back.status() == 0;
            ensure!(is_told, "{what}: {back:?}");
        }
        Ok(())
    })?;
    hostile.wait_limit("request_head", before + 3.5)?;
    assert_eq!(hostile.recorder.sent(), "");
    // As many as are accepted.
    let mut socket = hostile.dial()?;
    let most = request(&format!("Connection: close\r\n{}", "X: y\r\n".repeat(98)));
    socket.write_all(most.as_bytes())?;
    assert_eq!(read_to_end(&mut socket)?.status(), 200);
    hostile.is_well()
}
