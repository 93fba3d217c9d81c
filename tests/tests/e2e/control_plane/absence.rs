//! The control plane goes away, and comes back.

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{
    ControlPlane, FairleadNode, Host as _, PodSpec, manifest,
    mesh::{ControlledMesh, service_of, service_yaml},
    python, wait_for,
};

use super::{wait_connected, wait_for_answer, wait_for_answer_within};
use crate::{
    clients::{Answer, SOON, curl, say, talk},
    mesh::{ECHO, HTTP, vip4, vip6},
    traffic::{Opened, Target, Traffic, open_connections, serve_echo},
};

/// Connections opened a second.
const RATE: usize = 200;

/// Services without a pod: what the nodes know is then much more than what changes.
const MORE_SERVICES: u8 = 100;

/// Lifetime of certificates, in seconds, where they shall end.
const TTL: &str = "12";

/// Returns the bytes that the control plane has sent to a node.
fn received(node: &FairleadNode) -> Result<f64> {
    Ok(node.metrics()?.sum("istio_xds_message_bytes_total", &[]))
}

/// Starts connections of `a` to both servers, over all ways.
fn load(mesh: &ControlledMesh) -> Traffic<Opened> {
    let of = |name: &str, addresses: [std::net::SocketAddr; 3]| {
        addresses.map(|address| Target::new(name, address))
    };
    let near = of("d", [vip4(20, ECHO), vip6(20, ECHO), mesh.d.v4(ECHO)]);
    let far = of("b", [vip4(10, ECHO), vip6(10, ECHO), mesh.b.v6(ECHO)]);
    let targets = [near, far].concat();
    Traffic::start(&mesh.a, move |cue| open_connections("a".to_owned(), targets, RATE, cue))
}

fn ensure_all_answered(mesh: &ControlledMesh, opened: &Opened) -> Result<()> {
    println!("{}", opened.summary());
    let complaints = mesh.nodes().map(FairleadNode::complaints).concat();
    ensure!(opened.failures.is_empty(), "{:#?}\n{complaints}", opened.failures);
    Ok(())
}

/// Every client has confirmed everything.
fn all_synced(plane: &ControlPlane) -> Result<()> {
    wait_for("all clients are up to date", SOON, || {
        let clients = plane.clients()?;
        let clients = clients.as_array().context("no list of clients")?;
        let types = clients.iter().filter_map(|client| client["types"].as_object());
        let states: Vec<_> = types.flat_map(|types| types.values()).collect();
        let synced = states.iter().all(|state| state["status"] == "SYNCED");
        Ok((clients.len() == 2 && states.len() == 4 && synced).then_some(()))
    })
    .with_context(|| format!("{:#}", plane.clients().unwrap_or_default()))
}

#[test]
fn a_restart_under_load_fails_no_request_and_nodes_are_told_only_what_changed() -> Result<()> {
    let mut mesh = ControlledMesh::with_args("cprestart", &[], &["--drain-time", "1s"])?;
    let many: Vec<_> =
        (101..=100 + MORE_SERVICES).map(|n| service_yaml(&format!("s{n}"), n)).collect();
    mesh.plane.write("many.yaml", &manifest::join(many))?;
    let _servers = [serve_echo(&mesh.b, ECHO)?, serve_echo(&mesh.d, ECHO)?];
    let opened = load(&mesh);
    opened.wait_more(RATE)?;
    for (number, ending) in [(50, "in order"), (60, "at once")] {
        all_synced(&mesh.plane)?;
        let before = mesh.nodes().map(received);
        let settings = mesh.plane.settings();
        match ending {
            "in order" => drop(mesh.plane.stop()?.checked()?),
            _ => mesh.plane.kill()?,
        }
        wait_connected([&mesh.n1, &mesh.n2], false)?;
        opened.wait_more(RATE)?;
        settings.write(&format!("new-{number}.yaml"), &new_service(number))?;
        mesh.plane = settings.start()?;
        wait_connected(mesh.nodes(), true)?;
        wait_for_answer(&mesh.a, vip4(number, 80), Answer::is_ok)?;
        all_synced(&mesh.plane)?;
        opened.wait_more(RATE)?;
        for (node, before) in mesh.nodes().into_iter().zip(before) {
            let (before, now) = (before?, received(node)?);
            println!("{ending}: {before} bytes before, {} of changes", now - before);
            ensure!(now - before < before / 10.0, "{before} bytes, then {}", now - before);
        }
    }
    let opened = opened.finish()?;
    ensure_all_answered(&mesh, &opened)
}

/// A service of `b` at another address.
fn new_service(number: u8) -> String {
    service_of(["shop", &format!("new-{number}")], "", number, Some("b"))
}

