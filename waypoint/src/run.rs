//! `fairlead-waypoint run`: one thread that follows the mesh, and those that serve.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::TcpListener as StdListener,
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use fairlead_component::{
    clock::Clock,
    logging::{self, Guard},
    readiness::Readiness,
};
use fairlead_tunnel::{
    identity::{IdentityStore, RemoteAuthority},
    revocation_file::RevocationFile,
    tls::Revocations,
};
use fairlead_waypoint::{
    cli::RunArgs,
    discovery::{self, Discovery},
    mesh::{Snapshot, subscriptions},
    policy::GatewayKey,
    proxy::{
        clients::Clients,
        worker::{self, Shared},
    },
    telemetry::{AccessLog, Metrics},
};
use mesh_api::{
    control_plane::ControlPlane,
    identity::Identity,
    workload::{
        Health, Locality, Network, NetworkMode, NodeName, TunnelProtocol, Workload, WorkloadType,
        WorkloadUid,
    },
    xds_client::{self, Introduction, Role, Session, introduce},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::{interval, timeout},
};

use crate::pages::Pages;

/// Connections that the kernel holds for a listener before they are accepted.
const LISTEN_BACKLOG: i32 = 4096;

/// Pause between two looks at which endpoints may be used again; outlier detection has seconds.
const TICK: Duration = Duration::from_millis(500);

/// Serves until SIGTERM or SIGINT, and then until open connections have ended.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let log = logging::init(args.log_format, &args.log_level)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(args, &log));
    // A name that is being looked up is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(args: &RunArgs, log: &Guard) -> Result<()> {
    let own = Identity {
        trust_domain: args.trust_domain.clone(),
        namespace: args.namespace().context("--pod-namespace (or POD_NAMESPACE)")?,
        service_account: args.service_account.clone(),
    };
    let Some(address) = &args.control_plane.xds_address else {
        bail!("nothing says what the mesh is: give --xds-address URL (or XDS_ADDRESS)");
    };
    let plane = args.control_plane.xds(address);
    let ca = args.control_plane.ca(args.control_plane.ca_address.as_ref().unwrap_or(address));
    let (revocations, revoked) = revocations(args)?;
    let authority = Arc::new(RemoteAuthority::own(ca, args.svid_ttl, Clock::system()));
    let identities = IdentityStore::new(authority, Clock::system(), revocations, Handle::current());
    let gateway =
        GatewayKey { namespace: own.namespace.clone(), name: args.gateway.as_str().into() };
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::empty(own_workload(args, &own), gateway.clone())),
        identity: identities.acquire(&own),
        gateway: gateway.to_string().into(),
        metrics: Metrics::new(log.dropped_lines()),
        access_log: AccessLog::new(args.log_format),
        patience: args.patience(),
        clients: Clients::new(args.max_peer_tunnels, args.max_peer_connections),
    });
    let readiness = Readiness::default();
    let (known, certified) = (readiness.gate("configuration"), readiness.gate("certificate"));
    let draining_gate = readiness.gate("not draining");
    draining_gate.open();
    let quit = Arc::<Notify>::default();
    let pages = Pages { args, shared: &shared, identities: &identities, readiness: &readiness }
        .serve(log.levels(), quit.clone())
        .await?;
    let discovery = Discovery::new(shared.clone(), identities.clone(), known);
    let configured = discovery.configured();
    let serving = async {
        // Nobody is served before it is known what for, and in whose name.
        let mut configured = configured;
        configured.wait_for(|configured| *configured).await?;
        shared.identity.wait_ready().await;
        certified.open();
        let threads = Threads::start(args, &shared)?;
        tracing::info!(address = %args.address, gateway = %shared.gateway, "waypoint serves");
        asked(&quit).await?;
        draining_gate.close();
        threads.end(args.drain_timeout).await;
        Ok(())
    };
    tokio::select! {
        ended = serving => ended,
        ended = follow(args, plane, &gateway, discovery) => ended,
        ended = pages => ended,
        never = tick(&shared) => never,
        () = follow_revocations(revoked) => bail!("the revocation lists are no longer watched"),
    }
}

