//! The command line.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use fairlead_component::logging::LogFormat;
use mesh_api::identity::TrustDomain;

use crate::{
    auth::Account,
    ca::{AuthorityOptions, DEFAULT_CERTIFICATE_TTL, IssuePolicy, MAX_CERTIFICATE_TTL},
    cluster::{
        LeaseOptions, WaypointSettings,
        lease::{DEFAULT_LEASE_DURATION, MIN_LEASE_DURATION},
    },
    mesh::{AbsentWaypoint, Enrolment, Options},
    server::{
        ServerOptions,
        limits::{DEFAULT_DRAIN_TIME, DEFAULT_MAX_CONNECTION_AGE, DEFAULT_MAX_CONNECTIONS},
    },
    xds::{
        DebounceOptions,
        limits::{DEFAULT_MAX_CLIENTS, DEFAULT_MAX_RESPONSE_BYTES},
    },
};

/// Fairlead's control plane: tells node proxies what the mesh looks like, and certifies them.
///
/// It speaks Istio ambient's protocols on one port: delta discovery of workloads, services and L4
/// policies, and the certificate service. Clients verify it with the root in CA-DIR/root-cert.pem
/// and show a token, which decides what they may have certified.
///
/// The mesh is read from a directory (--config-dir, with --token-file) or from a Kubernetes cluster
/// (--kubernetes), which also says whose tokens are good.
#[derive(Debug, Parser)]
#[command(name = "fairlead-control", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do, if not to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do, if not to serve.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replace the root by a new one, without a connection that fails.
    ///
    /// The process that serves from the directory does it: it makes the new root known, signs with
    /// it when every workload has it, and forgets the old root when its last certificate has ended.
    /// With certificates of 24 hours that takes two days; the file CA-DIR/rotation says where it
    /// stands.
    RotateRoot {
        /// Directory of the certificate authority.
        #[arg(long, value_name = "CA-DIR", default_value = DEFAULT_CA_DIR)]
        ca_dir: PathBuf,
        /// Have the root in the cluster's Secret istio-ca-secret replaced, by the leading replica.
        #[arg(long, conflicts_with = "ca_dir")]
        kubernetes: bool,
        /// With --kubernetes: namespace of the control plane.
        #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
        system_namespace: String,
    },
}

