//! A service on another network. Envoy is its gateway, as it is in Istio: it ends the outer tunnel and
//! gives the bytes inside to a pod, whose own node has a proxy.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    AccessLine, Capture, CaptureOptions, Child, FairleadNode, Gateway, Host as _, MeshConfig, Pod,
    ServiceEntry, WorkloadEntry, python,
};

use super::{HTTP, TRANSFER, TRANSFER_MIB, serve_transfer, server, start};
use crate::{
    clients::{Answer, curl, curl_with},
    peer::{HBONE, Scene},
};

/// Network of the service; the client is on the one without a name.
const WEST: &str = "west";

/// Host name of the service.
const HOSTNAME: &str = "far.shop.svc.cluster.local";

/// Last number of the addresses of the service.
const NUMBER: u8 = 40;

/// In the header of a request that the gateway must not be able to read.
const SECRET: &str = "X-Secret: swordfish-in-the-clear";

/// Port of the server that ends one direction first.
const HALF_CLOSE: u16 = 7002;

/// Port of name servers.
const DNS: u16 = 53;

/// The address that the lab gives to the second pod of node 1.
const NAME_SERVER: &str = "10.1.0.3";

/// A client's network and another one.
struct Networks {
    /// The proxy of the other network; its pod is [`Scene::other`], its gateway [`Scene::peer`].
    west: FairleadNode,
    _servers: Vec<Child>,
    scene: Scene,
}

// === impl Networks ===

impl Networks {
    /// Starts both proxies, with a configuration of the client's that `edit` has changed, and no
    /// gateway yet.
    fn new(name: &str, edit: impl FnOnce(&mut MeshConfig)) -> Result<Self> {
        Self::with_args(name, &[], edit)
    }

    /// Starts the client's proxy with further arguments.
    fn with_args(name: &str, args: &[&str], edit: impl FnOnce(&mut MeshConfig)) -> Result<Self> {
        let scene = Scene::start(name, args, |config, _| {
            describe_west(config);
            edit(config);
        })?;
        let path = scene.lab.dir().join("config").join("west.yaml");
        west_config(&scene.other).write(&path)?;
        let west = FairleadNode::on(scene.lab.node(2))
            .local_config(&path)
            .local_ca(&scene.lab.dir().join("ca"))
            .args(["--network", WEST])
            .start()?;
        west.enrol(&scene.other)?;
        let other = &scene.other;
        let half_close = python("half_close.py", &["serve".to_owned(), HALF_CLOSE.to_string()]);
        let servers = vec![
            other.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?,
            serve_transfer(other)?,
            other.serve(half_close, HALF_CLOSE)?,
        ];
        Ok(Self { west, _servers: servers, scene })
    }

    /// Starts Envoy as the gateway.
    fn start_gateway(&self) -> Result<Child> {
        let authority = format!("{}:[0-9]+", HOSTNAME.replace('.', "[.]"));
        let routes = [(authority, self.scene.other.v4(HBONE))];
        start(&self.scene, &self.scene.peer, HBONE, &server(&self.scene, &routes)?)
    }

    /// Connects, which must be refused before a byte of an answer, and returns the client's line.
    fn refused(&self) -> Result<AccessLine> {
        let answer = self.curl(vip4(HTTP))?;
        assert!(answer.is_refused(), "{answer:?}");
        self.scene.proxy.wait_for_access(|line| line.is("direction", "outbound"))
    }

    fn curl(&self, server: SocketAddr) -> Result<Answer> {
        curl_with(&self.scene.pod, server, &["-H", SECRET])
    }
}

fn vip4(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, NUMBER], port))
}

fn vip6(port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0x96, 0, 0, 0, 0, 0, NUMBER.into()], port))
}

fn service() -> ServiceEntry {
    ServiceEntry::new("shop", "far")
        .port(HTTP, HTTP)
        .port(TRANSFER, TRANSFER)
        .port(HALF_CLOSE, HALF_CLOSE)
}

fn entry<'a>(config: &'a mut MeshConfig, name: &str) -> &'a mut WorkloadEntry {
    let entry = config.workloads.iter_mut().find(|workload| workload.name == name);
    entry.unwrap_or_else(|| panic!("no workload {name}"))
}

/// Moves `peer` to the other network as its gateway, and `other` behind it: of that only the service
/// is known, as a control plane would tell.
fn describe_west(config: &mut MeshConfig) {
    let mut service = service().address(vip4(0).ip()).address(vip6(0).ip());
    let gateway = entry(config, "peer");
    WEST.clone_into(&mut gateway.network);
    gateway.services.clear();
    let address = gateway.addresses.iter().find(|address| address.is_ipv4()).copied();
    let address = address.unwrap_or_else(|| panic!("the gateway has no address"));
    let behind = entry(config, "other");
    WEST.clone_into(&mut behind.network);
    "default".clone_into(&mut behind.service_account);
    behind.addresses.clear();
    behind.network_gateway = Some(Gateway::Address(format!("{WEST}/{address}")));
    let ports = fairlead_lab::PortList { ports: service.ports.clone() };
    behind.services = [(service.key(), ports)].into();
    service.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/other".to_owned()];
    config.services.push(service);
}

