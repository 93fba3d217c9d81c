//! The waypoint as a client of nodes that the test is itself (trust.md rows 46 and 47).

use anyhow::{Context as _, Result};
use fairlead_lab::{mesh::vip4, wait_for};

use super::{APP, FELT, Tunnels};
use crate::peer::{Stream, Tunnel, TunnelServer, block_on, block_on_for};

/// Streams that the waypoint opens in one tunnel.
const PER_TUNNEL: usize = 100;

/// Streams at once, one more than ten tunnels carry.
const MANY: usize = 10 * PER_TUNNEL + 1;

/// Streams that a client may open in one tunnel.
const PER_CLIENT: usize = 200;

pub(super) fn after_a_goaway_old_streams_finish_and_new_ones_get_another_tunnel(
    tunnels: &Tunnels,
) -> Result<()> {
    let far = Far::start(tunnels, "far", 32)?;
    let listener = tunnels.listener(vip4(32, APP))?;
    let tunnel = block_on(listener.tunnel())?;
    let mut old = block_on(far.open(&tunnel))?;
    let first = far.last_tunnel()?;
    far.server.leave(first)?;
    wait_for("another tunnel", FELT, || {
        let _stream = block_on(far.open(&tunnel))?;
        Ok((far.last_tunnel()? > first).then_some(()))
    })?;
    block_on(async {
        echo(&mut old).await?;
        old.end()?;
        old.expect_end().await
    })?;
    let again = block_on(far.open(&tunnel))?;
    drop(again);
    assert!(far.last_tunnel()? > first);
    Ok(())
}

pub(super) fn a_thousand_and_one_streams_share_as_few_tunnels_as_carry_them(
    tunnels: &Tunnels,
) -> Result<()> {
    let far = Far::start(tunnels, "many", 33)?;
    let listener = tunnels.listener(vip4(33, APP))?;
    block_on_for(2 * FELT, async {
        let mut open = Vec::new();
        for _ in 0..MANY.div_ceil(PER_CLIENT) {
            open.push((listener.tunnel().await?, Vec::new()));
        }
        for n in 0..MANY {
            let (tunnel, streams) = &mut open[n / PER_CLIENT];
            streams.push(far.open(tunnel).await?);
        }
        // None starves.
        for stream in open.iter_mut().flat_map(|(_, streams)| streams).rev() {
            echo(stream).await?;
        }
        Ok(())
    })?;
    assert_eq!(far.server.tunnels(), MANY.div_ceil(PER_TUNNEL));
    let mut streams = vec![0; far.server.tunnels()];
    for served in far.server.requests() {
        streams[served.tunnel] += 1;
    }
    assert_eq!(streams.iter().sum::<usize>(), MANY);
    assert!(streams.iter().all(|n| *n <= PER_TUNNEL), "{streams:?}");
    Ok(())
}

/// A pod whose node is the test, and its service.
struct Far {
    server: TunnelServer,
    service: std::net::SocketAddr,
}

// === impl Far ===

impl Far {
    fn start(tunnels: &Tunnels, name: &str, number: u8) -> Result<Self> {
        let pod = tunnels.bound.mesh.add_pod(1, "shop", name)?;
        let server =
            TunnelServer::start(&pod, &tunnels.ca, &tunnels.ca.workload(&pod.identity())?)?;
        let service = vip4(number, APP);
        tunnels.serve(name, service, name)?;
        Ok(Self { server, service })
    }

    /// Opens a stream and uses it once.
    async fn open(&self, tunnel: &Tunnel) -> Result<Stream> {
        let mut stream = tunnel.connect(self.service).await?;
        echo(&mut stream).await?;
        Ok(stream)
    }

    /// Returns the number of the tunnel that the last stream came by.
    fn last_tunnel(&self) -> Result<usize> {
        Ok(self.server.requests().pop().context("no request")?.tunnel)
    }
}

async fn echo(stream: &mut Stream) -> Result<()> {
    stream.write(b"echo")?;
    stream.expect(b"echo").await
}
