//! The proxy half as a process.

use std::{
    future::Future,
    net::IpAddr,
    num::NonZeroUsize,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use fairlead_component::{
    clock::Clock,
    logging::{self, Guard},
};
use fairlead_node::{
    cli::{Certificates, RunArgs, Sources},
    proxy::{
        intake::{Drain, Intake, Parts},
        node::{Node, ProxyOptions},
        resolver::Resolver,
        worker::Workers,
    },
    resolv_conf::name_servers,
    state::{OutboundPolicy, WithoutWaypoint},
    telemetry::{
        metrics::{NodeMetrics, Process},
        readiness::Readiness,
    },
};
use fairlead_sys::memory;
use fairlead_tunnel::{
    identity::{CertificateAuthority, IdentityStore, LocalAuthority, LocalCa, RemoteAuthority},
    revocation_file::RevocationFile,
    tls::Revocations,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::timeout,
};

use super::{
    Termination,
    configuration::Follower,
    confine::{confine, resolved},
    links_of_supervisor,
    pages::Pages,
    raise_descriptor_limit,
};
use crate::on_this_thread;

/// Where this process is told of its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What has to be opened before the process confines itself.
pub(super) struct Opened {
    sources: Sources,
    crl_file: Option<PathBuf>,
    authority: Arc<dyn CertificateAuthority>,
    name_servers: Vec<IpAddr>,
    workers: usize,
    process: Process,
}

/// Runs this half until it has drained.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    raise_descriptor_limit();
    memory::keep_buffers();
    let opened = Opened::of(args)?;
    let files = opened.sources.files();
    let names = opened.sources.has_control_plane();
    confine(args.proxy_user, &files, opened.crl_file.as_deref(), names)?;
    let log = logging::init(args.log_format, &args.log_level)?;
    on_this_thread(async {
        let mut termination = Termination::catch()?;
        let links = links_of_supervisor(log.levels())?.halves;
        let asked = async {
            termination.asked().await;
        };
        serve(args, opened, &log, links, asked).await
    })
}

// === impl Opened ===