#[test]
fn without_the_control_plane_pods_come_and_go_and_what_is_known_stays_in_force() -> Result<()> {
    let mut mesh = ControlledMesh::new("cpaway")?;
    let b = mesh.b.clone();
    mesh.serve(&b, "echo.py", ECHO)?;
    mesh.plane.write("policy.yaml", &manifest::deny(["shop", "not-c"], &[&mesh.c]))?;
    wait_for_answer(&mesh.c, vip4(10, 80), Answer::is_refused)?;
    let mut open = talk(&mesh.a, vip4(10, ECHO))?;
    let settings = mesh.plane.settings();
    mesh.plane.kill()?;
    wait_connected([&mesh.n1, &mesh.n2], false)?;

    // A pod ends.
    mesh.n1.release(&mesh.d)?;
    mesh.d.delete()?;
    assert!(!curl(&mesh.a, vip4(20, 80))?.is_ok());
    // A pod begins: nobody vouches for it, so it neither gets anywhere nor is it reached.
    let new =
        mesh.lab.node(1).add_pod(PodSpec::new("new").namespace("shop").service_account("new"))?;
    let _server = new.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    mesh.n1.enrol(&new)?;
    for server in [vip4(10, 80), mesh.b.v6(HTTP)] {
        assert!(curl(&new, server)?.is_refused(), "{server}");
    }
    assert!(!curl(&mesh.a, new.v4(HTTP))?.is_ok());
    mesh.n1.wait_for_access(|line| {
        line.is("direction", "outbound") && line.is("reason", "workload_unknown")
    })?;
    // All others go on, under the policies that they had.
    for (client, ok) in [(&mesh.a, true), (&mesh.c, false)] {
        for server in [vip4(10, 80), mesh.b.v6(HTTP)] {
            assert_eq!(curl(client, server)?.is_ok(), ok, "{} to {server}", client.name());
        }
    }
    say(&mut open, "still here")?;
    assert!(mesh.n1.is_ready()? && mesh.n2.is_ready()?);

    settings.write("pod-new.yaml", &manifest::pod(&new, ""))?;
    settings.write("new.yaml", &service_yaml("new", 30))?;
    mesh.plane = settings.start()?;
    wait_connected(mesh.nodes(), true)?;
    wait_for_answer(&new, vip4(10, 80), Answer::is_ok)?;
    wait_for_answer(&mesh.b, vip4(30, 80), Answer::is_ok)?;
    assert!(curl(&mesh.c, vip4(10, 80))?.is_refused());
    say(&mut open, "to the end")
}

#[test]
fn a_proxy_that_starts_without_the_control_plane_leaves_the_pods_to_its_predecessor() -> Result<()>
{
    let mut mesh = ControlledMesh::new("cpsuccessor")?;
    let settings = mesh.plane.settings();
    mesh.plane.kill()?;
    let successor = mesh.n1.settings().start_unready()?;
    wait_for("the successor looks for the control plane and for certificates", SOON, || {
        let log = successor.log()?;
        let seen = ["cannot reach the control plane", "no certificate, new connections fail"];
        Ok(seen.iter().all(|message| log.contains(message)).then_some(()))
    })
    .with_context(|| successor.log().unwrap_or_default())?;
    for server in [vip4(10, 80), vip4(20, 80)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    mesh.plane = settings.start()?;
    let predecessor = std::mem::replace(&mut mesh.n1, successor);
    assert!(predecessor.ended(SOON * 2)?.success());
    mesh.n1.wait_ready()?;
    for server in [vip4(10, 80), vip4(20, 80)] {
        assert!(curl(&mesh.a, server)?.is_ok(), "{server}");
    }
    Ok(())
}

#[test]
fn without_the_authority_certificates_serve_to_their_end_and_then_nothing_passes() -> Result<()> {
    let mut mesh = ControlledMesh::with_args("cpexpired", &["--svid-ttl", TTL], &[])?;
    let settings = mesh.plane.settings();
    assert!(curl(&mesh.a, vip4(20, 80))?.is_ok());
    mesh.plane.kill()?;
    assert!(curl(&mesh.a, vip4(20, 80))?.is_ok());
    let expired = |answer: &Answer| answer.is_refused();
    wait_for_answer_within(SOON * 3, &mesh.a, vip4(20, 80), expired)?;
    mesh.n1.wait_for_access(|line| line.is("reason", "no_certificate"))?;
    mesh.plane = settings.start()?;
    wait_for_answer_within(SOON * 3, &mesh.a, vip4(20, 80), Answer::is_ok)?;
    Ok(())
}
