//! The kubelet's probes, by processes that play the kubelet.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use fairlead_lab::{
    Cgroup, FairleadNode, Half, Host, InCgroup, Node, PeerAuthentication, PeerMode, Pod, wait_for,
};

use super::counts::counted;
use crate::{
    bpf::Entries,
    clients::{SOON, curl, curl_with, run_python},
    mesh::{ECHO, HTTP, Mesh},
};

/// Port of the client whose connections follow each other.
const OWN_PORT: &str = "23456";

/// A mesh where only mutual TLS is allowed in namespace `shop`, with a kubelet on node 1.
struct Scene {
    mesh: Mesh,
    cgroup: Cgroup,
}

// === impl Scene ===

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let cgroup = Cgroup::new(name)?;
        let kubelet = cgroup.path().to_string_lossy().into_owned();
        let mesh = Mesh::with_args(name, &["--kubelet-cgroup", &kubelet])?;
        let mut scene = Self { mesh, cgroup };
        make_strict(&mut scene.mesh)?;
        scene.wait_recognised()?;
        wait_for("the first probe's count", SOON, || {
            Ok((inbound(&scene.mesh.n1, &scene.mesh.d, "probe")? > 0.0).then_some(()))
        })?;
        Ok(scene)
    }

    fn kubelet(&self) -> InCgroup<'_, Node> {
        self.cgroup.on(self.mesh.lab.node(1))
    }

    /// Waits until the proxy of node 1 has found the kubelet.
    fn wait_recognised(&self) -> Result<()> {
        wait_for("a probe that passes", SOON, || {
            let answer = curl(&self.kubelet(), self.mesh.d.v4(HTTP))?;
            Ok(answer.is_ok().then_some(()))
        })
    }

    fn servers(&self) -> [SocketAddr; 2] {
        [self.mesh.d.v4(HTTP), self.mesh.d.v6(HTTP)]
    }
}

fn make_strict(mesh: &mut Mesh) -> Result<()> {
    let strict = PeerAuthentication::of_namespace("shop", PeerMode::Strict);
    mesh.config.peer_authentications.push(strict);
    mesh.apply()
}

/// Returns how many connections into `pod` had this outcome, as the kernel counts.
fn inbound(node: &FairleadNode, pod: &Pod, outcome: &str) -> Result<f64> {
    counted(node, pod, "inbound", Some(outcome))
}

fn node_address(node: &Node, server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { node.ipv4().into() } else { node.ipv6().into() }
}

/// Checks that `client` is refused by the pod `d`, for the reason that its line in the log names.
fn assert_denied(mesh: &Mesh, client: &impl Host, from: IpAddr, server: SocketAddr) -> Result<()> {
    let answer = curl(client, server)?;
    ensure!(answer.is_refused(), "{server}: {answer:?}");
    let line = mesh.n1.wait_for_access(|line| {
        let source = line.get("src.addr").and_then(|address| address.parse::<SocketAddr>().ok());
        line.is("direction", "inbound")
            && line.is("dst.addr", &server.to_string())
            && source.is_some_and(|source| source.ip() == from)
    })?;
    ensure!(line.is("reason", "denied_by_policy"), "{line:?}");
    Ok(())
}

