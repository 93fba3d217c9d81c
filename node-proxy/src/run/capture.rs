//! The capture half as a process.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fairlead_component::logging::{self, Guard, Levels};
use fairlead_node::{
    api::{self, ApiSocket, PassedConnections},
    capture::{
        check,
        control::{AtExit, Control, Parts},
        handover::{HandoverError, HandoverSocket, Heirlooms, Inheritance, hand_over, take_over},
        kubelet::KubeletCgroup,
        processes::Processes,
        programs::Programs,
        proxies::{Arrival, Arrivals, Greeted, greet},
    },
    cli::RunArgs,
    link::{
        listeners::{EndpointListeners, PodListeners},
        message::PodId,
    },
    supervise::control::Superior,
};
use fairlead_sys::socket::{listens, netns_cookie, probe};
use socket2::{Domain, Socket, Type};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Links, Termination, links_of_supervisor, raise_descriptor_limit};
use crate::on_this_thread;

/// Connections that wait to be accepted by an operator's endpoint.
const ENDPOINT_BACKLOG: i32 = 128;

/// Time that a proxy gets to say that it is there already, and what it holds. One that is just
/// starting is quicker; without one, pods are enrolled and their connections wait for it.
const FIRST_PROXY_WAIT: Duration = Duration::from_secs(1);

/// Times that a predecessor is asked again when the hand-over broke off.
const PREDECESSOR_TRIES: u32 = 20;

/// Pause before a predecessor is asked again.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(50);

/// Proxies that may wait to be served.
const GREETED_QUEUE: usize = 8;

/// What this process works with.
struct Own {
    api: ApiSocket,
    programs: Programs,
    kubelet: KubeletCgroup,
    left: Left,
}

/// Why this half serves no more.
enum Ended {
    /// A successor has everything.
    HandedOver,
    /// A signal has come.
    Asked(&'static str),
}

/// What a predecessor has left.
#[derive(Default)]
struct Left {
    endpoints: Option<EndpointListeners>,
    pods: HashMap<PodId, PodListeners>,
    proxies: Vec<OwnedFd>,
}

/// Runs this half until SIGTERM, SIGINT, or until a successor has taken over.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    raise_descriptor_limit();
    let log = logging::init(args.log_format, &args.log_level)?;
    on_this_thread(async {
        let termination = Termination::catch()?;
        serve(args, links_of_supervisor(log.levels())?, &log, termination).await
    })
}

/// Captures pods and gives them to the proxies at the other ends of `links`.
pub(super) async fn serve(
    args: &RunArgs,
    Links { halves, agents, superior }: Links,
    log: &Guard,
    mut termination: Termination,
) -> Result<()> {
    let own = tokio::select! {
        own = Own::of(args) => own?,
        // A predecessor goes on, and gets the signal as well.
        signal = termination.asked() => {
            tracing::info!(signal, "stopped before the start");
            return Ok(());
        }
    };
    let Own { api, programs, kubelet, left } = own;
    let handover = HandoverSocket::bind(&args.run_dir)?;
    let (send, mut greeted) = mpsc::channel(GREETED_QUEUE);
    let arrivals = Arrivals::default();
    for link in left.proxies {
        greet_proxy(link, arrivals.arrive(), send.clone());
    }
    let supervised = greet_all(halves, &arrivals, send);
    tokio::pin!(supervised);
    let mut first = tokio::select! {
        first = timeout(FIRST_PROXY_WAIT, greeted.recv()) => first.ok().flatten(),
        () = &mut supervised => bail!("the supervisor is gone"),
    };
    let held = first.as_mut().and_then(|proxy| proxy.endpoints.take());
    let others = (arrivals.clone(), superior, log.levels());
    let parts = parts(args, programs, others, (left.endpoints, left.pods), held)?;
    let control = Control::new(parts, &args.run_dir)
        .with_context(|| format!("cannot keep records in {}", args.run_dir.display()))?;
    tracing::info!(node = args.node_name, "capture started");
    let agents = PassedConnections::new(agents);
    let work = async {
        tokio::join!(
            serve_proxies(&control, first, greeted),
            control.restore(),
            control.release_vanished(),
            control.forget_unknown(),
            control.follow_kubelet(&kubelet),
            control.report_counts(),
            control.rule_datagrams(),
        );
    };
    let ended = tokio::select! {
        () = work => bail!("capture has nothing more to do"),
        () = &mut supervised => bail!("the supervisor is gone"),
        ended = serve_others((&api, &agents), &control, &handover, &mut termination) => ended,
    };
    match ended {
        Ended::HandedOver => {
            api.leave();
            handover.leave();
            tracing::info!("a successor has taken over");
        }
        Ended::Asked(signal) => {
            tracing::info!(signal, "draining");
            let at_exit = if args.keep_capture { AtExit::KeepPinned } else { AtExit::Remove };
            control.shut_down(at_exit).await;
            tracing::info!("stopped");
        }
    }
    Ok(())
}

/// Returns what control works with.
fn parts(
    args: &RunArgs,
    programs: Programs,
    (arrivals, superior, levels): (Arrivals, Superior, Levels),
    (endpoints_left, left): (Option<EndpointListeners>, HashMap<PodId, PodListeners>),
    held: Option<EndpointListeners>,
) -> Result<Parts> {
    let datagrams = args.datagrams.rules();
    let (proc_dir, netns_dir) = (&args.enrolment.proc_dir, &args.enrolment.netns_dir);
    Ok(Parts {
        programs,
        endpoints: endpoints_left.map_or_else(|| endpoints(args, held), Ok)?,
        left,
        arrivals,
        datagrams,
        enrol: args.enrolment.enrol,
        processes: Processes::in_dirs(proc_dir.clone(), netns_dir.clone()),
        trust_domain: args.trust_domain.clone(),
        drain_timeout: args.drain_timeout,
        superior,
        levels,
    })
}

