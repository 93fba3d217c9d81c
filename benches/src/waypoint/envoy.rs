//! Envoy, set up as Istio sets it up as a waypoint: a listener that ends tunnels, and listeners inside
//! the process that take what comes out of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use fairlead_lab::{Child, Host as _, Pod};
use serde_json::{Value, json};

use super::{credentials::Credentials, kind::Kind};

/// Names the program to use in place of the one that `cargo xtask setup` installs.
const BINARY_VARIABLE: &str = "FAIRLEAD_ENVOY_BIN";

const INSTALLED_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/envoy/envoy/_bin/envoy");

/// Port of tunnels.
const HBONE: u16 = 15008;

/// What Envoy is set up with.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    /// A directory of its own.
    pub(super) dir: &'a Path,
    pub(super) credentials: &'a Credentials,
    pub(super) roots: &'a Path,
    pub(super) server: &'a Pod,
    pub(super) kinds: &'a [Kind],
}

// === impl Setup ===

impl Setup<'_> {
    /// Starts Envoy in `pod` with `count` routes and waits until it listens.
    pub(super) fn start(&self, pod: &Pod, count: u32) -> Result<Child> {
        let binary =
            env::var_os(BINARY_VARIABLE).map_or_else(|| INSTALLED_BINARY.into(), PathBuf::from);
        ensure!(
            binary.exists(),
            "no Envoy at {}: run `cargo xtask setup`, or name one in {BINARY_VARIABLE}",
            binary.display()
        );
        fs::create_dir_all(self.dir)?;
        for kind in self.servers() {
            put_routes(self.dir, kind, &routes(kind, count, "m0"))?;
        }
        let config = self.dir.join("envoy.json");
        fs::write(&config, self.bootstrap().to_string())?;
        let (binary, config) = (binary.to_string_lossy(), config.to_string_lossy());
        let options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
        pod.serve([&[&*binary, "-c", &config], &options[..]].concat(), HBONE)
    }

    /// Returns a kind for each of the servers that requests go to.
    fn servers(&self) -> Vec<Kind> {
        let mut servers: Vec<_> = self.kinds.to_vec();
        servers.dedup_by_key(|kind| kind.server_port());
        servers
    }

    fn bootstrap(&self) -> Value {
        let inner = self.servers().into_iter().map(|kind| self.inner(kind));
        let listeners: Vec<_> = std::iter::once(self.outer()).chain(inner).collect();
        let inner = self.servers().into_iter().map(into);
        let servers = self.servers().into_iter().map(|kind| self.to_server(kind));
        let clusters: Vec<_> = inner.chain(servers).collect();
        json!({
            "node": { "id": "waypoint", "cluster": "benches" },
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": type_url("bootstrap.internal_listener.v3.InternalListener"),
                },
            }],
            "static_resources": { "listeners": listeners, "clusters": clusters },
        })
    }

    /// The listener that ends tunnels: the port that they are for says what listener is next.
    fn outer(&self) -> Value {
        let route = |kind: &Kind| {
            json!({
                "match": {
                    "connect_matcher": {},
                    "headers": [{
                        "name": ":authority",
                        "string_match": { "suffix": format!(":{}", kind.port()) },
                    }],
                },
                "route": {
                    "cluster": inner_name(*kind),
                    "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                },
            })
        };
        let routes: Vec<_> = self.kinds.iter().map(route).collect();
        let manager = json!({
            "@type": manager_type(),
            "stat_prefix": "tunnels",
            "codec_type": "HTTP2",
            "http2_protocol_options": { "allow_connect": true },
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "route_config": {
                "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }],
            },
            "http_filters": [router()],
        });
        json!({
            "name": "tunnels",
            "address": { "socket_address": { "address": "0.0.0.0", "port_value": HBONE } },
            "filter_chains": [{
                "filters": [{ "name": "manager", "typed_config": manager }],
                "transport_socket": { "name": "tls", "typed_config": self.tls() },
            }],
        })
    }

    fn tls(&self) -> Value {
        let file = |path: &Path| json!({ "filename": path.to_string_lossy() });
        json!({
            "@type": type_url("transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificates": [{
                    "certificate_chain": file(&self.credentials.certificate),
                    "private_key": file(&self.credentials.key),
                }],
                "validation_context": {
                    "trusted_ca": file(self.roots),
                    "match_typed_subject_alt_names": [{
                        "san_type": "URI",
                        "matcher": { "prefix": "spiffe://cluster.local/" },
                    }],
                },
            },
        })
    }

    /// The listener that takes what comes out of tunnels.
    fn inner(&self, kind: Kind) -> Value {
        let log = self.dir.join("access.log");
        let manager = json!({
            "@type": manager_type(),
            "stat_prefix": kind.argument(),
            "codec_type": "AUTO",
            "rds": {
                "route_config_name": kind.argument(),
                "config_source": {
                    "resource_api_version": "V3",
                    "path_config_source": {
                        "path": routes_path(self.dir, kind).to_string_lossy(),
                        "watched_directory": { "path": self.dir.to_string_lossy() },
                    },
                },
            },
            "http_filters": [router()],
            "access_log": [{
                "name": "file",
                "typed_config": {
                    "@type": type_url("access_loggers.file.v3.FileAccessLog"),
                    "path": log.to_string_lossy(),
                },
            }],
        });
        json!({
            "name": inner_name(kind),
            "internal_listener": {},
            "filter_chains": [{ "filters": [{ "name": "manager", "typed_config": manager }] }],
        })
    }

    fn to_server(&self, kind: Kind) -> Value {
        let address = self.server.v4(kind.server_port());
        let address = json!({
            "address": address.ip().to_string(),
            "port_value": address.port(),
        });
        let mut cluster = cluster(&server_name(kind), &json!({ "socket_address": address }));
        if kind != Kind::Http1 {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            });
        }
        cluster
    }
}

