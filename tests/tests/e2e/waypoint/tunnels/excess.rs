//! Clients that overdo it (trust.md rows 34 to 36 and 39 to 41).

use anyhow::{Result, ensure};
use fairlead_lab::{mesh::vip4, wait_for};

use super::{APP, FELT, Tunnels, accept_all, floods, raw};
use crate::peer::block_on;

/// How a destination rule ends connections to a service at which nothing moves.
const IMPATIENT: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: impatient, namespace: shop}
spec:
  host: impatient
  trafficPolicy: {connectionPool: {tcp: {idleTimeout: 2s}}}
";

pub(super) fn floods_end_their_own_tunnel_and_are_counted(tunnels: &Tunnels) -> Result<()> {
    let app = tunnels.app()?;
    let mut bystander = tunnels.bystander(&app)?;
    let listener = tunnels.listener(raw())?;
    floods::check_provoked_resets(&listener, &app)?;
    let _accepting = accept_all(app);
    let others = || {
        block_on(bystander.round_trip())?;
        tunnels.is_well()
    };
    let floods = f64::from(u32::try_from(floods::check_floods(&listener, others)?)?);
    wait_for("all are counted", FELT, || {
        // The provoked resets, too.
        Ok((tunnels.limit_reached("tunnel_frames")? > floods + 0.5).then_some(()))
    })
}

pub(super) fn single_bytes_pass_however_much_padding_they_have(tunnels: &Tunnels) -> Result<()> {
    let app = tunnels.app()?;
    floods::check_padding(&tunnels.listener(raw())?, &app)
}

pub(super) fn a_client_that_takes_nothing_loses_its_stream_and_no_other(
    tunnels: &Tunnels,
) -> Result<()> {
    let app = tunnels.app()?;
    let mut patient = tunnels.bystander(&app)?;
    tunnels.bound.write(IMPATIENT)?;
    let impatient = vip4(31, APP);
    tunnels.serve("impatient", impatient, "d")?;
    wait_for("the rule is known", FELT, || {
        Ok((tunnels.known("impatient")?["destination"] == true).then_some(()))
    })?;
    let before = tunnels.limit_reached("tcp_idle")?;
    floods::check_stuck_stream(&tunnels.listener(impatient)?, &app, || {
        Ok(tunnels.limit_reached("tcp_idle")? > before + 0.5)
    })?;
    let metrics = tunnels.bound.waypoint.metrics()?;
    let labels = [("response_flags", "SI"), ("request_protocol", "tcp")];
    ensure!(metrics.sum("istio_tcp_connections_closed_total", &labels) >= 1.0, "{metrics:?}");
    // Where no rule says so, a connection may be quiet for longer.
    block_on(patient.round_trip())
}