/// Returns this waypoint as far as it knows itself: the control plane knows more.
fn own_workload(args: &RunArgs, identity: &Identity) -> Workload {
    let own = &args.control_plane;
    let name: Arc<str> = own.pod_name.as_ref().unwrap_or(&args.gateway).as_str().into();
    Workload {
        uid: WorkloadUid(format!("{}//Pod/{}/{name}", own.cluster_id, identity.namespace).into()),
        name,
        identity: identity.clone(),
        addresses: own.instance_ip.into_iter().collect(),
        hostname: None,
        network: Network(args.network.as_str().into()),
        network_gateway: None,
        tunnel_protocol: TunnelProtocol::Hbone,
        node: NodeName(args.node_name.as_str().into()),
        workload_name: args.gateway.as_str().into(),
        workload_type: WorkloadType::Deployment,
        canonical_name: args.gateway.as_str().into(),
        canonical_revision: "latest".into(),
        cluster_id: own.cluster_id.as_str().into(),
        locality: Locality::default(),
        services: BTreeMap::new(),
        waypoint: None,
        authorization_policies: Vec::new(),
        health: Health::Healthy,
        network_mode: NetworkMode::Standard,
        application_tunnel: None,
        unknown_destinations: None,
        capacity: 1,
    }
}

/// Has endpoints that were set aside used again once their time is over.
async fn tick(shared: &Shared) -> Result<()> {
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        shared.snapshot.load().tick(Instant::now());
    }
}

/// Applies what the control plane says. Never returns without an error.
async fn follow(
    args: &RunArgs,
    plane: ControlPlane,
    gateway: &GatewayKey,
    discovery: Discovery,
) -> Result<()> {
    let own = &args.control_plane;
    let introduction = Introduction {
        role: Role::Waypoint,
        node_name: NodeName(args.node_name.as_str().into()),
        pod_name: own.pod_name.clone().unwrap_or_else(|| args.gateway.clone()),
        pod_namespace: own.pod_namespace.clone(),
        address: own.instance_ip,
        cluster_id: own.cluster_id.clone(),
        network: Network(args.network.as_str().into()),
    };
    let session = Session::new(introduce(&introduction), subscriptions(gateway));
    let (send, events) = mpsc::channel(discovery::EVENT_QUEUE);
    tokio::join!(xds_client::run(plane, session, send), discovery.follow(events));
    bail!("the control plane is no longer followed")
}

/// Waits until somebody asks that this ends.
async fn asked(quit: &Notify) -> Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = quit.notified() => {}
    }
    Ok(())
}

fn revocations(args: &RunArgs) -> Result<(Revocations, Option<RevocationFile>)> {
    let revocations = Revocations::none();
    let file = args.crl_file.as_deref();
    let file = file.map(|file| RevocationFile::start(file, revocations.clone()));
    Ok((revocations, file.transpose()?))
}

async fn follow_revocations(file: Option<RevocationFile>) {
    match file {
        Some(file) => file.follow().await,
        None => std::future::pending().await,
    }
}

/// The threads that serve.
struct Threads {
    drain: watch::Sender<bool>,
    /// Closed once all have ended.
    running: mpsc::Receiver<Infallible>,
}

// === impl Threads ===

impl Threads {
    fn start(args: &RunArgs, shared: &Arc<Shared>) -> Result<Self> {
        let count = args.workers.or_else(|| thread::available_parallelism().ok());
        let (drain, draining) = watch::channel(false);
        let (run, running) = mpsc::channel(1);
        for number in 0..count.map_or(1, NonZeroUsize::get) {
            let listener =
                listener(args).with_context(|| format!("cannot listen on {}", args.address))?;
            let (shared, draining, run) = (shared.clone(), draining.clone(), run.clone());
            let name = format!("worker-{number}");
            let serve = move || {
                let _run = run;
                if let Err(error) = worker::run(shared, listener, draining) {
                    tracing::error!(%error, "a thread cannot serve");
                }
            };
            thread::Builder::new().name(name).spawn(serve)?;
        }
        Ok(Self { drain, running })
    }

    /// Lets open connections finish, at most for `grace`.
    async fn end(mut self, grace: Duration) {
        tracing::info!("draining");
        self.drain.send_replace(true);
        if timeout(grace, self.running.recv()).await.is_err() {
            tracing::warn!("the drain period is over; ending the connections still open");
        }
        tracing::info!("drained");
    }
}

/// Makes a listener of its own for a thread: the kernel spreads connections over them.
fn listener(args: &RunArgs) -> Result<StdListener> {
    let socket = Socket::new(Domain::for_address(args.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if args.address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&args.address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}
