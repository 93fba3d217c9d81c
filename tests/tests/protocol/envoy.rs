//! Envoy as a client of discovery.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::{sleep, timeout},
};

use crate::plane::{Plane, TOKEN};

/// Names the program to use in place of the one that `cargo xtask setup` installs.
const BINARY_VARIABLE: &str = "FAIRLEAD_ENVOY_BIN";

const INSTALLED_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/envoy/envoy/_bin/envoy");

/// Time for Envoy to start and to ask for everything.
const SOON: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(50);

/// What Envoy counts when it has asked for both of its types, been answered, and gone on.
const ANSWERED: [&str; 5] = [
    "cluster_manager.cds.update_success: 1",
    "cluster_manager.cds.update_rejected: 0",
    "listener_manager.lds.update_success: 1",
    "listener_manager.lds.update_rejected: 0",
    "control_plane.connected_state: 1",
];

#[tokio::test]
async fn envoy_is_told_that_there_is_nothing_of_its_types_and_goes_on() -> Result<()> {
    let mut plane = Plane::start("").await?;
    plane.wait_ready().await?;
    let (config, admin) = (plane.dir().join("envoy.json"), plane.dir().join("admin"));
    fs::write(&config, bootstrap(&plane).to_string())?;
    let mut envoy = Command::new(binary()?)
        .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"])
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut seen = String::new();
    let answered = async {
        loop {
            seen = get(&admin, "/stats").await.unwrap_or_default();
            // It is live when it waits for no answer any more.
            let live = get(&admin, "/ready").await.unwrap_or_default().contains("LIVE");
            if live && ANSWERED.iter().all(|line| seen.contains(line)) {
                return;
            }
            sleep(PAUSE).await;
        }
    };
    let answered = tokio::select! {
        answered = timeout(SOON, answered) => answered.is_ok(),
        ended = plane.ended() => return Err(ended),
        ended = envoy.wait() => anyhow::bail!("Envoy ended: {}", ended?),
    };
    if !answered {
        envoy.start_kill()?;
        let mut log = String::new();
        envoy.stderr.take().context("no log")?.read_to_string(&mut log).await?;
        let about = |line: &&str| line.contains("cds.") || line.contains("lds.");
        let seen: Vec<_> = seen.lines().filter(about).collect();
        anyhow::bail!("{seen:#?}\n{log}");
    }
    // One connection, one stream: nothing was refused in between.
    ensure!(seen.contains("cluster.control-plane.upstream_rq_total: 1"), "{seen}");
    Ok(())
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

/// Returns a page of Envoy's admin interface, whose address is in a file.
async fn get(admin: &Path, page: &str) -> Result<String> {
    let mut stream = TcpStream::connect(fs::read_to_string(admin)?.trim()).await?;
    let request = format!("GET {page} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A configuration that has clusters and listeners come from the control plane.
fn bootstrap(plane: &Plane) -> Value {
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": { "id": "envoy-1", "cluster": "tests" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{
                    "envoy_grpc": { "cluster_name": "control-plane" },
                    "initial_metadata": [
                        { "key": "authorization", "value": format!("Bearer {TOKEN}") },
                    ],
                }],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": { "clusters": [control_plane(plane)] },
    })
}

fn control_plane(plane: &Plane) -> Value {
    let (host, port) = (plane.address.ip().to_string(), plane.address.port());
    let address = json!({ "socket_address": { "address": host, "port_value": port } });
    let http2 = type_url("upstreams.http.v3.HttpProtocolOptions");
    json!({
        "name": "control-plane",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": http2,
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": "control-plane",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": "localhost",
                "common_tls_context": {
                    // Envoy's own choice for clients is 1.2, which is not served.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    "validation_context": {
                        "trusted_ca": { "filename": plane.root() },
                        "match_typed_subject_alt_names": [
                            { "san_type": "DNS", "matcher": { "exact": "localhost" } },
                        ],
                    },
                },
            },
        },
    })
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
