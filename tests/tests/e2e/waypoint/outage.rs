//! What endpoints that all fail are asked on top, by retries (trust.md row 60).

use std::{io::Write as _, thread};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use super::{FELT, hostile::Stage};

/// Clients at once.
const CLIENTS: usize = 50;

/// Requests of each client, one after the other.
const REQUESTS: usize = 10;

/// Retries that a request may have.
const ATTEMPTS: usize = 2;

/// Requests at once up to which some may be tried again in any case: a fifth of them would be fewer
/// than three. These are the first and the last ones.
const FEW: usize = 15;

/// A route that says what is tried again, and leaves to the waypoint how many of all that may be.
const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw]
  http:
  - headers: {response: {set: {x-mark: routed}}}
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: raw}}]
";

#[test]
fn endpoints_that_all_fail_are_asked_a_fifth_more_and_no_others_suffer() -> Result<()> {
    let stage = Stage::new("wpoutage", &[])?;
    stage.hostile.bound.write(ROUTE)?;
    wait_for("the route", FELT, || {
        let back = stage.answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)?;
        Ok(back.text.contains("x-mark: routed").then_some(()))
    })?;
    stage.script.answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false);
    let before = stage.script.asked();
    let ask = || {
        for _ in 0..REQUESTS {
            let mut socket = stage.hostile.dial()?;
            socket.write_all(b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n")?;
            let back = super::hostile::read_to_end(&mut socket)?;
            ensure!(back.status() == 503, "{back:?}");
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        // Those of another service.
        stage.hostile.is_well()?;
        clients
            .into_iter()
            .try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    let (asked, requests) = (stage.script.asked() - before, CLIENTS * REQUESTS);
    let most = requests + requests / 5 + 2 * FEW * ATTEMPTS;
    ensure!((requests + 1..=most).contains(&asked), "{asked} for {requests} requests");
    stage.hostile.is_well()
}