/// What the proxy of the other network knows.
fn west_config(server: &Pod) -> MeshConfig {
    let mut config = MeshConfig::of([server]);
    WEST.clone_into(&mut config.workloads[0].network);
    config.add_service(service(), [server]);
    config
}

#[test]
fn a_service_of_another_network_is_reached_and_its_gateway_reads_nothing() -> Result<()> {
    let networks = Networks::new("gateway", |_| {})?;
    let Networks { west, scene, .. } = &networks;
    let _gateway = networks.start_gateway()?;
    let capture = Capture::start(&scene.peer, "eth0", CaptureOptions::default())?;

    let explained = scene.proxy.explain(&scene.pod, vip4(HTTP))?;
    let attempt = &explained["decision"]["attempts"][0];
    assert_eq!(attempt["transport"], "gateway", "{explained:#}");
    assert_eq!(attempt["peer"], scene.peer.v4(HBONE).to_string(), "{explained:#}");
    assert_eq!(attempt["gateway"][0], scene.peer.identity(), "{explained:#}");
    assert_eq!(attempt["expected"][0], scene.other.identity(), "{explained:#}");

    for target in [vip4(HTTP), vip6(HTTP), vip4(HTTP)] {
        let answer = networks.curl(target)?;
        assert!(answer.is_ok(), "{target}: {answer:?}");
        assert_eq!(answer.seen("peer"), scene.peer.ipv4().to_string(), "the gateway's address");
        let line = scene.proxy.wait_for_access(|line| {
            line.is("dst.hbone_addr", &target.to_string()) && line.is("reason", "completed")
        })?;
        assert!(line.is("dst.addr", &scene.peer.v4(HBONE).to_string()), "{line:?}");
        assert!(line.is("dst.identity", &scene.other.identity()), "{line:?}");
        assert!(line.is("dst.service", HOSTNAME), "{line:?}");
    }
    let line = west.wait_for_access(|line| line.is("reason", "completed"))?;
    assert!(line.is("src.identity", &scene.pod.identity()), "{line:?}");
    assert!(line.is("dst.identity", &scene.other.identity()), "{line:?}");
    assert!(line.is("dst.service", HOSTNAME), "{line:?}");
    assert_eq!(line.get("src.workload"), None, "the address is not the client's: {line:?}");

    let seen = capture.finish()?;
    assert_eq!(seen.dropped(), 0);
    for part in [SECRET, "GET / HTTP/1.1", "peer="] {
        assert!(!seen.contains(part.as_bytes())?, "{part}");
    }
    let dialled = |to: IpAddr| {
        seen.count(&format!("tcp.flags.syn == 1 && tcp.flags.ack == 0 && ip.dst == {to}"))
    };
    assert_eq!(dialled(scene.peer.ipv4().into())?, 1, "connections share the outer tunnel");
    assert_eq!(dialled(scene.other.ipv4().into())?, 3, "each has an inner one of its own");
    let hello = format!("tls.handshake.type == 1 && ip.dst == {}", scene.other.ipv4());
    assert_eq!(seen.count(&hello)?, 3, "the gateway passes the client's own handshakes on");
    Ok(())
}

/// Leaves of the gateway nothing but `hostname`.
fn rename_gateway(config: &mut MeshConfig, hostname: &str) {
    let gateway = entry(config, "peer");
    gateway.addresses.clear();
    gateway.hostname = Some(hostname.to_owned());
    let (namespace, hostname) = (gateway.namespace.clone(), hostname.to_owned());
    entry(config, "other").network_gateway = Some(Gateway::Hostname { namespace, hostname });
}

#[test]
fn a_gateway_that_has_a_host_name_only_is_looked_up() -> Result<()> {
    let hostname = "at-10-2-0-2.example";
    let args = ["--name-servers", NAME_SERVER];
    let networks = Networks::with_args("namedgw", &args, |config| {
        rename_gateway(config, hostname);
    })?;
    let scene = &networks.scene;
    assert_eq!(scene.neighbour.ipv4().to_string(), NAME_SERVER, "of the lab");
    assert_eq!(scene.peer.ipv4().to_string(), "10.2.0.2", "of the lab");
    let servers = scene.neighbour.serve(python("name_server.py", &[DNS.to_string()]), DNS)?;
    let _gateway = networks.start_gateway()?;

    let explained = scene.proxy.explain(&scene.pod, vip4(HTTP))?;
    let attempt = &explained["decision"]["attempts"][0];
    assert_eq!(attempt["peer"], format!("{hostname}:{HBONE}"), "{explained:#}");
    assert_eq!(attempt["address"], vip4(HTTP).to_string(), "{explained:#}");
    // It has no address of the other family, and is asked for it all the same.
    for target in [vip4(HTTP), vip6(HTTP)] {
        let answer = networks.curl(target)?;
        assert!(answer.is_ok(), "{target}: {answer:?}");
        assert_eq!(answer.seen("peer"), scene.peer.ipv4().to_string(), "the gateway's address");
        let line = scene.proxy.wait_for_access(|line| {
            line.is("dst.hbone_addr", &target.to_string()) && line.is("reason", "completed")
        })?;
        assert!(line.is("dst.addr", &scene.peer.v4(HBONE).to_string()), "{line:?}");
        assert!(line.is("dst.identity", &scene.other.identity()), "{line:?}");
    }
    let from = format!("from {}", scene.pod.ipv4());
    assert!(servers.stdout()?.contains(&from), "the pod itself has asked: {}", servers.stdout()?);
    Ok(())
}

