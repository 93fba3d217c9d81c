//! The command line.

mod datagrams;
mod enrol;
mod probes;
mod profile;
mod sources;

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fairlead_component::logging::LogFormat;
use mesh_api::{
    control_plane::ControlPlaneArgs,
    identity::{Namespace, ServiceAccount, TrustDomain},
    workload::UnknownDestinations,
};
use nix::unistd::{Gid, Uid};

pub use self::{
    datagrams::DatagramArgs,
    enrol::{Authority, Enrol, EnrolArgs, EnrolError},
    probes::ProbeArgs,
    profile::{ProfileArgs, ProfileFormat, ProfileKind},
    sources::{Certificates, Configuration, Sources, SourcesError},
};
use crate::{
    api::{PodKey, PodName},
    limits::{DEFAULT_MAX_PEER_CONNECTIONS, DEFAULT_MAX_PEER_TUNNELS, DEFAULT_MAX_POD_CONNECTIONS},
};

/// Fairlead's node proxy: captures the traffic of enrolled pods and carries it over mutual TLS.
///
/// One process serves all pods of a node. Run it once a node, then enrol pods; their connections
/// are captured, encrypted and checked from then on, without a restart of the pods.
#[derive(Debug, Parser)]
#[command(name = "fairlead-node", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node until SIGTERM.
    ///
    /// Example with a control plane: fairlead-node run --node-name n1 --xds-address
    /// istiod.istio-system.svc:15012
    ///
    /// Example without one: fairlead-node run --node-name n1 --local-config mesh.yaml --local-ca
    /// /etc/fairlead/ca
    ///
    /// Two processes do the work, which this one supervises: capture holds all privileges and reads
    /// nothing that comes from the network; the proxy holds none. A third one, as unprivileged,
    /// follows the cluster or the control plane if --enrol says that it decides what is enrolled. If another fairlead-node serves
    /// the same run directory, this one takes over from it without refusing or ending a connection.
    Run(Box<RunArgs>),
    /// The privileged half; started by `run`.
    #[command(hide = true)]
    Capture(Box<RunArgs>),
    /// The half that has all the parsing; started by `run`.
    #[command(hide = true)]
    Proxy(Box<RunArgs>),
    /// What decides which pods are enrolled; started by `run`.
    #[command(hide = true)]
    Agent(Box<RunArgs>),
    /// Enrol pods in the mesh, release them, list them.
    #[command(subcommand)]
    Pod(PodCommand),
    /// Say what becomes of a connection that a pod of this node makes, and why.
    ///
    /// Example: fairlead-node explain --from shop/cart-0 --to 10.96.0.10:80
    ///
    /// The running proxy answers, by the code that decides about connections: what the address
    /// stands for, the waypoint, the endpoints that there are to choose from, what is tried, and
    /// what the other side will check. Nothing is sent to the destination.
    Explain(ExplainArgs),
    /// Say what the running node proxy logs, or change it in all of its processes.
    ///
    /// Example: `fairlead-node log-level info,fairlead_tunnel=debug`
    ///
    /// Processes that are started later, as after a crash, log the same. The admin page changes what
    /// the proxy process alone logs.
    LogLevel(LogLevelArgs),
    /// Say what the running proxy spends its time on, or its memory.
    ///
    /// Example: fairlead-node profile cpu --seconds 30 --output cpu.pb.gz && go tool pprof -top
    /// cpu.pb.gz
    ///
    /// Capture looks at the proxy from outside, by BPF programs that are loaded for the time of the
    /// profile; one is taken at a time. The functions are those of the symbol table: what the compiler
    /// has put into another function counts as that one. Stacks are whole in builds that keep frame
    /// pointers, as `cargo xtask build --release` does; in others and in the C library they have gaps.
    Profile(ProfileArgs),
    /// Say what this node's kernel offers of what capture needs. Fails if something is missing.
    Check(CheckArgs),
}

