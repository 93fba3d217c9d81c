//! Envoy, which nobody here wrote, as the client and as the server of a tunnel, and as the gateway of
//! a network.

mod gateway;

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use fairlead_lab::{Child, Host as _, PeerAuthentication, PeerMode, Pod, python};
use serde_json::{Value, json};

use crate::peer::{HBONE, Scene};

/// Names the program to use in place of the one that `cargo xtask setup` installs.
const BINARY_VARIABLE: &str = "FAIRLEAD_ENVOY_BIN";

const INSTALLED_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/envoy/envoy/_bin/envoy");

/// Port of the HTTP server behind the tunnels.
const HTTP: u16 = 8080;

/// Port of the server behind the tunnels that compares checksums.
const TRANSFER: u16 = 7001;

/// What is transferred in each direction, in MiB: several windows of either side.
const TRANSFER_MIB: &str = "48";

/// Added to a port behind the tunnels, this is where Envoy as a client takes connections for it.
const ENTRANCE: u16 = 20_000;

#[test]
fn a_pod_reaches_envoy_as_the_server_of_a_tunnel() -> Result<()> {
    let scene = Scene::new("envoy-srv")?;
    let _http = scene.peer.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    let _transfer = serve_transfer(&scene.peer)?;
    // One pod, so the port alone tells the application.
    let route = |port: u16| (format!(r".*:{port}"), SocketAddr::from(([127, 0, 0, 1], port)));
    let envoy = start(&scene, &scene.peer, HBONE, &server(&scene, &[HTTP, TRANSFER].map(route))?)?;

    for address in [scene.peer.v4(HTTP), scene.peer.v6(HTTP)] {
        let body = curl(&scene.pod, address)?;
        ensure!(body.contains("path=/through-envoy"), "{body}");
        let line = scene.proxy.wait_for_access(|line| {
            line.is("dst.hbone_addr", &address.to_string()) && line.is("reason", "completed")
        })?;
        assert!(line.is("src.identity", &scene.pod.identity()), "{line:?}");
        assert!(line.is("dst.identity", &scene.peer.identity()), "{line:?}");
        assert!(line.is("direction", "outbound"), "{line:?}");
    }
    transfer(&scene.pod, scene.peer.v4(TRANSFER)).with_context(|| said(&scene, &envoy))
}

#[test]
fn envoy_as_the_client_of_a_tunnel_reaches_a_pod_that_is_strict() -> Result<()> {
    let scene = Scene::configured("envoy-cli", |config, pod| {
        config.peer_authentications = vec![PeerAuthentication::of_pod(pod, PeerMode::Strict)];
    })?;
    let _http = scene.pod.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
    let _transfer = serve_transfer(&scene.pod)?;
    let envoy = start(&scene, &scene.peer, ENTRANCE + HTTP, &client(&scene)?)?;

    let direct = scene.peer.run(["curl", "-sS", "-m", "3", &url(scene.pod.v4(HTTP))])?;
    assert!(!direct.success(), "plaintext passes: {}", direct.stdout);

    let entrance = |port| SocketAddr::from(([127, 0, 0, 1], ENTRANCE + port));
    let body = curl(&scene.peer, entrance(HTTP))?;
    ensure!(body.contains(&format!("peer={} ", scene.peer.ipv4())), "{body}");
    let line = scene.proxy.wait_for_access(|line| {
        line.is("src.identity", &scene.peer.identity()) && line.is("reason", "completed")
    })?;
    assert!(line.is("dst.identity", &scene.pod.identity()), "{line:?}");
    assert!(line.is("dst.hbone_addr", &scene.pod.v4(HTTP).to_string()), "{line:?}");
    assert!(line.is("direction", "inbound"), "{line:?}");
    transfer(&scene.peer, entrance(TRANSFER)).with_context(|| said(&scene, &envoy))
}

fn curl(pod: &Pod, server: SocketAddr) -> Result<String> {
    Ok(pod.run(["curl", "-sS", "--fail", "-m", "10", &url(server)])?.checked()?.stdout)
}

fn url(server: SocketAddr) -> String {
    format!("http://{server}/through-envoy")
}

/// Where a server closes first, Envoy resets the stream without what it still holds for a reader
/// that is slower than its server.
fn serve_transfer(pod: &Pod) -> Result<Child> {
    let server = python("transfer.py", &["serve", &TRANSFER.to_string(), "last"]);
    pod.serve(server, TRANSFER)
}

fn transfer(pod: &Pod, server: SocketAddr) -> Result<()> {
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    pod.run(python("transfer.py", &["run", &host, &port, TRANSFER_MIB]))?.checked().map(drop)
}

/// What both sides of the tunnel say of it: why a test failed.
fn said(scene: &Scene, envoy: &Child) -> String {
    // What it is about may not be written yet; if nothing is, the rest is shown all the same.
    let _ = scene.proxy.wait_for_access(|line| !line.is("reason", "completed"));
    format!("{}\n{}", scene.proxy.complaints(), envoy.stderr().unwrap_or_default())
}

