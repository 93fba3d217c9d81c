//! Puts the parts of the node proxy together and runs them until SIGTERM.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use mesh_api::workload::Network;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use fairlead_node::{
    api::{self, ApiSocket},
    capture::{
        check,
        control::{AtExit, Control, Parts},
        programs::Programs,
    },
    cli::RunArgs,
    identity::{Clock, IdentityStore, LocalAuthority, LocalCa},
    local_config::WatchedConfig,
    proxy::{
        node::{Node, ProxyOptions},
        worker::Workers,
    },
    telemetry::{
        logging::Guard,
        metrics::NodeMetrics,
        readiness::Readiness,
        server::{serve_admin, serve_metrics, serve_readiness},
    },
};

/// Connections that wait to be accepted by an operator's endpoint.
const ENDPOINT_BACKLOG: i32 = 128;

/// The endpoints for operators.
struct Endpoints {
    metrics: TcpListener,
    readiness: TcpListener,
    admin: TcpListener,
}

/// Serves the node until SIGTERM or SIGINT.
pub(crate) async fn run(args: RunArgs, log: &Guard) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let readiness = Readiness::default();
    let configured = readiness.gate("configuration");
    let enrolled = readiness.gate("pods on record");
    let metrics = Arc::new(NodeMetrics::new(log.dropped_lines()));
    let endpoints = Endpoints::bind(&args)?;
    let api_socket = ApiSocket::bind(&args.run_dir)?;

    let options = ProxyOptions { same_node_encryption: args.same_node_encryption };
    let node = Arc::new(Node::new(options, metrics.clone()));
    let network = Network(args.network.as_str().into());
    let config = WatchedConfig::start(args.local_config.clone(), network, node.clone())?;
    configured.open();

    let identities = identities(&args)?;
    let control = control(&args, &node, identities.clone())?;
    tracing::info!(node = args.node_name, "started");

    let dump = || json!({ "node": args.node_name, "certificates": certificates(&identities) });
    tokio::select! {
        never = serve_metrics(&endpoints.metrics, &metrics) => never,
        never = serve_readiness(&endpoints.readiness, &readiness, &metrics) => never,
        never = serve_admin(&endpoints.admin, dump, &metrics) => never,
        never = api::serve(&api_socket, &control, &metrics) => never,
        () = control.restore(&enrolled) => {}
        () = control.release_vanished() => {}
        () = config.follow() => {}
        signal = terminated() => tracing::info!(signal = signal?, "draining"),
    }
    enrolled.close();
    let at_exit = if args.keep_capture { AtExit::KeepPinned } else { AtExit::Remove };
    tokio::select! {
        never = serve_metrics(&endpoints.metrics, &metrics) => never,
        never = serve_readiness(&endpoints.readiness, &readiness, &metrics) => never,
        () = control.shut_down(at_exit, args.drain_timeout) => tracing::info!("stopped"),
    }
    Ok(())
}

fn identities(args: &RunArgs) -> anyhow::Result<IdentityStore> {
    let ca = LocalCa::open_or_create(&args.local_ca, &args.trust_domain)?;
    let clock = Clock::system();
    let authority = LocalAuthority { ca: Arc::new(ca), ttl: args.svid_ttl, clock: clock.clone() };
    let runtime = tokio::runtime::Handle::current();
    Ok(IdentityStore::new(Arc::new(authority), clock, runtime))
}

fn control(args: &RunArgs, node: &Arc<Node>, identities: IdentityStore) -> anyhow::Result<Control> {
    let cgroup = args.cgroup_root.clone().or_else(check::cgroup_root);
    check::ensure(cgroup.as_deref())?;
    let cgroup: PathBuf = cgroup.context("no cgroup v2 tree")?;
    check::ensure_bpf_fs(&args.bpf_dir)
        .with_context(|| format!("cannot use {} for pins", args.bpf_dir.display()))?;
    let programs = Programs::load(&args.bpf_dir, &cgroup)?;
    let count = args.workers.or_else(|| std::thread::available_parallelism().ok());
    let workers = Workers::start(node, count.map_or(1, NonZeroUsize::get))?;
    let trust_domain = args.trust_domain.clone();
    let parts = Parts { programs, node: node.clone(), workers, identities, trust_domain };
    Control::new(parts, &args.run_dir)
        .with_context(|| format!("cannot keep records in {}", args.run_dir.display()))
}

async fn terminated() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Certificates for the admin output: never a key.
fn certificates(identities: &IdentityStore) -> serde_json::Value {
    let seconds = |t: std::time::SystemTime| {
        t.duration_since(std::time::UNIX_EPOCH).map_or(0, |d: Duration| d.as_secs())
    };
    identities
        .certificates()
        .into_iter()
        .map(|certificate| {
            json!({
                "identity": certificate.identity.to_string(),
                "serialNumber": certificate.serial,
                "validFrom": certificate.validity.map(|v| seconds(v.not_before)),
                "expirationTime": certificate.validity.map(|v| seconds(v.not_after)),
                "lastError": certificate.last_error,
            })
        })
        .collect()
}

/// Each connection costs two descriptors or more; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

// === impl Endpoints ===

impl Endpoints {
    fn bind(args: &RunArgs) -> anyhow::Result<Self> {
        let bind = |option: &str, address: SocketAddr| {
            listen(address).with_context(|| {
                format!("cannot listen on {address}: is another process there? See {option}")
            })
        };
        Ok(Self {
            metrics: bind("--metrics-address", args.metrics_address)?,
            readiness: bind("--readiness-address", args.readiness_address)?,
            admin: bind("--admin-address", args.admin_address)?,
        })
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(ENDPOINT_BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}
