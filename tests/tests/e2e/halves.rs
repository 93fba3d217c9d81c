//! The two processes of a node proxy under traffic: one is upgraded, dies, or has no privilege, and
//! nobody notices.

mod crash;
mod handover;
pub(crate) mod privileges;
mod random_kills;
mod upgrade;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use fairlead_lab::{FairleadNode, Pod, wait_for};

use crate::{
    mesh::{ECHO, Mesh, vip4, vip6},
    state::State,
    traffic::{
        Failure, Heard, Opened, StreamReport, Target, Traffic, open_connections, serve_echo,
        talk_over_streams,
    },
};

/// Time for what a node proxy does within seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that a client outside the mesh opens a second.
const OUTSIDE_RATE: usize = 100;

/// Pause between two messages of a long-lived stream.
const PAUSE: Duration = Duration::from_millis(200);

/// Failures that are shown.
const SHOWN: usize = 20;

/// A mesh with servers that remember whom they heard.
struct Scene {
    /// What `b` and `d` hear.
    servers: [Traffic<BTreeMap<Heard, usize>>; 2],
    mesh: Mesh,
}

/// Clients that open connections all the time.
struct Openers {
    /// In the mesh, at the near server and the far one.
    inside: Traffic<Opened>,
    /// Outside the mesh.
    outside: Traffic<Opened>,
}

// === impl Scene ===

impl Scene {
    fn new(name: &str, args: &[&str]) -> Result<Self> {
        let mesh = Mesh::with_args(name, args)?;
        let servers = [serve_echo(&mesh.b, ECHO)?, serve_echo(&mesh.d, ECHO)?];
        Ok(Self { servers, mesh })
    }

    /// Returns the ways to the server on the other node, and to the one on the client's own.
    fn targets(&self) -> [Vec<Target>; 2] {
        let (b, d) = (&self.mesh.b, &self.mesh.d);
        let of = |pod: &Pod, number: u8| {
            let ways = [pod.v4(ECHO), pod.v6(ECHO), vip4(number, ECHO), vip6(number, ECHO)];
            ways.map(|address| Target::new(pod.name(), address)).to_vec()
        };
        [of(b, 10), of(d, 20)]
    }

    /// Starts opening `per_second` connections a second, and some from outside the mesh.
    fn open(&self, per_second: usize) -> Result<Openers> {
        let mesh = &self.mesh;
        let targets = self.targets().concat();
        let outside = [Target::new("b", mesh.b.v4(ECHO)), Target::new("d", mesh.d.v6(ECHO))];
        let openers = Openers {
            inside: Traffic::start(&mesh.a, move |cue| {
                open_connections("a".to_owned(), targets, per_second, cue)
            }),
            outside: Traffic::start(&mesh.outsider, move |cue| {
                open_connections("outsider".to_owned(), outside.to_vec(), OUTSIDE_RATE, cue)
            }),
        };
        openers.inside.wait_more(per_second / 2)?;
        openers.outside.wait_more(OUTSIDE_RATE / 2)?;
        Ok(openers)
    }

    /// Opens `count` connections from `a` that talk all the time, half of them to each server.
    fn talk(&self, count: usize) -> Result<Traffic<Vec<StreamReport>>> {
        let [far, near] = self.targets();
        let targets: Vec<_> = far.into_iter().zip(near).flat_map(|(f, n)| [f, n]).collect();
        let streams = Traffic::start(&self.mesh.a, move |cue| {
            talk_over_streams("a".to_owned(), targets, count, PAUSE, cue)
        });
        streams.wait_more(2 * count)?;
        Ok(streams)
    }

    fn nodes(&mut self) -> [&mut FairleadNode; 2] {
        [&mut self.mesh.n1, &mut self.mesh.n2]
    }

    fn states(&self) -> Result<[State; 2]> {
        let Mesh { n1, n2, a, b, c, d, .. } = &self.mesh;
        Ok([State::of(n1, &[a, c, d])?, State::of(n2, &[b])?])
    }

    /// Waits until everything is as it was.
    fn wait_for_states(&self, before: &[State; 2]) -> Result<()> {
        wait_for(
            "the state from before",
            PATIENCE,
            || Ok((self.states()? == *before).then_some(())),
        )
        .with_context(|| format!("before: {before:#?}\nnow: {:#?}", self.states()))
    }

    /// Ends the servers; fails if they heard anything but what was meant for them, from where it was.
    fn finish(self) -> Result<Mesh> {
        let Mesh { a, outsider, b, d, .. } = &self.mesh;
        let known = |heard: &Heard, server: &Pod| {
            let client = if heard.from == "a" { a } else { outsider };
            let addresses = [client.ipv4().into(), client.ipv6().into()];
            let is_client = heard.from == client.name() && addresses.contains(&heard.peer);
            is_client && heard.to == server.name()
        };
        for (server, pod) in self.servers.into_iter().zip([b, d]) {
            let heard = server.finish()?;
            ensure!(!heard.is_empty(), "{} heard nothing", pod.name());
            ensure!(heard.keys().all(|heard| known(heard, pod)), "{}: {heard:?}", pod.name());
        }
        Ok(self.mesh)
    }
}

// === impl Openers ===

impl Openers {
    /// Waits until both kinds of clients had so many more connections answered, in proportion.
    fn go_on(&self, connections: usize) -> Result<()> {
        self.inside.wait_more(connections)?;
        self.outside.wait_more(OUTSIDE_RATE / 5)
    }

    /// Ends the clients and says what they saw.
    fn finish(self) -> Result<[Opened; 2]> {
        let seen = [self.inside.finish()?, self.outside.finish()?];
        println!("in the mesh: {}\noutside:     {}", seen[0].summary(), seen[1].summary());
        Ok(seen)
    }
}

/// Starts a successor of `node`, waits until it has taken over, and returns the predecessor, which
/// drains.
fn upgrade(node: &mut FairleadNode) -> Result<FairleadNode> {
    let settings = node.settings();
    replace(node, settings.start_unready()?)
}

/// Puts `successor` in the place of `node` once it has taken over.
fn replace(node: &mut FairleadNode, mut successor: FairleadNode) -> Result<FairleadNode> {
    wait_for("the predecessor drains", PATIENCE, || {
        Ok(successor.log()?.contains("draining a proxy").then_some(()))
    })
    .with_context(|| successor.log().unwrap_or_default())?;
    successor.wait_ready()?;
    Ok(std::mem::replace(node, successor))
}

/// Waits until a predecessor ends by itself, and fails if it does so without success.
fn ends_well(predecessor: FairleadNode) -> Result<()> {
    let output = predecessor.ended(PATIENCE)?;
    ensure!(output.success(), "{}\n{}{}", output.status, output.stdout, output.stderr);
    Ok(())
}

/// Fails if there is a failure, and says what `nodes` logged.
fn ensure_none<'a>(
    failures: impl IntoIterator<Item = &'a Failure>,
    nodes: &[&FairleadNode],
) -> Result<()> {
    let failures: Vec<_> = failures.into_iter().collect();
    if let Some(first) = failures.first() {
        let what: Vec<_> = failures.iter().take(SHOWN).map(|failure| &failure.what).collect();
        let took = first.ended - first.started;
        let log = nodes.iter().map(|node| node.complaints()).collect::<String>();
        bail!("{} failures, the first after {took:?}: {what:#?}\n{log}", failures.len());
    }
    Ok(())
}