/// Starts Envoy in `pod` and waits until it listens on `port`.
fn start(scene: &Scene, pod: &Pod, port: u16, resources: &Value) -> Result<Child> {
    let path = scene.lab.dir().join("envoy.json");
    fs::write(&path, json!({ "static_resources": resources }).to_string())?;
    let binary = binary()?;
    let binary = binary.to_string_lossy();
    let config = path.to_string_lossy();
    let options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"];
    pod.serve([&[&*binary, "-c", &config], &options[..]].concat(), port)
}

fn binary() -> Result<PathBuf> {
    let path = env::var_os(BINARY_VARIABLE).map_or_else(|| INSTALLED_BINARY.into(), PathBuf::from);
    ensure!(
        path.exists(),
        "no Envoy at {}: run `cargo xtask setup`, or name one in {BINARY_VARIABLE}",
        path.display()
    );
    Ok(path)
}

/// Envoy terminates the tunnels of its pod and checks that the client is the enrolled pod. What they
/// ask for, as a regular expression, decides where the bytes go.
fn server(scene: &Scene, routes: &[(String, SocketAddr)]) -> Result<Value> {
    let clusters: Vec<_> = routes.iter().map(|(_, to)| static_cluster(*to)).collect();
    let route = |(authority, to): &(String, SocketAddr)| {
        json!({
            "match": {
                "connect_matcher": {},
                "headers": [{
                    "name": ":authority",
                    "string_match": { "safe_regex": { "regex": authority } },
                }],
            },
            "route": {
                "cluster": cluster_name(to.port()),
                "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
            },
        })
    };
    let manager = json!({
        "@type": type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "tunnels",
        "codec_type": "HTTP2",
        "http2_protocol_options": { "allow_connect": true, "max_concurrent_streams": 100 },
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        "route_config": {
            "virtual_hosts": [{
                "name": "pod",
                "domains": ["*"],
                "routes": routes.iter().map(route).collect::<Vec<_>>(),
            }],
        },
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": type_url("filters.http.router.v3.Router") },
        }],
    });
    let mut tls = tls_context(scene, &scene.pod)?;
    tls["@type"] = json!(type_url("transport_sockets.tls.v3.DownstreamTlsContext"));
    tls["require_client_certificate"] = json!(true);
    Ok(json!({
        "listeners": [{
            "name": "tunnels",
            "address": address("::", HBONE),
            "filter_chains": [{
                "filters": [{ "name": "manager", "typed_config": manager }],
                "transport_socket": { "name": "tls", "typed_config": tls },
            }],
        }],
        "clusters": clusters,
    }))
}

/// Envoy takes plain connections and makes a stream to the enrolled pod of each.
fn client(scene: &Scene) -> Result<Value> {
    let listener = |port: u16| {
        let proxy = json!({
            "@type": type_url("filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "entrance",
            "cluster": cluster_name(HBONE),
            "tunneling_config": { "hostname": scene.pod.v4(port).to_string() },
        });
        json!({
            "name": format!("entrance-{port}"),
            "address": address("127.0.0.1", ENTRANCE + port),
            "filter_chains": [{ "filters": [{ "name": "proxy", "typed_config": proxy }] }],
        })
    };
    let mut tls = tls_context(scene, &scene.pod)?;
    tls["@type"] = json!(type_url("transport_sockets.tls.v3.UpstreamTlsContext"));
    let mut tunnels = static_cluster(scene.pod.v4(HBONE));
    tunnels["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    tunnels["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": { "allow_connect": true } },
        },
    });
    Ok(json!({ "listeners": [listener(HTTP), listener(TRANSFER)], "clusters": [tunnels] }))
}

/// TLS in the name of `peer`, to the workload `expected` only.
fn tls_context(scene: &Scene, expected: &Pod) -> Result<Value> {
    let dir = scene.lab.dir();
    let [certificate, key] = scene.credentials(&scene.peer)?.write(dir, "envoy")?;
    let roots = dir.join("envoy-roots.pem");
    fs::write(&roots, scene.ca.pem())?;
    let file = |path: &Path| Ok::<_, anyhow::Error>(json!({ "filename": text(path)? }));
    Ok(json!({
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": file(&certificate)?,
                "private_key": file(&key)?,
            }],
            "validation_context": {
                "trusted_ca": file(&roots)?,
                "match_typed_subject_alt_names": [{
                    "san_type": "URI",
                    "matcher": { "exact": expected.identity() },
                }],
            },
        },
    }))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn static_cluster(to: SocketAddr) -> Value {
    cluster(to.port(), &address(&to.ip().to_string(), to.port()))
}

fn cluster(port: u16, endpoint: &Value) -> Value {
    json!({
        "name": cluster_name(port),
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": cluster_name(port),
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": endpoint } }] }],
        },
    })
}

fn cluster_name(port: u16) -> String {
    format!("port-{port}")
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port, "ipv4_compat": ip == "::" } })
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