/// Serves the API, to operators and to the agent, and successors. A signal waits for the end of a hand-over that has begun.
async fn serve_others(
    (api, agents): (&ApiSocket, &PassedConnections),
    control: &Control,
    handover: &HandoverSocket,
    termination: &mut Termination,
) -> Ended {
    let heirlooms = Heirlooms { run_lock: api.lock(), api: api.as_fd() };
    // Nothing is changed while everything is handed over.
    let serving = async {
        tokio::select! {
            never = api::serve(api, control) => never,
            never = api::serve_agent(agents, control) => never,
        }
    };
    tokio::pin!(serving);
    loop {
        let successor = tokio::select! {
            never = &mut serving => never,
            successor = handover.successor() => successor,
            signal = termination.asked() => return Ended::Asked(signal),
        };
        match hand_over(control, successor, heirlooms).await {
            Ok(()) => return Ended::HandedOver,
            Err(error) => tracing::error!(%error, "going on: nothing was handed over"),
        }
    }
}

// === impl Own ===

impl Own {
    /// Makes the run directory and the BPF directory this process's own; takes them over from a
    /// predecessor that runs.
    async fn of(args: &RunArgs) -> Result<Self> {
        let cgroup = args.cgroup_root.clone().or_else(check::cgroup_root);
        check::ensure(cgroup.as_deref())?;
        let cgroup: PathBuf = cgroup.context("no cgroup v2 tree")?;
        check::ensure_bpf_fs(&args.bpf_dir)
            .with_context(|| format!("cannot use {} for pins", args.bpf_dir.display()))?;
        let kubelet = KubeletCgroup::below(&cgroup, args.probes.kubelet_cgroup.as_deref());
        let Some(inherited) = inherit(args).await? else {
            let api = ApiSocket::bind(&args.run_dir)?;
            let mut programs = Programs::load(&args.bpf_dir, &cgroup, None)?;
            programs.set_probe_sources(&args.probes.probe_sources)?;
            return Ok(Self { api, programs, kubelet, left: Left::default() });
        };
        let Inheritance { predecessor, bpf_lock, run_lock, api, endpoints: left, pods, proxies } =
            inherited;
        // What may fail comes first: then the predecessor goes on.
        let endpoints = endpoints(args, Some(left))?;
        let mut programs = Programs::load(&args.bpf_dir, &cgroup, Some(bpf_lock))?;
        programs.set_probe_sources(&args.probes.probe_sources)?;
        predecessor.end().await?;
        let api = ApiSocket::inherit(&args.run_dir, api, run_lock)?;
        tracing::info!(pods = pods.len(), proxies = proxies.len(), "taken over from a predecessor");
        let left = Left { endpoints: Some(endpoints), pods, proxies };
        Ok(Self { api, programs, kubelet, left })
    }
}

/// Takes over from a predecessor, if one runs.
async fn inherit(args: &RunArgs) -> Result<Option<Inheritance>, HandoverError> {
    let mut tries = 0..PREDECESSOR_TRIES;
    loop {
        match take_over(&args.run_dir).await {
            // It was killed, and the kernel is still closing its sockets; or it is about to end.
            Err(HandoverError::Gone | HandoverError::Channel(_)) if tries.next().is_some() => {
                sleep(PREDECESSOR_PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Greets the proxies that the supervisor links; ends when it is gone.
async fn greet_all(
    mut links: mpsc::Receiver<OwnedFd>,
    arrivals: &Arrivals,
    greeted: mpsc::Sender<Greeted>,
) {
    while let Some(link) = links.recv().await {
        greet_proxy(link, arrivals.arrive(), greeted.clone());
    }
}

fn greet_proxy(link: OwnedFd, arrival: Arrival, greeted: mpsc::Sender<Greeted>) {
    tokio::spawn(async move {
        match greet(link, arrival).await {
            // If nobody wants it any more this process ends.
            Ok(proxy) => drop(greeted.send(proxy).await),
            Err(error) => tracing::warn!(%error, "cannot serve a proxy"),
        }
    });
}

/// Never returns.
async fn serve_proxies(
    control: &Control,
    first: Option<Greeted>,
    mut greeted: mpsc::Receiver<Greeted>,
) {
    let mut next = first;
    loop {
        if let Some(proxy) = next {
            let control = control.clone();
            tokio::spawn(async move { control.serve_proxy(proxy).await });
        }
        next = greeted.recv().await;
    }
}

/// Returns the listening sockets for operators: those that are left, where the addresses are the
/// same, and others where not. A predecessor in another container has addresses of its own.
fn endpoints(args: &RunArgs, left: Option<EndpointListeners>) -> Result<EndpointListeners> {
    let own = netns_cookie(&probe()?)?;
    let (metrics, readiness, admin) =
        left.map_or((None, None, None), |l| (Some(l.metrics), Some(l.readiness), Some(l.admin)));
    let listen = |option: &str, address: SocketAddr, left: Option<TcpListener>| {
        let usable = left.filter(|left| {
            left.local_addr().is_ok_and(|known| known == address)
                && listens(left, own, address.port()).unwrap_or(false)
        });
        usable.map_or_else(|| listen(address), Ok).with_context(|| {
            format!("cannot listen on {address}: is another process there? See {option}")
        })
    };
    Ok(EndpointListeners {
        metrics: listen("--metrics-address", args.metrics_address, metrics)?,
        readiness: listen("--readiness-address", args.readiness_address, readiness)?,
        admin: listen("--admin-address", args.admin_address, admin)?,
    })
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
    Ok(socket.into())
}