/// Options of serving.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where the mesh is read from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Name of the cluster, part of the names of workloads.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Network of addresses that name none.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// Domain of the names of services.
    #[arg(long, env = "DOMAIN_SUFFIX", value_name = "NAME", default_value = "cluster.local")]
    pub domain: String,
    /// Namespace of the control plane: policies there apply to the whole mesh, and its config map
    /// `istio` is the mesh configuration.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = DEFAULT_NAMESPACE)]
    pub system_namespace: String,
    /// Let traffic pass directly where the waypoint that it is bound to is not there. Policies of
    /// the waypoint do not apply to it then.
    #[arg(long)]
    pub bypass_absent_waypoints: bool,
    /// Have pods behind waypoints, and pods of services behind waypoints, refuse what comes past
    /// these, so that the waypoint's policies cannot be evaded. The annotation
    /// fairlead.io/require-waypoint: "true" or "false" of a Gateway says so for one waypoint. A
    /// waypoint has to run as the service account of its Gateway's name, or as the one that the
    /// Gateway's annotation gateway.istio.io/service-account names.
    #[arg(long, env = "PILOT_AUTO_ALLOW_WAYPOINT_POLICY")]
    pub require_waypoints: bool,
    /// Directory of the certificate authority, with the file names of Istio: ca-cert.pem,
    /// ca-key.pem, root-cert.pem, and cert-chain.pem if the certificate is an intermediate. A root
    /// is made if there is none. Changes are taken up while running. With --config-dir the default
    /// is /etc/cacerts; with --kubernetes these files are keys of the Secret cacerts or, without it,
    /// istio-ca-secret in the control plane's namespace, unless a directory is given.
    #[arg(long, value_name = "CA-DIR")]
    pub ca_dir: Option<PathBuf>,
    /// File with the tokens of node proxies, one a line: TOKEN NODE NAMESPACE/SERVICE-ACCOUNT.
    /// Changes are taken up while running. Make a token with: openssl rand -hex 32. Needed with
    /// --config-dir.
    #[arg(long, value_name = "FILE", conflicts_with = "kubernetes")]
    pub token_file: Option<PathBuf>,
    /// With --kubernetes: whom the tokens of clients have to be meant for; may be repeated, or be a
    /// list with commas.
    #[arg(
        long = "token-audience",
        env = "TOKEN_AUDIENCES",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "istio-ca"
    )]
    pub token_audiences: Vec<String>,
    /// With --kubernetes: name of this replica. One replica leads and writes to the cluster; which,
    /// is in the lease fairlead-control of the control plane's namespace.
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "fairlead-control")]
    pub replica_name: String,
    /// With --kubernetes: time without a sign of the leader after which another replica leads, a
    /// second at least.
    #[arg(long, value_name = "TIME", default_value_t = Time(DEFAULT_LEASE_DURATION))]
    pub lease_duration: Time,
    /// Trust domain of the mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// Account of node proxies, which may ask for certificates of pods on their node; may be
    /// repeated, or be a list with commas.
    #[arg(
        long = "node-account",
        env = "CA_TRUSTED_NODE_ACCOUNTS",
        value_name = "NAMESPACE/NAME",
        value_delimiter = ',',
        default_value = "istio-system/ztunnel"
    )]
    pub node_accounts: Vec<Account>,
    /// Name or address that clients know this server by; may be repeated, or be a list with commas.
    #[arg(
        long = "service-name", value_name = "NAME", value_delimiter = ',',
        default_values = ["istiod.istio-system.svc", "localhost"]
    )]
    pub service_names: Vec<String>,
    /// Address that clients connect to.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15012)))]
    pub address: SocketAddr,
    /// Address of the admin interface: metrics, readiness, what clients were told; the page / lists
    /// what there is. It has no access control: keep it on loopback.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 15014)))]
    pub admin_address: SocketAddr,
    /// With --kubernetes: address that the API server sends objects to for validation, by HTTPS, at
    /// /validate.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15017)))]
    pub webhook_address: SocketAddr,
    /// With --kubernetes: name of the `ValidatingWebhookConfiguration` to which the leader adds the
    /// roots that the API server verifies this process with.
    #[arg(
        long,
        env = "VALIDATION_WEBHOOK_CONFIG_NAME",
        value_name = "NAME",
        default_value = "istio-validator-istio-system"
    )]
    pub webhook_configuration: String,
    /// What is done with copies of requests.
    #[command(flatten)]
    pub mirrors: MirrorArgs,
    /// With --kubernetes: container image of the waypoints that are made for gateways of the class
    /// istio-waypoint. They find the control plane by the first --service-name, at the port of
    /// --address.
    #[arg(long, env = "WAYPOINT_IMAGE", value_name = "IMAGE", default_value = "fairlead:latest")]
    pub waypoint_image: String,
    /// Provide a waypoint for namespaces with the label istio-injection=enabled that have virtual
    /// services, destination rules or routes of their services, and neither declare a waypoint nor
    /// name one. It is called auto-waypoint. With --kubernetes its gateway is made, and removed when
    /// it is needed no more; with --config-dir the namespace's services are bound to it while there
    /// is a pod with the label gateway.networking.k8s.io/gateway-name: auto-waypoint.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub auto_waypoints: bool,
    /// Lifetime of workload certificates whose owner wishes none.
    #[arg(
        long, env = "DEFAULT_WORKLOAD_CERT_TTL", value_name = "TIME", default_value_t = Time(DEFAULT_CERTIFICATE_TTL)
    )]
    pub certificate_ttl: Time,
    /// Longest lifetime of workload certificates.
    #[arg(
        long, env = "MAX_WORKLOAD_CERT_TTL", value_name = "TIME", default_value_t = Time(MAX_CERTIFICATE_TTL)
    )]
    pub max_certificate_ttl: Time,
    /// Time without a further change after which changes are sent. Removals of endpoints and
    /// changes of policies never wait, and what says how requests are routed waits 10 ms at most.
    #[arg(
        long, env = "PILOT_DEBOUNCE_AFTER", value_name = "TIME", default_value_t = Time(DebounceOptions::default().quiet)
    )]
    pub debounce_after: Time,
    /// Longest time that a change waits for others.
    #[arg(
        long, env = "PILOT_DEBOUNCE_MAX", value_name = "TIME", default_value_t = Time(DebounceOptions::default().longest)
    )]
    pub debounce_max: Time,
    /// Clients of discovery at once.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_MAX_CLIENTS)]
    pub max_clients: usize,
    /// Connections at once.
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_MAX_CONNECTIONS)]
    pub max_connections: usize,
    /// Largest response of discovery, in bytes. A larger state goes in several responses.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_RESPONSE_BYTES)]
    pub max_response_bytes: usize,
    /// Age at which a client is asked to connect again, so that clients spread over replicas.
    #[arg(
        long, value_name = "TIME", default_value_t = Time(DEFAULT_MAX_CONNECTION_AGE)
    )]
    pub max_connection_age: Time,
    /// Time over which clients are sent away after SIGTERM.
    #[arg(
        long, value_name = "TIME", default_value_t = Time(DEFAULT_DRAIN_TIME)
    )]
    pub drain_time: Time,
    /// Form of log lines.
    #[arg(long, value_enum, default_value = "plain")]
    pub log_format: LogFormat,
    /// What to log: a level, or a list such as `info,fairlead_control::xds=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// What is done with copies of requests.
