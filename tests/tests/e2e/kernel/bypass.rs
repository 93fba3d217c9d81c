//! Ways around capture, none of which may work.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Cgroup, Child, Host as _, Output, PeerAuthentication, PeerMode, Pod, PodSpec, python, wait_for,
};

use crate::{
    clients::{SOON, curl, curl_with, run_python},
    mesh::{ECHO, HTTP, Mesh},
};

/// Text that must not cross the wire readable.
const SECRET: &str = "not-for-the-wire";

/// Port of the UDP server.
const UDP: u16 = 5300;

/// Port of HBONE tunnels.
const HBONE: u16 = 15008;

/// Ways to connect, with their arguments; see `connect_as.py`. The mark is the one of capture.
const WAYS: [(&str, &str); 13] = [
    ("plain", ""),
    ("mark", "0x0fa171ea"),
    ("mark", "1"),
    ("mark", "0xffffffff"),
    ("device", "eth0"),
    ("mapped", ""),
    ("mptcp", ""),
    ("fastopen", ""),
    ("deferred", ""),
    ("thread", ""),
    ("name", "fairlead-node"),
    ("name", "proxy-0"),
    ("nonblocking", ""),
];

fn connect_as(pod: &Pod, way: &str, server: SocketAddr, argument: &str) -> Result<Output> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    pod.run(python("connect_as.py", &[way, &host, &port, SECRET, argument]))
}

/// Whether the proxy of node 1 has the connection that `connect_as` made in its log, with `pod`'s
/// identity.
fn was_captured(mesh: &Mesh, pod: &Pod, output: &Output) -> bool {
    let port = output.stdout.lines().find_map(|line| line.strip_prefix("local_port "));
    let Some(port) = port else { return false };
    let line = mesh.n1.wait_for_access(|line| {
        line.is("direction", "outbound")
            && line.get("src.addr").is_some_and(|a| a.ends_with(&format!(":{port}")))
    });
    line.is_ok_and(|line| line.is("src.identity", &pod.identity()))
}

#[test]
fn no_way_to_connect_leads_around_the_proxy() -> Result<()> {
    let mut mesh = Mesh::new("bypass")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let cgroup = Cgroup::new("bypass")?;
    let cgroup_path = cgroup.path().to_string_lossy().into_owned();
    let own = mesh.a.ipv4().to_string();
    let mut ways: Vec<(&str, &str)> = WAYS.to_vec();
    ways.extend([("cgroup", cgroup_path.as_str()), ("bind", own.as_str())]);

    let capture = mesh.lab.capture_wire()?;
    let mut escaped = BTreeMap::new();
    for (way, argument) in ways {
        let output = connect_as(&mesh.a, way, b.v4(ECHO), argument)?;
        let answered = output.stdout.contains(&format!("answer {SECRET}"));
        if !answered || !was_captured(&mesh, &mesh.a, &output) {
            escaped.insert((way, argument), format!("{}{}", output.stdout, output.stderr));
        }
    }
    let file = capture.finish()?;
    assert_eq!(file.dropped(), 0);
    assert!(escaped.is_empty(), "not captured, or not working: {escaped:#?}");
    assert!(!file.contains(SECRET.as_bytes())?, "the text crossed the wire");
    assert_eq!(file.ports_dialled()?.keys().collect::<Vec<_>>(), [&HBONE]);
    Ok(())
}

#[test]
fn datagrams_are_untouched() -> Result<()> {
    let mesh = Mesh::new("udp")?;
    let mut server: Child = mesh.b.spawn(python("udp.py", &["serve", &UDP.to_string()]))?;
    server.wait_for_output("ready", SOON)?;
    let capture = mesh.lab.capture_wire()?;
    for address in [mesh.b.v4(UDP), mesh.b.v6(UDP)] {
        let ip = address.ip().to_string();
        let said = run_python(&mesh.a, "udp.py", &["send", &ip, &UDP.to_string(), "datagram"])?;
        assert_eq!(said.trim(), format!("answer datagram from {ip}"));
    }
    assert_eq!(capture.finish()?.count(&format!("udp.port == {UDP}"))?, 4);
    Ok(())
}

/// Returns the link-local address of a pod, as a URL has it, for a client on the same bridge.
fn link_local(pod: &Pod) -> Result<String> {
    let text = pod.run(["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"])?;
    let address = text.stdout.split_whitespace().skip_while(|word| *word != "inet6").nth(1);
    let address = address.and_then(|a| a.split('/').next()).context("no link-local address")?;
    Ok(format!("http://[{address}%25eth0]:{HTTP}/"))
}

#[test]
fn policy_cannot_be_avoided_by_another_address_of_the_pod() -> Result<()> {
    let mut mesh = Mesh::new("addresses")?;
    let d = mesh.d.clone();
    let open = mesh.lab.node(1).add_pod(PodSpec::new("open"))?;
    mesh.serve(&open, "http_server.py", HTTP)?;
    d.run(["ip", "addr", "add", "10.1.0.200/24", "dev", "eth0"])?.checked()?;
    mesh.config.peer_authentications.push(PeerAuthentication::of_pod(&d, PeerMode::Strict));
    mesh.apply()?;

    let get = |client: &Pod, url: &str| client.run(["curl", "-sSg", "--max-time", "3", url]);
    // An address of this kind does reach a pod outside the mesh.
    assert!(get(&mesh.outsider, &link_local(&open)?)?.success());
    assert!(curl(&mesh.c, d.v4(HTTP))?.is_ok());
    for client in [&mesh.outsider, &mesh.c] {
        for url in [link_local(&d)?, format!("http://10.1.0.200:{HTTP}/")] {
            let output = get(client, &url)?;
            assert!(!output.success(), "{} got {url}: {}", client.name(), output.stdout);
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_is_opened_while_a_pod_is_enrolled_is_whole() -> Result<()> {
    let mesh = Mesh::new("moment")?;
    let url = format!("http://{}/", mesh.b.v4(HTTP));
    let script = format!(
        "for i in $(seq 60); do said=$(curl -sv --max-time 5 '{url}' 2>&1) || echo FAILED $said; \
         done; echo done"
    );
    let mut client = mesh.c.spawn(["sh", "-c", script.as_str()])?;
    for _ in 0..5 {
        mesh.n1.release(&mesh.c)?;
        mesh.n1.enrol(&mesh.c)?;
    }
    client.wait_for_output("done", SOON * 3)?;
    let failures: Vec<_> =
        mesh.n1.access_log()?.into_iter().filter(|line| !line.is("reason", "completed")).collect();
    assert!(!client.stdout()?.contains("FAILED"), "{}\n{failures:#?}", client.stdout()?);
    wait_for("a captured connection", SOON, || {
        Ok(curl_with(&mesh.c, mesh.b.v4(HTTP), &[])?.is_ok().then_some(()))
    })
}