#[test]
fn probes_reach_the_application_where_only_mutual_tls_is_allowed_and_nothing_else_of_the_node_does()
-> Result<()> {
    let mut scene = Scene::new("probes")?;
    let d = scene.mesh.d.clone();
    scene.mesh.serve_echo(&d)?;
    let node = scene.mesh.lab.node(1).clone();
    let before = inbound(&scene.mesh.n1, &d, "probe")?;
    for server in scene.servers() {
        let answer = curl(&scene.kubelet(), server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        assert_eq!(answer.seen("peer"), node_address(&node, server).to_string());
        assert_denied(&scene.mesh, &node, node_address(&node, server), server)?;
    }
    // An IPv6 socket that is connected over IPv4 is the kubelet's as well.
    let (host, port) = (d.ipv4().to_string(), ECHO.to_string());
    let said = run_python(&scene.kubelet(), "connect_as.py", &["mapped", &host, &port, "probe"])?;
    assert!(said.contains("answer probe"), "{said}");

    wait_for("three probes more", SOON, || {
        let now = inbound(&scene.mesh.n1, &d, "probe")?;
        Ok((now >= before + 3.0).then_some(()))
    })?;
    assert!((inbound(&scene.mesh.n1, &d, "probe")? - before - 3.0).abs() < 0.1);
    wait_for("no connection of the kubelet on record", SOON, || {
        Ok((Entries::of(&scene.mesh.n1)?.probes == 0).then_some(()))
    })?;
    let probes = scene.mesh.n1.access_log()?;
    let from_kubelet = probes.iter().filter(|line| line.is("reason", "completed")).count();
    assert_eq!(from_kubelet, 0, "the proxy took part: {probes:#?}");
    Ok(())
}

#[test]
fn a_pod_that_plays_the_kubelet_is_refused() -> Result<()> {
    let scene = Scene::new("imitate")?;
    let (outsider, d) = (scene.mesh.outsider.clone(), scene.mesh.d.clone());
    let other = Cgroup::new("other")?;
    for server in scene.servers() {
        let from = if server.is_ipv4() { outsider.v4(0).ip() } else { outsider.v6(0).ip() };
        assert_denied(&scene.mesh, &other.on(&outsider), from, server)?;
    }
    // With the address of the node, by which some know the kubelet.
    let address = scene.mesh.lab.node(1).ipv4().to_string();
    outsider.run(["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"])?.checked()?;
    let probes = inbound(&scene.mesh.n1, &d, "probe")?;
    let plaintext = inbound(&scene.mesh.n1, &d, "plaintext")?;
    let options = ["--interface", address.as_str(), "--connect-timeout", "1"];
    let answer = curl_with(&outsider, d.v4(HTTP), &options)?;
    assert_ne!(answer.code, 0, "{answer:?}");
    wait_for("the counted connection", SOON, || {
        Ok((inbound(&scene.mesh.n1, &d, "plaintext")? > plaintext).then_some(()))
    })?;
    assert!((inbound(&scene.mesh.n1, &d, "probe")? - probes).abs() < 0.1);
    Ok(())
}

#[test]
fn the_ports_of_a_probe_that_ended_are_nobodys_pass() -> Result<()> {
    let scene = Scene::new("ports")?;
    for server in scene.servers() {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let arguments = [host.as_str(), port.as_str(), OWN_PORT];
        let said = run_python(&scene.kubelet(), "close_at_once.py", &arguments)?;
        assert_eq!(said.trim(), "answer");
        let said = run_python(scene.mesh.lab.node(1), "close_at_once.py", &arguments)?;
        assert!(!said.starts_with("answer"), "{said}");
    }
    Ok(())
}

#[test]
fn probes_pass_while_the_proxy_is_down_and_after_restarts() -> Result<()> {
    let Scene { mut mesh, cgroup } = Scene::new("down")?;
    let (node, servers) = (mesh.lab.node(1).clone(), [mesh.d.v4(HTTP), mesh.d.v6(HTTP)]);
    let assert_passes = || -> Result<()> {
        for server in servers {
            let answer = curl(&cgroup.on(&node), server)?;
            ensure!(answer.is_ok(), "{server}: {answer:?}");
        }
        Ok(())
    };
    for half in [Half::Capture, Half::Proxy] {
        mesh.n1.kill_half(half)?;
        assert_passes()?;
        mesh.n1.wait_ready()?;
        assert_passes()?;
    }
    let settings = mesh.n1.settings();
    mesh.n1.kill()?;
    assert_passes()?;
    let refused = curl(&node, servers[0])?;
    assert!(refused.is_refused(), "{refused:?}");

    mesh.n1 = settings.start()?;
    assert_passes()?;
    assert!(curl(&mesh.c, servers[0])?.is_ok());
    assert_denied(&mesh, &node, node.ipv4().into(), servers[0])
}

#[test]
fn a_kubelet_that_is_started_anew_is_recognised_again() -> Result<()> {
    let scene = Scene::new("anew")?;
    scene.cgroup.make_anew()?;
    scene.wait_recognised()?;
    let node = scene.mesh.lab.node(1);
    assert_denied(&scene.mesh, node, node.ipv4().into(), scene.mesh.d.v4(HTTP))
}

#[test]
fn pods_below_the_cgroup_of_the_kubelet_do_not_pass_for_it() -> Result<()> {
    let scene = Scene::new("below")?;
    let pods = scene.cgroup.child("kubepods")?;
    let server = scene.mesh.d.v4(HTTP);
    wait_for("the end of the pass", SOON, || {
        Ok(curl(&pods.on(&scene.mesh.outsider), server)?.is_refused().then_some(()))
    })?;
    assert!(curl(&scene.kubelet(), server)?.is_refused());
    drop(pods);
    scene.wait_recognised()
}

#[test]
fn addresses_of_the_node_pass_only_where_they_are_named() -> Result<()> {
    let mut mesh = Mesh::with_args("sources", &["--probe-source", "10.1.0.1,fd00:1::1"])?;
    make_strict(&mut mesh)?;
    let node = mesh.lab.node(1);
    for server in [mesh.d.v4(HTTP), mesh.d.v6(HTTP)] {
        let answer = curl(node, server)?;
        assert!(answer.is_ok(), "{server}: {answer:?}");
        assert!(curl(&mesh.outsider, server)?.is_refused(), "{server}");
    }
    let unnamed = FairleadNode::on(node).local_config(&mesh.config_path()).local_ca(&mesh.ca_dir());
    mesh.n1.kill()?;
    mesh.n1 = unnamed.start()?;
    assert_denied(&mesh, node, node.ipv4().into(), mesh.d.v4(HTTP))
}

#[test]
fn the_check_says_by_what_probes_are_recognised() -> Result<()> {
    let scene = Scene::new("says")?;
    let node = scene.mesh.lab.node(1);
    let program = scene.mesh.n1.binary().to_string_lossy().into_owned();
    let kubelet = scene.cgroup.path().to_string_lossy().into_owned();
    let check = |cgroup: &str| {
        let run = node.run([program.as_str(), "check", "--kubelet-cgroup", cgroup])?;
        Ok::<_, anyhow::Error>(run.checked()?.stdout)
    };
    let said = check(&kubelet)?;
    assert!(said.contains(&format!("ok       kubelet's cgroup {kubelet}")), "{said}");
    assert!(check("nowhere")?.contains("no cgroup of a kubelet"));
    assert!(check("/")?.contains("has others below it"));
    Ok(())
}
