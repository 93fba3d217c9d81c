//! Tunnels to the waypoint that no node proxy would make (part B3 of trust.md): the checks are those of
//! the node proxy's listener, and honest clients beside are served meanwhile.

mod destinations;
mod endpoints;
mod excess;

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{manifest, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Bound, FELT};
use crate::{
    hbone::{excess as floods, frames, requests},
    mesh::{vip4, vip6},
    peer::{App, Ca, Listener, Stream, Task, Tunnel, block_on},
};

/// Port of the applications that are watched, and of their services.
const APP: u16 = 7000;

/// A mesh with another bound service, `raw`, which is not HTTP, and of which the test is a client that
/// speaks for `a`.
struct Tunnels {
    ca: Ca,
    bound: Bound,
}

/// A client that does nothing wrong, in a tunnel of its own.
struct Bystander {
    stream: Stream,
    socket: tokio::net::TcpStream,
    tunnel: Tunnel,
}

// === impl Tunnels ===

impl Tunnels {
    fn new(name: &str) -> Result<Self> {
        // One thread, so that it has as few tunnels to an endpoint as it can do with.
        let bound = Bound::with_args(name, &["--workers", "1"])?;
        let ca = Ca::of_control_plane(&bound.mesh.plane.ca_dir())?;
        let tunnels = Self { ca, bound };
        tunnels.serve("raw", raw(), "d")?;
        Ok(tunnels)
    }

    /// Declares a bound service that is not HTTP, and waits until the waypoint knows of it.
    fn serve(&self, name: &str, address: SocketAddr, app: &str) -> Result<()> {
        let (labels, ports) = (manifest::USE_WAYPOINT, [(APP, APP)]);
        let addresses = [address.ip(), vip6_of(address)?.ip()];
        let service = manifest::service(["shop", name], labels, &addresses, &ports, Some(app));
        let file = format!("{name}.yaml");
        self.bound.mesh.plane.write(&file, &service.replace("name: p7000", "name: tcp"))?;
        // Nobody asks for it meanwhile: the first connection is that of the test.
        wait_for("the waypoint knows the other service", FELT, || {
            let known = self.known(name);
            Ok(known.is_ok_and(|service| service["endpoints"] == 1).then_some(()))
        })
    }

    /// Returns the waypoint's listener, of which a client outside the mesh asks for `target`, in the
    /// name of `a`.
    fn listener(&self, target: SocketAddr) -> Result<Listener> {
        let (client, waypoint) = (&self.bound.mesh.outsider, self.bound.waypoint.pod());
        let credentials = self.ca.workload(&self.bound.mesh.a.identity())?;
        Ok(Listener::new(client, credentials, waypoint, target))
    }

    /// Starts the application of the service, which has no connection yet.
    fn app(&self) -> Result<App> {
        App::listen(&self.bound.mesh.d, APP)
    }

    fn bystander(&self, app: &App) -> Result<Bystander> {
        let listener = self.listener(raw())?;
        block_on(async {
            let tunnel = listener.tunnel().await?;
            let stream = tunnel.connect(raw()).await?;
            Ok(Bystander { stream, socket: app.accept().await?.0, tunnel })
        })
    }

    fn limit_reached(&self, limit: &str) -> Result<f64> {
        let metrics = self.bound.waypoint.metrics()?;
        Ok(metrics.sum("fairlead_limit_reached_total", &[("limit", limit)]))
    }

    /// Checks that an honest client of the mesh is served, and that the waypoint has not panicked.
    fn is_well(&self) -> Result<()> {
        let answer = self.bound.get(&[])?;
        ensure!(answer.is_ok(), "{answer:?}");
        let log = self.bound.waypoint.log()?;
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }

    /// Returns what the waypoint knows of a service.
    fn known(&self, name: &str) -> Result<Value> {
        let dump = self.bound.waypoint.config_dump()?;
        let service = format!("shop/{name}.shop.svc.cluster.local");
        let mut services = dump["services"].as_array().into_iter().flatten();
        let found = services.find(|known| known["service"] == service.as_str());
        found.cloned().with_context(|| format!("no {service}: {dump}"))
    }
}

