//! What a tunnel may be asked for: the waypoint is no proxy to anywhere (trust.md rows 43 and 44).

use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::mesh::{HTTP, vip4, vip6};

use super::{APP, Tunnels, raw};
use crate::peer::{App, HBONE, block_on};

pub(super) fn only_what_is_bound_to_the_waypoint_is_reached(tunnels: &Tunnels) -> Result<()> {
    let mesh = &tunnels.bound.mesh;
    // Ports at which nobody else listens.
    let (quiet, admin) = (APP + 5, 15000);
    let apps = [&mesh.b, &mesh.d, &mesh.outsider].map(|pod| App::listen(pod, quiet));
    let at = |address: &str| Ok::<_, anyhow::Error>(SocketAddr::new(address.parse()?, admin));
    let (waypoint, node) = (tunnels.bound.waypoint.pod(), mesh.lab.node(2));
    let mut refused: Vec<_> = [
        at("127.0.0.1")?,
        at("::1")?,
        at("0.0.0.0")?,
        at("::")?,
        at("169.254.169.254")?,
        at("fe80::1")?,
        at("::ffff:127.0.0.1")?,
        SocketAddr::new(node.ipv4().into(), 15020),
        SocketAddr::new(node.ipv6().into(), 15020),
        mesh.plane.address(),
        waypoint.v4(admin),
        waypoint.v4(HBONE),
        waypoint.v6(15020),
        // Pods, be they endpoints of a bound service or not.
        mesh.b.v4(quiet),
        mesh.b.v4(HTTP),
        mesh.b.v4(HBONE),
        mesh.d.v4(quiet),
        mesh.d.v6(quiet),
        mesh.outsider.v4(quiet),
        // Ports that are none of the service's, and services that are not bound.
        vip4(10, 81),
        vip6(10, 15008),
        vip4(20, 80),
        vip4(20, APP),
        vip4(99, 80),
    ]
    .map(|address| address.to_string())
    .into();
    let name = |service: &str, port: u16| format!("{service}.shop.svc.cluster.local:{port}");
    refused.extend([name("d", 80), name("b", 81), name("nobody", 80), name("waypoint", 15008)]);
    let listener = tunnels.listener(raw())?;
    block_on(async {
        let tunnel = listener.tunnel().await?;
        for authority in refused {
            assert_eq!(tunnel.status(&authority).await?, 404, "{authority}");
        }
        for authority in [vip4(10, 80).to_string(), vip6(10, 80).to_string(), name("raw", APP)] {
            assert_eq!(tunnel.status(&authority).await?, 200, "{authority}");
        }
        Ok(())
    })?;
    for app in apps {
        assert!(app?.is_untouched());
    }
    let line = "it is for nothing that is bound to this waypoint";
    let log = tunnels.bound.waypoint.log()?;
    assert!(log.contains(line), "{log}");
    tunnels.is_well()
}