#[derive(Clone, Debug, Args)]
pub struct MirrorArgs {
    /// Whether the copies of mirrored requests keep the host of the request. With `false` they get
    /// the suffix `-shadow`, by which their servers can tell them from requests that are answered.
    #[arg(
        long, env = "DISABLE_SHADOW_HOST_SUFFIX", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub disable_shadow_host_suffix: bool,
}

/// Where the mesh is read from: one of these.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SourceArgs {
    /// Directory with the configuration: the YAML or JSON files that one would give to `kubectl
    /// apply`. Pods, services and what they refer to count, and the objects of Istio and of the
    /// Gateway API; others are passed over. Changes are taken up while running; a file that is
    /// broken keeps its last good version.
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Follow a Kubernetes cluster: that of $KUBECONFIG or ~/.kube/config, or within a pod its own.
    /// Clients show tokens of service accounts, which the API server is asked about.
    #[arg(long)]
    pub kubernetes: bool,
}

/// A time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Text that is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a whole number with a unit: ms, s, m, h or d, such as 100ms or 24h")]
pub struct InvalidTime;

/// Name of the lease that the leading replica has.
const LEASE: &str = "fairlead-control";

const DEFAULT_NAMESPACE: &str = "istio-system";

const DEFAULT_CA_DIR: &str = "/etc/cacerts";

/// Units of time, in milliseconds, longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

// === impl RunArgs ===

impl RunArgs {
    /// Returns the directory of the certificate authority; none if it is in the cluster.
    pub fn ca_dir(&self) -> Option<PathBuf> {
        let default = || (!self.source.kubernetes).then(|| DEFAULT_CA_DIR.into());
        self.ca_dir.clone().or_else(default)
    }

    /// Returns how certificates are issued.
    pub fn authority_options(&self) -> AuthorityOptions {
        AuthorityOptions {
            trust_domain: self.trust_domain.clone(),
            default_ttl: self.certificate_ttl.0,
            max_ttl: self.max_certificate_ttl.0,
        }
    }

    /// Returns how the mesh is computed.
    pub fn mesh_options(&self) -> Options {
        Options {
            cluster: self.cluster_id.as_str().into(),
            network: self.network.as_str().into(),
            domain: self.domain.as_str().into(),
            system_namespace: self.system_namespace.as_str().into(),
            enrolment: if self.source.kubernetes {
                Enrolment::Reported
            } else {
                // No agent writes to a directory that it has taken a pod in.
                Enrolment::Declared
            },
            absent_waypoint: if self.bypass_absent_waypoints {
                AbsentWaypoint::Bypass
            } else {
                AbsentWaypoint::Refuse
            },
            shadow_suffix: !self.mirrors.disable_shadow_host_suffix,
            require_waypoints: self.require_waypoints,
            automatic_waypoints: self.auto_waypoints,
        }
    }

    /// Returns which lease the leader has, with a name for this replica that no other one has.
    pub fn lease_options(&self) -> LeaseOptions {
        LeaseOptions {
            namespace: self.system_namespace.clone(),
            name: LEASE.to_owned(),
            candidate: format!("{}_{:016x}", self.replica_name, rand::random::<u64>()),
            duration: self.lease_duration.0.max(MIN_LEASE_DURATION),
        }
    }

