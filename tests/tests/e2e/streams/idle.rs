//! Connections that say nothing for a while cost little, and are there when they are needed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fairlead_lab::{FairleadNode, Half, Resources, wait_for};

use crate::{
    clients::{SOON, say, talk},
    mesh::{ECHO, Mesh},
    traffic::{Target, Traffic, serve_echo, talk_over_streams},
};

/// Idle connections, half of them within one node.
const CONNECTIONS: usize = 2000;

/// Time between the two messages of a connection.
const SILENCE: Duration = Duration::from_secs(5);

/// Most memory of a connection in one proxy, in KiB: its tasks, its entry in tables, and what the
/// allocator keeps of the buffers that the first message had.
const MOST_KIB: u64 = 12;

fn memory(node: &FairleadNode) -> Result<u64> {
    Ok(Resources::of(node.pid_of(Half::Proxy)?)?.resident_kib)
}

#[test]
fn thousands_of_idle_connections_fit_a_budget_and_each_works_after_the_silence() -> Result<()> {
    let mesh = Mesh::new("idle")?;
    let servers = [serve_echo(&mesh.b, ECHO)?, serve_echo(&mesh.d, ECHO)?];
    let before = [memory(&mesh.n1)?, memory(&mesh.n2)?];
    let targets = vec![Target::new("b", mesh.b.v4(ECHO)), Target::new("d", mesh.d.v6(ECHO))];
    let streams = Traffic::start(&mesh.a, move |cue| {
        talk_over_streams("a".to_owned(), targets, CONNECTIONS, SILENCE, cue)
    });
    let started = Instant::now();
    streams.wait_more(CONNECTIONS)?;
    println!("{CONNECTIONS} connections after {:?}", started.elapsed());
    let open = [CONNECTIONS, CONNECTIONS / 2];
    for ((node, before), open) in [&mesh.n1, &mesh.n2].into_iter().zip(before).zip(open) {
        let used = memory(node)?.saturating_sub(before);
        println!(
            "{}: {} bytes a connection",
            node.node().name(),
            used * 1024 / u64::try_from(open)?
        );
        ensure!(used <= MOST_KIB * u64::try_from(open)?, "{used} KiB for {open} connections");
    }
    streams.wait_more(CONNECTIONS)?;
    let reports = streams.finish()?;
    assert_eq!(reports.len(), CONNECTIONS);
    for report in &reports {
        ensure!(report.failure.is_none() && report.rounds >= 2, "{report:?}");
    }
    servers.into_iter().try_for_each(|server| server.finish().map(drop))
}

#[test]
fn connections_without_a_byte_for_the_idle_timeout_are_ended_and_others_go_on() -> Result<()> {
    let mut mesh = Mesh::with_args("idletime", &["--idle-timeout", "2"])?;
    for server in [mesh.b.clone(), mesh.d.clone()] {
        mesh.serve_echo(&server)?;
        let mut silent = talk(&mesh.a, server.v4(ECHO))?;
        say(&mut silent, "the last words")?;
        let mut busy = talk(&mesh.a, server.v6(ECHO))?;
        let mut words = 0;
        wait_for("the silent connection is ended", SOON, || {
            words += 1;
            say(&mut busy, &format!("word {words}"))?;
            // Either side may be the first to notice.
            let lines = [mesh.n1.access_log()?, mesh.n2.access_log()?].concat();
            let ended = lines.into_iter().find(|line| {
                line.is("reason", "idle_timeout") && line.is("dst.workload", server.name())
            });
            Ok(ended.map(drop))
        })?;
        silent.wait_for_output("reset", SOON)?;
        say(&mut busy, "still here")?;
    }
    Ok(())
}
