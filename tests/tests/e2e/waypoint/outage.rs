//! What endpoints that all fail are asked on top, by retries (trust.md row 60).

use std::{io::Write as _, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::wait_for;

use super::{FELT, hostile::Stage};

/// Clients at once.
const CLIENTS: usize = 60;

/// Requests of each client, one after the other.
const REQUESTS: usize = 20;

/// Time that a try takes: so much more than the pause before a retry that nearly all of the retries
/// that there may be at once are at the endpoints.
const TRY: Duration = Duration::from_millis(100);

/// Retries that there may be in any case, which count where clients are few: at the end.
const LEAST: usize = 3;

/// A route that says what is tried again, and leaves to others how many of all that may be.
const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw]
  http:
  - headers: {response: {set: {x-mark: routed}}}
    retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: raw}}]
";

/// Returns what endpoints that all fail are asked besides the requests of clients, of which it returns
/// the number, too, while others do not suffer.
fn asked_on_top(stage: &Stage) -> Result<(usize, usize)> {
    wait_for("the route", FELT, || {
        let back = stage.answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)?;
        Ok(back.text.contains("x-mark: routed").then_some(()))
    })?;
    stage.script.answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false);
    stage.script.takes(TRY);
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
    stage.hostile.is_well()?;
    let requests = CLIENTS * REQUESTS;
    Ok((stage.script.asked() - before - requests, requests))
}

#[test]
fn endpoints_that_all_fail_are_asked_a_fifth_more_and_no_others_suffer() -> Result<()> {
    let stage = Stage::new("wpoutage", &[])?;
    stage.hostile.bound.write(ROUTE)?;
    let (retries, requests) = asked_on_top(&stage)?;
    // A fifth of the first tries that are under way, and at the end those that there may be in any case.
    let most = requests / 5 + 2 * LEAST;
    ensure!((requests / 6..=most).contains(&retries), "{retries} for {requests} requests");
    Ok(())
}

#[test]
fn a_rule_says_how_much_more_endpoints_are_asked_that_all_fail() -> Result<()> {
    let stage = Stage::new("wpbudget", &[])?;
    let rule = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: raw, namespace: shop}
spec:
  host: raw
  trafficPolicy: {retryBudget: {percent: 5, minRetryConcurrency: 1}}
";
    stage.hostile.bound.write(&[rule, "---\n", ROUTE].concat())?;
    let (retries, requests) = asked_on_top(&stage)?;
    // Of a hundred requests under way 5 are retries, and 95 are not.
    let most = requests * 5 / 95 + 2;
    ensure!((requests / 30..=most).contains(&retries), "{retries} for {requests} requests");
    Ok(())
}