    /// Returns how waypoints are made.
    pub fn waypoint_settings(&self) -> WaypointSettings {
        let server = self.service_names.first().map_or("localhost", String::as_str);
        let server = match server.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => server.to_owned(),
        };
        WaypointSettings {
            image: self.waypoint_image.clone(),
            control_plane: format!("{server}:{}", self.address.port()),
            audience: self.token_audiences.first().cloned().unwrap_or_default(),
            trust_domain: self.trust_domain.to_string(),
            cluster: self.cluster_id.clone(),
            network: self.network.clone(),
            domain: self.domain.clone(),
            root_namespace: self.system_namespace.clone(),
        }
    }

    /// Returns who may have what certified.
    pub fn issue_policy(&self) -> IssuePolicy {
        IssuePolicy {
            trust_domain: self.trust_domain.clone(),
            node_accounts: self.node_accounts.clone(),
        }
    }

    /// Returns how changes wait for each other.
    pub fn debounce_options(&self) -> DebounceOptions {
        let (quiet, longest) = (self.debounce_after.0, self.debounce_max.0);
        let usual = DebounceOptions { quiet, longest, ..DebounceOptions::default() };
        // A look at a directory has everything that was written together.
        if self.source.kubernetes {
            usual
        } else {
            DebounceOptions { prompt: Duration::ZERO, ..usual }
        }
    }

    /// Returns how connections are treated.
    pub fn server_options(&self) -> ServerOptions {
        ServerOptions {
            max_connections: self.max_connections,
            drain_time: self.drain_time.0,
            max_connection_age: self.max_connection_age.0,
        }
    }
}

// === impl Time ===

impl fmt::Display for Time {
    /// Writes a time in its largest unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |(_, unit): &(&str, u64)| millis.is_multiple_of(u128::from(*unit));
        let (name, unit) = UNITS.into_iter().find(whole).unwrap_or(("ms", 1));
        write!(f, "{}{name}", millis / u128::from(unit))
    }
}

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(InvalidTime)?;
        let number: u64 = number.parse().map_err(|_| InvalidTime)?;
        number.checked_mul(unit).map(Duration::from_millis).map(Self).ok_or(InvalidTime)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_istio() {
        let cli = Cli::try_parse_from(["fairlead-control", "--config-dir", "/mesh"]).unwrap();
        assert_eq!(cli.run.debounce_after.0, Duration::from_millis(100));
        assert_eq!(cli.run.debounce_max.0, Duration::from_secs(10));
        assert_eq!(cli.run.certificate_ttl.0, Duration::from_hours(24));
        assert_eq!(cli.run.max_certificate_ttl.0, Duration::from_hours(90 * 24));
        assert_eq!(cli.run.node_accounts[0].to_string(), "istio-system/ztunnel");
        assert_eq!(cli.run.service_names, ["istiod.istio-system.svc", "localhost"]);
    }

    #[test]
    fn the_mesh_is_read_from_one_place() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from(["fairlead-control"].iter().chain(arguments))
                .map(|cli| cli.run.source)
                .map_err(|error| error.to_string())
        };
        assert!(parse(&["--kubernetes"]).unwrap().kubernetes);
        for refused in [
            &[][..],
            &["--kubernetes", "--config-dir", "/mesh"],
            &["--kubernetes", "--token-file", "/tokens"],
        ] {
            let error = parse(refused).unwrap_err();
            assert!(error.contains("--kubernetes"), "{error}");
        }
    }

    #[test]
    fn routes_wait_for_others_unless_they_were_read_with_them() {
        for (source, waits) in [(&["--kubernetes"][..], true), (&["--config-dir", "/mesh"], false)]
        {
            let cli = Cli::try_parse_from(["fairlead-control"].iter().chain(source)).unwrap();
            assert_eq!(cli.run.debounce_options().prompt > Duration::ZERO, waits, "{source:?}");
        }
    }

    #[test]
    fn a_rotation_is_asked_for_without_the_options_of_serving() {
        let cli =
            Cli::try_parse_from(["fairlead-control", "rotate-root", "--ca-dir", "/ca"]).unwrap();
        assert!(
            matches!(cli.command, Some(Command::RotateRoot { ca_dir, .. }) if ca_dir == *"/ca")
        );
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("100ms", 100), ("10s", 10_000), ("2m", 120_000), ("1d", 86_400_000)]
        {
            let time = Time(Duration::from_millis(millis));
            assert_eq!(text.parse(), Ok(time));
            assert_eq!(time.to_string(), text);
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "1w", "99999999999999999999d"] {
            assert_eq!(bad.parse::<Time>(), Err(InvalidTime), "{bad}");
        }
    }
}
