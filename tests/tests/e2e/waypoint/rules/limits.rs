//! Requests and connections at once.

use std::io::{Read as _, Write as _};

use anyhow::{Result, ensure};
use fairlead_lab::wait_for;

use super::{
    super::FELT,
    farm::{self, Answer, Does, Farm, HTTP, TCP},
};
use crate::peer::dial;

/// Checks that one more request is refused while another one is held.
fn one_more_is_refused(farm: &Farm) -> Result<()> {
    let answer = farm.get("/")?;
    ensure!(answer.status() == "503" && answer.name().ends_with("reset reason: overflow"));
    ensure!(answer.header("x-envoy-overloaded") == Some("true"), "{answer:?}");
    let name = [("cluster_name", "inbound-vip|80|http|farm.example")];
    let metrics = farm.bound.waypoint.metrics()?;
    ensure!(metrics.sum("envoy_cluster_upstream_rq_pending_overflow", &name) > 0.0, "{metrics:?}");
    let flagged = r#""GET / HTTP/1.1" 503 UO "#;
    let logged = || Ok(farm.bound.waypoint.log()?.contains(flagged).then_some(()));
    wait_for("it is logged", FELT, logged)
}

pub(super) fn requests_at_once(farm: &mut Farm) -> Result<()> {
    farm.rule("connectionPool: {http: {http2MaxRequests: 1}}")?;
    for endpoint in [&farm.near, &farm.far] {
        endpoint.does(Does::Wait);
    }
    let asked = || farm.near.asked() + farm.far.asked();
    let before = asked();
    let held = farm.ask(HTTP, "/", "")?;
    wait_for("one waits", FELT, || Ok((asked() > before).then_some(())))?;
    one_more_is_refused(farm)?;
    for endpoint in [&farm.near, &farm.far] {
        endpoint.does(Does::Answer(200));
    }
    ensure!(Answer::read(held)?.status() == "200");
    wait_for("there is room", FELT, || Ok((farm.get("/")?.status() == "200").then_some(())))
}

/// The way to the endpoint takes as long as nobody accepts, which is what requests wait for.
pub(super) fn requests_that_wait_for_a_connection_to_be_made(farm: &mut Farm) -> Result<()> {
    farm.rule("connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}")?;
    for endpoint in [&farm.near, &farm.far] {
        endpoint.does(Does::Wait);
    }
    // One or two have a connection, the first to each endpoint; one waits, and more are refused.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(farm.ask(HTTP, "/", "")?);
    }
    let refused = || {
        let answer = farm.get("/")?;
        Ok((answer.status() == "503").then_some(()))
    };
    wait_for("one is refused", FELT, refused)?;
    for endpoint in [&farm.near, &farm.far] {
        endpoint.does(Does::Answer(200));
    }
    let answers: Vec<_> = held.into_iter().map(Answer::read).collect::<Result<_>>()?;
    ensure!(answers.iter().any(|answer| answer.status() == "200"), "{answers:?}");
    Ok(())
}

pub(super) fn time_of_a_connection_that_is_no_http(farm: &mut Farm) -> Result<()> {
    farm.rule("connectionPool: {tcp: {maxConnectionDuration: 1s}}")?;
    let late = [("request_protocol", "tcp"), ("response_flags", "DT")];
    let count = || {
        let metrics = farm.bound.waypoint.metrics()?;
        anyhow::Ok(metrics.sum("istio_tcp_connections_closed_total", &late))
    };
    let before = count()?;
    let mut socket = dial(&farm.bound.mesh.a, farm::farm(TCP))?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: farm.example\r\n\r\n")?;
    let mut received = Vec::new();
    // It ends, however it does, though neither end has ended it.
    let _ = socket.read_to_end(&mut received);
    ensure!(received.starts_with(b"HTTP/1.1 200 "), "{received:?}");
    wait_for("it is counted", FELT, || Ok((count()? > before).then_some(())))
}