// === impl Bystander ===

impl Bystander {
    /// Sends something there and back.
    async fn round_trip(&mut self) -> Result<()> {
        self.stream.write(b"ping")?;
        let mut received = [0; 4];
        self.socket.read_exact(&mut received).await?;
        self.socket.write_all(&received).await?;
        self.stream.expect(b"ping").await
    }
}

/// The service that is not HTTP.
fn raw() -> SocketAddr {
    vip4(30, APP)
}

/// The other address of a service.
fn vip6_of(address: SocketAddr) -> Result<SocketAddr> {
    let SocketAddr::V4(v4) = address else { anyhow::bail!("{address} is not IPv4") };
    Ok(vip6(v4.ip().octets()[3], address.port()))
}

/// Accepts whoever comes to `app` and keeps them, for as long as the task lasts.
fn accept_all(app: App) -> Task {
    Task::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok(accepted) = app.accept().await {
            sockets.push(accepted);
        }
    })
}

#[test]
fn frames_and_requests_that_no_client_should_send_end_what_they_concern() -> Result<()> {
    let tunnels = Tunnels::new("wtframes")?;
    let _accepting = accept_all(tunnels.app()?);
    let listener = tunnels.listener(raw())?;
    frames::check_frames(&listener)?;
    frames::check_states(&listener)?;
    frames::check_requests(&listener)?;
    frames::check_prefaces(&listener)?;
    frames::check_stream_limit(&listener)?;
    tunnels.is_well()?;
    requests::check_odd_headers(&listener, |limit| tunnels.limit_reached(limit))?;
    requests::check_authorities(&listener, vip6_of(raw())?, || tunnels.bound.waypoint.log())?;
    destinations::only_what_is_bound_to_the_waypoint_is_reached(&tunnels)?;
    floods::check_header_lists(&listener, tunnels.bound.waypoint.pid())?;
    tunnels.is_well()
}

#[test]
fn clients_that_overdo_it_lose_their_own_tunnel_or_stream() -> Result<()> {
    let tunnels = Tunnels::new("wtexcess")?;
    excess::single_bytes_pass_however_much_padding_they_have(&tunnels)?;
    excess::a_client_that_takes_nothing_loses_its_stream_and_no_other(&tunnels)?;
    // The last: connections may come of it later.
    excess::floods_end_their_own_tunnel_and_are_counted(&tunnels)?;
    tunnels.is_well()
}

#[test]
fn streams_outlast_a_goaway_of_either_end_and_many_share_few_tunnels() -> Result<()> {
    let tunnels = Tunnels::new("wtgoaway")?;
    endpoints::after_a_goaway_old_streams_finish_and_new_ones_get_another_tunnel(&tunnels)?;
    endpoints::a_thousand_and_one_streams_share_as_few_tunnels_as_carry_them(&tunnels)?;
    let app = tunnels.app()?;
    floods::check_clients_goaway(&tunnels.listener(raw())?, &app)?;
    tunnels.is_well()?;
    a_drain_lets_open_streams_finish_and_takes_no_new_ones(tunnels, &app)
}

fn a_drain_lets_open_streams_finish_and_takes_no_new_ones(
    mut tunnels: Tunnels,
    app: &App,
) -> Result<()> {
    let mut bystander = tunnels.bystander(app)?;
    tunnels.bound.waypoint.signal(Signal::SIGTERM)?;
    wait_for("a GOAWAY", FELT, || Ok(block_on(bystander.tunnel.status(raw())).err()))?;
    block_on(async {
        bystander.round_trip().await?;
        bystander.stream.end()?;
        let mut rest = Vec::new();
        bystander.socket.read_to_end(&mut rest).await?;
        ensure!(rest.is_empty(), "{rest:?}");
        bystander.socket.write_all(b"farewell").await?;
        bystander.socket.shutdown().await?;
        bystander.stream.expect(b"farewell").await?;
        bystander.stream.expect_end().await
    })?;
    let stopped = tunnels.bound.waypoint.stop()?;
    ensure!(stopped.status.success(), "{stopped:?}");
    Ok(())
}