/// Options of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, as they are written")]
pub struct RunArgs {
    /// Name of this node, as workloads name it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Configuration file with workloads, services and policies. Changes are applied at once; a
    /// broken version is reported and the last good one stays.
    #[arg(long, value_name = "FILE")]
    pub local_config: Option<PathBuf>,
    /// Directory of the embedded certificate authority; its root is created if the directory holds
    /// none. All nodes of a mesh use the same root.
    #[arg(long, value_name = "DIR")]
    pub local_ca: Option<PathBuf>,
    /// Lifetime of workload certificates, such as 3600 (seconds), 90m or 24h. They are renewed at
    /// half of it [default: 1h with --local-ca, else 24h].
    #[arg(long, value_name = "TIME", env = "SECRET_TTL", value_parser = lifetime)]
    pub svid_ttl: Option<Duration>,
    /// Trust domain of this mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// File with revocation lists, PEM or DER. Changes are applied at once, to open connections too;
    /// a broken version is reported and the last good one stays; without the file nothing is
    /// revoked. Its directory must exist.
    #[arg(long, value_name = "FILE", env = "CRL_PATH")]
    pub crl_file: Option<PathBuf>,
    /// Network that this node's addresses belong to.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// Directory for the control socket and the records of enrolments.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory on a BPF file system that keeps capture alive while the proxy is not. One a node.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/fairlead")]
    pub bpf_dir: PathBuf,
    /// Root of the cgroup v2 tree [default: found in /proc/self/mountinfo].
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Number of proxy threads [default: one a processor].
    #[arg(long, env = "PROXY_WORKER_THREADS")]
    pub workers: Option<std::num::NonZeroUsize>,
    /// Encrypt connections between pods of this node too, instead of passing them on directly
    /// after the same checks.
    #[arg(long, env = "FAIRLEAD_SAME_NODE_ENCRYPTION")]
    pub same_node_encryption: bool,
    /// Send connections past a waypoint that is not there, without what it would check. Otherwise
    /// they are refused.
    #[arg(long, env = "FAIRLEAD_WAYPOINT_FALLBACK")]
    pub waypoint_fallback: bool,
    /// Where pods may connect to: `allow-any`, anywhere, or `registry-only`, what the mesh knows:
    /// services, those of `ServiceEntry` objects among them, and workloads. Everything else is
    /// refused then. Where a control plane sends an `outboundTrafficPolicy.mode` of the mesh
    /// configuration, as Fairlead's does, that counts instead.
    #[arg(long, value_enum, env = "FAIRLEAD_OUTBOUND_POLICY", default_value = "allow-any")]
    pub outbound_policy: Destinations,
    /// Address of the Prometheus metrics.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15020)))]
    pub metrics_address: SocketAddr,
    /// Address of the readiness probe, /healthz/ready.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15021)))]
    pub readiness_address: SocketAddr,
    /// Address of the admin interface, which explains itself at /. It has no access control, and
    /// who reaches it can end the node proxy: keep it on loopback.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000)))]
    pub admin_address: SocketAddr,
    /// Form of log lines.
    #[arg(long, value_enum, default_value = "plain")]
    pub log_format: LogFormat,
    /// What to log: a level, or a list such as `info,access=warn,fairlead_node=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
    /// Of so many connections that end well, write one into the access log; 1 writes all. Those that
    /// are refused or fail are always written, and the metrics count every one.
    #[arg(long, value_name = "N", env = "FAIRLEAD_ACCESS_LOG_SAMPLE", default_value = "1")]
    pub access_log_sample: std::num::NonZeroU32,
    /// End connections on which no byte has passed for so long, in seconds [default: never]. Peers
    /// that are gone are found by TCP keepalive and PING without it.
    #[arg(long, value_name = "SECONDS", env = "FAIRLEAD_IDLE_TIMEOUT", value_parser = seconds)]
    pub idle_timeout: Option<Duration>,
    /// Connections that a pod may have open through the proxy, those that it opens and those that come
    /// to it. One more is reset, or refused with status 503 in a tunnel, and the log says so: a pod
    /// that loses count of its connections takes no descriptors and memory from the others.
    #[arg(long, value_name = "N", env = "FAIRLEAD_MAX_POD_CONNECTIONS",
          default_value_t = DEFAULT_MAX_POD_CONNECTIONS)]
    pub max_pod_connections: std::num::NonZeroUsize,
    /// Connections from one address that a pod may have open: one client, or the pod of a gateway,
    /// leaves the others their part of --max-pod-connections. One more is refused likewise.
    #[arg(long, value_name = "N", env = "FAIRLEAD_MAX_PEER_CONNECTIONS",
          default_value_t = DEFAULT_MAX_PEER_CONNECTIONS)]
    pub max_peer_connections: std::num::NonZeroUsize,
    /// Tunnels from one address to the pods of this node. One more is reset before its handshake, and
    /// the log says so. A proxy carries a hundred connections or more in each. What comes through the
    /// gateway of another network has the address of the gateway, and a tunnel for each client there:
    /// with more of these than this, raise it.
    #[arg(long, value_name = "N", env = "FAIRLEAD_MAX_PEER_TUNNELS",
          default_value_t = DEFAULT_MAX_PEER_TUNNELS)]
    pub max_peer_tunnels: std::num::NonZeroUsize,
    /// User and group, as numbers, that the proxy process becomes. It needs to read the
    /// configuration, and nothing else.
    #[arg(long, value_name = "UID[:GID]", default_value = "65532", value_parser = user)]
    pub proxy_user: ProxyUser,
    /// Serve with one process, which holds all privileges. For development.
    #[arg(long)]
    pub single_process: bool,
    /// Time that open connections get to finish after SIGTERM or an upgrade, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Leave capture in the kernel at exit: connections of enrolled pods are refused until a
    /// successor runs. Without it everything is removed and pods go on without the mesh.
    #[arg(long)]
    pub keep_capture: bool,
    // Last: their headings would stand above what follows.
    /// The control plane, in place of the two.
    #[command(flatten)]
    pub control_plane: ControlPlaneArgs,
    /// Who decides which pods are in the mesh.
    #[command(flatten)]
    pub enrolment: EnrolArgs,
    /// What becomes of DNS queries and other datagrams.
    #[command(flatten)]
    pub datagrams: DatagramArgs,
    /// How probes of the kubelet are recognised.
    #[command(flatten)]
    pub probes: ProbeArgs,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Root of the cgroup v2 tree [default: found in /proc/self/mountinfo].
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// How probes of the kubelet are recognised.
    #[command(flatten)]
    pub probes: ProbeArgs,
}

