//! A reset at one end is a reset at the other, at once, whether or not anybody reads.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Child, Host as _, Pod, python, wait_for};

use super::{PORT, serve_both};
use crate::{
    clients::{SOON, run_python},
    descriptors::of_connections,
    mesh::{ECHO, Mesh},
};

/// Time in which a reset reaches the other end.
const RESET_TIME: f64 = 0.1;

/// Attempts of which the fastest counts: the machine may be busy with other tests.
const ATTEMPTS: usize = 3;

/// Connections before descriptors are counted: more than it takes for each worker thread to serve one.
const WARM_UP: &str = "200";

/// What goes on when one end resets; see `reset_watch.py`.
const MODES: [&str; 4] = ["idle", "push", "pull", "ended"];

/// A pair of ends, joined through the mesh.
struct Ends<'a> {
    client: &'a Pod,
    server: Child,
    address: SocketAddr,
}

// === impl Ends ===

impl<'a> Ends<'a> {
    fn new(client: &'a Pod, server: &Pod) -> Result<Self> {
        let program = python("reset_watch.py", &["serve", &PORT.to_string()]);
        Ok(Self { client, server: server.serve(program, PORT)?, address: server.v4(PORT) })
    }

    /// Breaks a connection at `end` and returns the seconds until the other end saw it.
    fn reset(&self, end: &str, mode: &str) -> Result<f64> {
        let before = self.server.stdout()?.lines().count();
        let (host, port) = (self.address.ip().to_string(), PORT.to_string());
        let args = ["run", host.as_str(), port.as_str(), end, mode];
        let client = self.client.run(python("reset_watch.py", &args))?.checked()?;
        let server = wait_for("the server's account", SOON, || {
            let said = self.server.stdout()?;
            Ok(said.lines().nth(before).filter(|_| said.ends_with('\n')).map(str::to_owned))
        })?;
        let said = format!("{}{server}", client.stdout);
        let time = |prefix: &str| -> Result<f64> {
            let line = said.lines().find_map(|line| line.strip_prefix(prefix));
            Ok(line.with_context(|| format!("{end} {mode}, no \"{prefix}\": {said}"))?.parse()?)
        };
        let elapsed = time("saw reset ")? - time("resets ")?;
        ensure!(elapsed > -RESET_TIME, "{end} {mode}: seen {elapsed} s before it happened");
        Ok(elapsed)
    }

    /// Tries a few times and returns the shortest time, or why there was none.
    fn fastest(&self, end: &str, mode: &str) -> Result<f64, String> {
        let mut fastest = f64::MAX;
        for _ in 0..ATTEMPTS {
            fastest = fastest.min(self.reset(end, mode).map_err(|e| e.to_string())?);
            if fastest < RESET_TIME {
                return Ok(fastest);
            }
        }
        Err(format!("{end} {mode}: {fastest} s"))
    }
}

fn resets_pass(mut mesh: Mesh, server: &Pod) -> Result<()> {
    mesh.serve_echo(server)?;
    // What each worker thread opens for the pair of pods once, such as its tunnel, stays.
    let (host, port) = (server.ipv4().to_string(), ECHO.to_string());
    run_python(&mesh.a, "short_connections.py", &[&host, &port, WARM_UP, "4"])?;
    let ends = Ends::new(&mesh.a, server)?;
    let before = [of_connections(&mesh.n1)?, of_connections(&mesh.n2)?];
    let cases = ["client", "server"].into_iter().flat_map(|end| MODES.map(|mode| (end, mode)));
    let failed: Vec<_> = cases.filter_map(|(end, mode)| ends.fastest(end, mode).err()).collect();
    assert!(failed.is_empty(), "not passed on in time: {failed:#?}");
    wait_for("both proxies close their descriptors", SOON, || {
        let now = [of_connections(&mesh.n1)?, of_connections(&mesh.n2)?];
        Ok((now[0] <= before[0] && now[1] <= before[1]).then_some(()))
    })
}

#[test]
fn a_reset_passes_through_a_tunnel_at_once_also_to_a_side_that_does_not_read() -> Result<()> {
    let mesh = Mesh::new("reset-tunnel")?;
    let server = mesh.b.clone();
    resets_pass(mesh, &server)
}

#[test]
fn a_reset_passes_within_a_node_at_once_also_to_a_side_that_does_not_read() -> Result<()> {
    let mesh = Mesh::new("reset-local")?;
    let server = mesh.d.clone();
    resets_pass(mesh, &server)
}

/// A connection of a program that is killed while it holds unread data is reset, not ended.
#[test]
fn a_client_that_is_killed_frees_both_proxies() -> Result<()> {
    let mut mesh = Mesh::new("killed")?;
    let servers = serve_both(&mut mesh, "firehose.py")?;
    for server in servers {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let args = ["run", host.as_str(), port.as_str(), "1", "65536", "30"];
        let mut first = mesh.a.spawn(python("firehose.py", &args))?;
        first.wait_for_output("connected", SOON)?;
        first.kill()?;
    }
    wait_for("no connection is left", Duration::from_secs(5), || {
        let list = mesh.n1.enrolled()? + &mesh.n2.enrolled()?;
        Ok(list.lines().filter(|line| line.contains("shop/")).all(is_idle).then_some(()))
    })
    .with_context(|| mesh.n1.enrolled().unwrap_or_default())
}

/// Whether a line of `pod list` counts no open connection.
fn is_idle(line: &str) -> bool {
    line.split_whitespace().nth(2) == Some("0")
}