/// Returns `count` routes as Envoy reads them; the last one marks its answers.
pub(super) fn routes(kind: Kind, count: u32, mark: &str) -> String {
    let previous_hosts = json!({
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {
            "@type": type_url("retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        },
    });
    let route = |number: u32| {
        json!({
            "match": { "prefix": format!("/route-{number}/") },
            "route": {
                "cluster": server_name(kind),
                "timeout": "0s",
                // As Istio has it where nobody says otherwise.
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
                    "num_retries": 2,
                    "retry_host_predicate": [previous_hosts],
                    "host_selection_retry_max_attempts": "5",
                },
            },
        })
    };
    let mut routes: Vec<_> = (0..count).map(route).collect();
    if let Some(last) = routes.last_mut() {
        last["response_headers_to_add"] = json!([{
            "header": { "key": "x-mark", "value": mark },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }]);
    }
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": kind.argument(),
        "virtual_hosts": [{ "name": "server", "domains": ["*"], "routes": routes }],
    });
    json!({ "version_info": mark, "resources": [resource] }).to_string()
}

/// Puts routes in the place of those there were.
pub(super) fn put_routes(dir: &Path, kind: Kind, routes: &str) -> Result<()> {
    let path = routes_path(dir, kind);
    let new = path.with_extension("new");
    fs::write(&new, routes)?;
    // Envoy looks when a file is moved into the directory.
    Ok(fs::rename(new, path)?)
}

fn routes_path(dir: &Path, kind: Kind) -> PathBuf {
    dir.join(format!("{}.json", kind.argument()))
}

/// The way from the listener that ends tunnels into the next one.
fn into(kind: Kind) -> Value {
    let name = inner_name(kind);
    let address = json!({ "envoy_internal_address": { "server_listener_name": name } });
    let mut cluster = cluster(&name, &address);
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.internal_upstream",
        "typed_config": {
            "@type": type_url("transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": { "@type": type_url("transport_sockets.raw_buffer.v3.RawBuffer") },
            },
        },
    });
    cluster
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn inner_name(kind: Kind) -> String {
    // gRPC is HTTP/2.
    let kind = if kind == Kind::Http1 { kind } else { Kind::Http2 };
    format!("inner-{}", kind.argument())
}

fn server_name(kind: Kind) -> String {
    format!("server-{}", kind.argument())
}

fn router() -> Value {
    json!({
        "name": "router",
        "typed_config": { "@type": type_url("filters.http.router.v3.Router") },
    })
}

fn manager_type() -> String {
    type_url("filters.network.http_connection_manager.v3.HttpConnectionManager")
}

fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