/// What to do with pods.
#[derive(Debug, Subcommand)]
pub enum PodCommand {
    /// Enrol a running pod: its new connections are captured from now on. With --enrol control-plane
    /// the pod is registered: it is enrolled when the control plane says that it takes part.
    Add(PodAddArgs),
    /// Release a pod: its new connections are no longer captured, open ones go on.
    Remove(PodRemoveArgs),
    /// List the pods of this node: those that are enrolled, and those that could be and are not.
    List(PodListArgs),
}

/// Options of `pod add`.
#[derive(Debug, Args)]
pub struct PodAddArgs {
    /// Namespace of the pod.
    #[arg(long)]
    pub namespace: Namespace,
    /// Name of the pod.
    #[arg(long)]
    pub name: PodName,
    /// Service account that the pod runs as; with the namespace it makes the pod's identity.
    #[arg(long, default_value = "default")]
    pub service_account: ServiceAccount,
    /// Path of the pod's network namespace, such as /run/netns/NAME or /proc/PID/ns/net [default:
    /// that of the processes of the pod, which are found by --uid].
    #[arg(long, value_name = "PATH", required_unless_present = "uid")]
    pub netns: Option<PathBuf>,
    /// Unique id of the pod, as Kubernetes gave it [default: NAMESPACE/NAME].
    #[arg(long)]
    pub uid: Option<String>,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Options of `pod remove`.
#[derive(Debug, Args)]
pub struct PodRemoveArgs {
    /// The pod.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = pod_key)]
    pub pod: PodKey,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Options of `pod list`.
#[derive(Debug, Args)]
pub struct PodListArgs {
    /// Form of the list.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pod that makes the connection.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod_key)]
    pub from: PodKey,
    /// Where the connection goes, such as `10.96.0.10:80` or `[fd00::10]:80`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub to: SocketAddr,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Options of `log-level`.
#[derive(Debug, Args)]
pub struct LogLevelArgs {
    /// What to log from now on: a level, or target=level, or several of these with commas. Levels of
    /// other targets stay.
    #[arg(value_name = "LEVEL")]
    pub level: Option<String>,
    /// Return to what was logged at the start.
    #[arg(long, conflicts_with = "level")]
    pub reset: bool,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// Where pods may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Destinations {
    /// Anywhere.
    AllowAny,
    /// What the mesh knows.
    RegistryOnly,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Whom the proxy process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyUser {
    /// Its user id.
    pub user: Uid,
    /// Its group id.
    pub group: Gid,
}

const DEFAULT_RUN_DIR: &str = "/run/fairlead";

// === impl Destinations ===

impl From<Destinations> for UnknownDestinations {
    fn from(destinations: Destinations) -> Self {
        match destinations {
            Destinations::AllowAny => Self::Pass,
            Destinations::RegistryOnly => Self::Refuse,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number of seconds, at least 1".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last()),
        None => (text, None),
    };
    let seconds = match unit {
        Some('h') => 3600,
        Some('m') => 60,
        Some(_) | None => 1,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)) {
        None | Some(0) => Err("give a number of seconds, or one followed by s, m or h".to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

fn user(text: &str) -> Result<ProxyUser, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    match (user.parse(), group.parse()) {
        (Ok(user @ 1..), Ok(group @ 1..)) => {
            Ok(ProxyUser { user: Uid::from_raw(user), group: Gid::from_raw(group) })
        }
        _ => Err("give UID or UID:GID as numbers other than 0".to_owned()),
    }
}

fn pod_key(text: &str) -> Result<PodKey, String> {
    let (namespace, name) = text.split_once('/').ok_or("give NAMESPACE/NAME")?;
    Ok(PodKey {
        namespace: namespace.parse().map_err(|e| format!("{e}"))?,
        name: name.parse().map_err(|e| format!("{e}"))?,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pod_is_named_by_namespace_and_name() {
        assert_eq!(pod_key("shop/cart-0").unwrap().to_string(), "shop/cart-0");
        for bad in ["cart", "shop/", "/cart", "a/b/c", "a/B"] {
            assert!(pod_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_proxy_is_no_privileged_user() {
        let of = |user, group| ProxyUser { user: Uid::from_raw(user), group: Gid::from_raw(group) };
        assert_eq!(user("1337").unwrap(), of(1337, 1337));
        assert_eq!(user("1337:7").unwrap(), of(1337, 7));
        for bad in ["0", "1337:0", "0:7", "proxy", "", "1:2:3", "-1"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lifetime_has_a_unit_or_is_in_seconds() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300), ("24h", 86_400)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "0", "0h", "h", "1d", "-1", "1h30m", "99999999999999999999h"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_zero_is_refused() {
        assert!(seconds("0").is_err());
        assert!(seconds("1s").is_err());
        assert_eq!(seconds("90").unwrap(), Duration::from_secs(90));
    }
}