impl Opened {
    pub(super) fn of(args: &RunArgs) -> Result<Self> {
        let mut sources = Sources::of(args)?;
        sources.map_files(resolved)?;
        let crl_file = args.crl_file.as_deref().map(resolved).transpose()?;
        let (clock, ttl) = (Clock::system(), sources.svid_ttl);
        let authority: Arc<dyn CertificateAuthority> = match &sources.certificates {
            Certificates::Local(dir) => {
                let ca = Arc::new(LocalCa::open_or_create(dir, &args.trust_domain)?);
                Arc::new(LocalAuthority { ca, ttl, clock })
            }
            Certificates::ControlPlane(control_plane) => {
                Arc::new(RemoteAuthority::new(*control_plane.clone(), ttl, clock))
            }
        };
        let workers = args.workers.or_else(|| std::thread::available_parallelism().ok());
        let workers = workers.map_or(1, NonZeroUsize::get);
        let name_servers = match &*args.datagrams.name_servers {
            // A node without the file has none.
            [] => name_servers(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
            given => given.to_vec(),
        };
        let process = Process::open()?;
        Ok(Self { sources, crl_file, authority, name_servers, workers, process })
    }
}

/// Serves the pods that come by `links` until capture wants it to end, or `asked` completes.
pub(super) async fn serve(
    args: &RunArgs,
    Opened { sources, crl_file, authority, name_servers, workers, process }: Opened,
    log: &Guard,
    links: mpsc::Receiver<OwnedFd>,
    asked: impl Future<Output = ()>,
) -> Result<()> {
    let readiness = Readiness::default();
    let known = readiness.gate("configuration");
    let recorded = readiness.gate("pods on record");
    let draining = readiness.gate("not draining");
    let node = Arc::new(Node::new(options(args, name_servers), Arc::new(metrics(log, process))));
    let (revocations, revoked) = revocations(crl_file.as_deref())?;
    let identities = IdentityStore::new(authority, Clock::system(), revocations, Handle::current());
    let (follower, configured) =
        Follower::start(args, sources.configuration, (&node, &identities), known)?;
    draining.open();
    let workers = Arc::new(Workers::start(&node, workers)?);
    let resolver = Arc::new(Resolver::start(&node)?);
    let ((endpoints, given), (drain, mut drains)) = (mpsc::channel(1), mpsc::channel(1));
    let quit = Arc::<Notify>::default();
    let parts = Parts {
        node: node.clone(),
        configured,
        workers: workers.clone(),
        resolver: resolver.clone(),
        identities: identities.clone(),
        trust_domain: args.trust_domain.clone(),
        recorded,
        endpoints,
        quit: quit.clone(),
        drain,
    };
    let pages = Pages {
        node_name: &args.node_name,
        readiness: &readiness,
        node: &node,
        workers: &workers,
        identities: &identities,
        levels: log.levels(),
        quit,
    }
    .serve(given);
    tracing::info!(node = args.node_name, "proxy started");

    let intake = Intake::run(parts, links);
    let work = async {
        tokio::select! {
            served = intake => served.map_err(Into::into),
            ended = follower.follow() => ended,
            () = follow(revoked) => bail!("the revocation lists are no longer watched"),
        }
    };
    tokio::pin!(work, pages);
    let drain = tokio::select! {
        worked = &mut work => return worked.and_then(|()| bail!("the supervisor is gone")),
        served = &mut pages => return served,
        Some(drain) = drains.recv() => drain,
        () = asked => Drain { grace: args.drain_timeout, succeeded: false },
    };
    draining.close();
    tokio::select! {
        worked = &mut work => worked.and_then(|()| bail!("the supervisor is gone")),
        // A successor serves them.
        served = &mut pages, if !drain.succeeded => served,
        () = end(&node, (&workers, &resolver), drain.grace) => Ok(()),
    }
}

fn metrics(log: &Guard, process: Process) -> NodeMetrics {
    let mut metrics = NodeMetrics::new(log.dropped_lines());
    metrics.show_process(process);
    metrics.runtimes.add("main", Handle::current().metrics());
    metrics
}

/// Returns what is revoked, and what follows the lists of it.
fn revocations(crl_file: Option<&Path>) -> Result<(Revocations, Option<RevocationFile>)> {
    let revocations = Revocations::none();
    let file = crl_file.map(|file| RevocationFile::start(file, revocations.clone()));
    Ok((revocations, file.transpose()?))
}

/// Applies every further version of the revocation lists. Never returns.
async fn follow(file: Option<RevocationFile>) {
    match file {
        Some(file) => file.follow().await,
        None => std::future::pending().await,
    }
}

/// Lets open connections finish, at most for `grace`.
async fn end(node: &Node, (workers, resolver): (&Workers, &Resolver), grace: Duration) {
    tracing::info!(open = node.connections.open(), "draining");
    workers.drain().await;
    resolver.drain().await;
    if timeout(grace, node.wait_until_idle()).await.is_err() {
        let open = node.connections.open();
        tracing::warn!(open, "the drain period is over; ending the connections still open");
    }
    workers.stop().await;
    tracing::info!("drained");
}

fn options(args: &RunArgs, name_servers: Vec<IpAddr>) -> ProxyOptions {
    ProxyOptions {
        access_log_sample: args.access_log_sample,
        idle_timeout: args.idle_timeout,
        max_pod_connections: args.max_pod_connections,
        max_peer_connections: args.max_peer_connections,
        max_peer_tunnels: args.max_peer_tunnels,
        same_node_encryption: args.same_node_encryption,
        outbound: OutboundPolicy {
            without_waypoint: if args.waypoint_fallback {
                WithoutWaypoint::GoDirectly
            } else {
                WithoutWaypoint::Refuse
            },
            unknown: args.outbound_policy.into(),
        },
        naming: args.datagrams.naming(),
        name_servers,
    }
}
