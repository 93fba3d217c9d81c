//! The end of a proxy that is asked to end.

use anyhow::{Result, ensure};
use fairlead_lab::{FairleadNode, Host as _, wait_for};
use nix::sys::signal::Signal;

use crate::{
    clients::{SOON, curl, end_of, say, talk},
    mesh::{ECHO, HTTP, Mesh, vip4},
};

#[test]
fn open_connections_finish_and_new_ones_are_no_longer_captured() -> Result<()> {
    finishes("drain", |node| node.signal(Signal::SIGTERM))
}

#[test]
fn who_asks_on_the_admin_page_ends_the_node_proxy_in_order() -> Result<()> {
    finishes("quit", |node| {
        let url = "http://127.0.0.1:15000/quitquitquit";
        let answer = node.node().run(["curl", "-s", "-X", "POST", url])?;
        ensure!(answer.stdout == "shutting down now\n", "{answer:?}");
        Ok(())
    })
}

fn finishes(name: &str, ask: impl FnOnce(&mut FairleadNode) -> Result<()>) -> Result<()> {
    let mut mesh = Mesh::new(name)?;
    mesh.serve_echo(&mesh.b.clone())?;
    mesh.serve_echo(&mesh.d.clone())?;
    let mut far = talk(&mesh.a, vip4(10, ECHO))?;
    let mut near = talk(&mesh.a, vip4(20, ECHO))?;
    say(&mut far, "before")?;
    say(&mut near, "before")?;

    ask(&mut mesh.n1)?;
    wait_for("a connection that is not captured", SOON, || {
        // The server sees the client's own port on every path; only the log tells them apart.
        let answer = curl(&mesh.a, mesh.b.v4(HTTP))?;
        let source = format!("{}:{}", mesh.a.ipv4(), answer.local_port);
        let lines = mesh.n2.access_log()?;
        let plain = lines.iter().find(|line| line.is("src.addr", &source));
        Ok(plain.filter(|line| line.get("src.identity").is_none() && answer.is_ok()).map(|_| ()))
    })?;
    say(&mut far, "during")?;
    say(&mut near, "during")?;
    let page = mesh.lab.node(1).http_get("127.0.0.1:15021".parse()?, "/healthz/ready")?;
    assert_eq!(page.status, 500, "{}", page.body);
    assert!(mesh.n1.metrics()?.sum("istio_tcp_connections_opened_total", &[]) > 0.0);
    for client in [&mut far, &mut near] {
        client.send_line("shutdown")?;
        assert_eq!(end_of(client)?, "closed");
    }
    let output = mesh.n1.ended(SOON)?;
    assert!(output.success(), "{}", output.status);
    Ok(())
}

#[test]
fn a_connection_into_a_node_that_drains_finishes() -> Result<()> {
    let mut mesh = Mesh::new("draindst")?;
    mesh.serve_echo(&mesh.b.clone())?;
    let mut client = talk(&mesh.a, vip4(10, ECHO))?;
    say(&mut client, "before")?;
    mesh.n2.signal(Signal::SIGTERM)?;
    wait_for("the drain", SOON, || Ok(mesh.n2.log()?.contains("draining").then_some(())))?;
    say(&mut client, "during")?;
    client.send_line("shutdown")?;
    assert_eq!(end_of(&mut client)?, "closed");
    let output = mesh.n2.stop()?;
    assert!(output.success(), "{}", output.status);
    let line = mesh.n1.wait_for_access(|line| line.is("direction", "outbound"))?;
    assert!(line.is("reason", "completed"), "{line:?}");
    Ok(())
}

#[test]
fn a_connection_that_outlives_the_drain_period_is_ended() -> Result<()> {
    let mut mesh = Mesh::with_args("drainout", &["--drain-timeout", "1"])?;
    mesh.serve_echo(&mesh.b.clone())?;
    let mut client = talk(&mesh.a, vip4(10, ECHO))?;
    say(&mut client, "before")?;
    let output = mesh.n1.stop()?;
    assert!(output.success(), "{}", output.status);
    end_of(&mut client)?;
    assert!(output.stdout.contains("the drain period is over"), "{}", output.stdout);
    assert!(output.stdout.contains(r#""reason":"drained""#), "{}", output.stdout);
    Ok(())
}