#[test]
fn a_gateway_whose_host_name_has_no_address_is_named_as_the_reason() -> Result<()> {
    let args = ["--name-servers", NAME_SERVER];
    let networks = Networks::with_args("nonamegw", &args, |config| {
        rename_gateway(config, "missing.example");
    })?;
    let server = python("name_server.py", &[DNS.to_string()]);
    let _server = networks.scene.neighbour.serve(server, DNS)?;
    let line = networks.refused()?;
    assert!(line.is("reason", "name_not_resolved"), "{line:?}");
    assert!(line.is("dst.addr", &vip4(HTTP).to_string()), "{line:?}");
    Ok(())
}

#[test]
fn every_byte_and_every_end_crosses_networks() -> Result<()> {
    let networks = Networks::new("crossing", |_| {})?;
    let _gateway = networks.start_gateway()?;
    let pod = &networks.scene.pod;
    let address = vip4(0).ip().to_string();
    let port = TRANSFER.to_string();
    pod.run(python("transfer.py", &["run", &address, &port, TRANSFER_MIB]))?.checked()?;
    let port = HALF_CLOSE.to_string();
    for mode in ["client-first", "server-first", "both"] {
        let run = pod.run(python("half_close.py", &[mode, &address, &port, "8"]))?;
        run.checked().with_context(|| mode.to_owned())?;
    }
    Ok(())
}

#[test]
fn who_is_behind_the_gateway_must_be_of_the_service() -> Result<()> {
    let networks = Networks::new("imposter", |config| {
        for service in config.services.iter_mut().filter(|service| service.name == "far") {
            service.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/else".to_owned()];
        }
    })?;
    let _gateway = networks.start_gateway()?;
    let line = networks.refused()?;
    assert!(line.is("reason", "peer_identity_mismatch"), "{line:?}");
    assert_eq!(line.get("dst.identity"), None, "nobody has proven anything: {line:?}");
    let served = networks.west.access_log()?;
    assert!(!served.iter().any(|line| line.is("reason", "completed")), "{served:?}");
    Ok(())
}

#[test]
fn the_gateway_must_be_who_it_is_meant_to_be() -> Result<()> {
    let networks = Networks::new("notgateway", |config| {
        "else".clone_into(&mut entry(config, "peer").service_account);
    })?;
    let _gateway = networks.start_gateway()?;
    let line = networks.refused()?;
    assert!(line.is("reason", "peer_identity_mismatch"), "{line:?}");
    assert_eq!(networks.west.access_log()?.len(), 0, "nothing has come through");
    Ok(())
}

#[test]
fn a_gateway_that_is_not_there_refuses_what_has_no_other_way() -> Result<()> {
    let networks = Networks::new("nogateway", |config| {
        // Without preference: about every other connection tries the other network first.
        let mixed = ServiceEntry::new("shop", "mixed").address([10, 96, 0, 41]).port(HTTP, HTTP);
        let ports = fairlead_lab::PortList { ports: mixed.ports.clone() };
        for name in ["neighbour", "other"] {
            entry(config, name).services.insert(mixed.key(), ports.clone());
        }
        let subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/other".to_owned()];
        config.services.push(ServiceEntry { subject_alt_names, ..mixed });
    })?;
    let scene = &networks.scene;
    let line = networks.refused()?;
    assert!(line.is("reason", "connect_refused"), "{line:?}");
    assert!(line.is("dst.addr", &scene.peer.v4(HBONE).to_string()), "{line:?}");

    let _near = scene.neighbour.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    for _ in 0..12 {
        let answer = curl(&scene.pod, SocketAddr::from(([10, 96, 0, 41], HTTP)))?;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(answer.seen("own"), scene.neighbour.ipv4().to_string());
    }
    Ok(())
}

#[test]
fn a_gateway_that_the_mesh_does_not_know_is_named_as_the_reason() -> Result<()> {
    let networks = Networks::new("unknowngw", |config| {
        config.workloads.retain(|workload| workload.name != "peer");
    })?;
    let line = networks.refused()?;
    assert!(line.is("reason", "gateway_unavailable"), "{line:?}");
    let explained = networks.scene.proxy.explain(&networks.scene.pod, vip4(HTTP))?;
    assert_eq!(explained["decision"]["result"]["reason"], "gateway_unavailable", "{explained:#}");
    Ok(())
}
