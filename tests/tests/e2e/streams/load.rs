//! Many connections leave nothing behind, and more than the process may hold do no harm.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fairlead_lab::{AccessLine, FairleadNode, Half, Host as _, Netns, Resources, python, wait_for};

use crate::{
    bpf::Entries,
    clients::{SOON, curl, run_python, say, talk},
    mesh::{ECHO, HTTP, Mesh},
};

/// Connections that are counted.
const CONNECTIONS: &str = "10000";

/// Connections before: allocators and pools have then taken what they keep.
const WARM_UP: &str = "3000";

const PARALLEL: &str = "4";

/// Tunnels that stay open for the next connection.
const POOLED_TUNNELS: usize = 8;

/// Time in which an idle proxy gives back the sockets that it kept ready for a load.
const IDLE_TIME: Duration = Duration::from_secs(40);

/// What a load must not change.
#[derive(Clone, Copy, Debug)]
struct State {
    resources: Resources,
    entries: Entries,
    tracked: usize,
}

fn state(node: &FairleadNode, namespaces: &[&Netns]) -> Result<State> {
    let mut tracked = 0;
    for netns in namespaces {
        tracked += netns.enter(|| Ok(tracked_connections()))?;
    }
    Ok(State { resources: node.resources()?, entries: Entries::of(node)?, tracked })
}

/// Counts the entries of connection tracking in this thread's namespace; none without the module.
fn tracked_connections() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default();
    table.lines().count()
}

#[test]
fn ten_thousand_short_connections_leave_nothing_behind() -> Result<()> {
    let mut mesh = Mesh::new("short")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let host = b.ipv4().to_string();
    let load = |count: &str| {
        run_python(&mesh.a, "short_connections.py", &[&host, &ECHO.to_string(), count, PARALLEL])
    };
    let states = || -> Result<[State; 2]> {
        let nodes = (mesh.lab.node(1).netns(), mesh.lab.node(2).netns());
        let (near, far) = ([mesh.a.netns(), nodes.0], [mesh.b.netns(), nodes.1]);
        Ok([state(&mesh.n1, &near)?, state(&mesh.n2, &far)?])
    };
    let fresh = states()?;
    load(WARM_UP)?;
    let before = states()?;
    let started = std::time::Instant::now();
    assert_eq!(load(CONNECTIONS)?.trim(), format!("ok {CONNECTIONS}"));
    println!("{CONNECTIONS} connections in {:?}", started.elapsed());

    for (node, was) in before.into_iter().enumerate() {
        let most = fresh[node].resources.descriptors + POOLED_TUNNELS;
        wait_for("all descriptors are closed", IDLE_TIME, || {
            Ok((states()?[node].resources.descriptors <= most).then_some(()))
        })
        .with_context(|| format!("fresh: {:?}, now: {:?}", fresh[node], states()))?;
        let now = states()?[node];
        println!("before: {was:?}\nafter:  {now:?}");
        assert_eq!(now.entries, was.entries);
        assert_eq!((was.tracked, now.tracked), (0, 0), "connections are tracked");
        let limit = was.resources.resident_kib + was.resources.resident_kib / 10;
        assert!(now.resources.resident_kib <= limit, "{was:?} -> {now:?}");
        let metrics = [&mesh.n1, &mesh.n2][node].metrics()?;
        let excess = metrics.sum("fairlead_limit_reached_total", &[]);
        assert!(excess < 0.5, "{excess} times at a limit");
    }
    Ok(())
}

#[test]
fn out_of_descriptors_open_connections_go_on_and_the_proxy_recovers() -> Result<()> {
    const ROOM: usize = 20;
    let mut mesh = Mesh::new("descriptors")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut open = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut open, "before")?;
    let used = Resources::of(mesh.n1.pid_of(Half::Proxy)?)?.descriptors;
    drop(open);
    let settings = mesh.n1.settings().descriptors(used + ROOM);
    mesh.n1.kill()?;
    mesh.n1 = settings.start()?;
    let mut open = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut open, "before")?;

    let args = [b.ipv4().to_string(), ECHO.to_string()];
    let more: Vec<_> = (0..2 * ROOM)
        .map(|_| mesh.a.spawn_interactive(python("talk.py", &args)))
        .collect::<Result<_>>()?;
    wait_for("the proxy meets its limit", SOON, || {
        // The metrics page needs a descriptor too, and may get none.
        let log = mesh.n1.log()?;
        Ok(log.contains("accept failed").then_some(()))
    })?;
    say(&mut open, "meanwhile")?;
    drop(more);
    wait_for("new connections", SOON, || Ok(curl(&mesh.a, b.v4(HTTP))?.is_ok().then_some(())))?;
    say(&mut open, "after")?;
    let labels = [("limit", "accept")];
    assert!(mesh.n1.metrics()?.sum("fairlead_limit_reached_total", &labels) > 0.0);
    Ok(())
}

#[test]
fn a_pod_has_as_many_connections_as_it_may_and_others_have_theirs() -> Result<()> {
    let mut mesh = Mesh::with_args("podlimit", &["--max-pod-connections", "3"])?;
    for server in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&server)?;
    }
    let to_b = mesh.b.v4(ECHO);
    let mut open: Vec<_> = (0..3).map(|_| talk(&mesh.a, to_b)).collect::<Result<_>>()?;
    for client in &mut open {
        say(client, "one of three")?;
    }
    let is_limit = |line: &AccessLine, direction| {
        line.is("direction", direction)
            && line.is("reason", "limit_reached")
            && line.get("error").is_some_and(|error| error.contains("pod_connections"))
    };
    // The client has enough; so has the server, whoever the client is.
    assert!(curl(&mesh.a, mesh.d.v6(ECHO))?.is_refused());
    mesh.n1.wait_for_access(|line| is_limit(line, "outbound"))?;
    assert!(curl(&mesh.d, to_b)?.is_refused());
    mesh.n2.wait_for_access(|line| is_limit(line, "inbound"))?;
    for node in [&mesh.n1, &mesh.n2] {
        let labels = [("limit", "pod_connections")];
        assert!(node.metrics()?.sum("fairlead_limit_reached_total", &labels) > 0.0);
    }
    say(&mut open[0], "still here")?;

    open.pop();
    wait_for("room for another connection", SOON, || {
        let another = talk(&mesh.d, to_b).and_then(|mut client| say(&mut client, "in its place"));
        Ok(another.is_ok().then_some(()))
    })
}
