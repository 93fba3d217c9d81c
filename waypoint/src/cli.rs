//! The command line.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use fairlead_component::logging::LogFormat;
use mesh_api::{
    control_plane::ControlPlaneArgs,
    identity::{Namespace, ServiceAccount, TrustDomain},
};

use crate::{
    limits::{DEFAULT_MAX_PEER_CONNECTIONS, DEFAULT_MAX_PEER_TUNNELS},
    proxy::progress::Patience,
};

/// Fairlead's waypoint: routes, retries, balances and guards the HTTP traffic of the services that
/// are bound to it.
#[derive(Debug, Parser)]
#[command(name = "fairlead-waypoint", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM: take tunnels, and send what comes through them on to endpoints.
    Run(Box<RunArgs>),
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of the gateway that declares this waypoint, in the namespace of --pod-namespace.
    #[arg(long, env = "GATEWAY_NAME", value_name = "NAME")]
    pub gateway: String,
    /// Service account that this waypoint runs as; with the namespace it makes its identity. The
    /// token has to be of it.
    #[arg(long, env = "SERVICE_ACCOUNT", value_name = "NAME")]
    pub service_account: ServiceAccount,
    /// Name of the node that this runs on.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub node_name: String,
    /// Lifetime of the certificate, in seconds. It is renewed at half of it.
    #[arg(long, value_name = "SECONDS", env = "SECRET_TTL", default_value = "86400", value_parser = seconds)]
    pub svid_ttl: Duration,
    /// Trust domain of this mesh.
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// File with revocation lists, PEM or DER. Changes are applied at once, to open connections too.
    #[arg(long, value_name = "FILE", env = "CRL_PATH")]
    pub crl_file: Option<PathBuf>,
    /// Network that this waypoint's address belongs to.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub network: String,
    /// Address that tunnels come to.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15008)))]
    pub address: SocketAddr,
    /// Number of threads [default: one a processor].
    #[arg(long, env = "PROXY_WORKER_THREADS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Time to send the head of a request over HTTP/1, from its first byte on, in seconds; past it the
    /// connection is closed.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub request_head_timeout: Duration,
    /// Time without a byte after which a client that owes the rest of its request is answered 408, or
    /// one that does not take the answer is cut off, in seconds; 0 for ever. A client that waits for
    /// more of an answer owes nothing: streams may be quiet for as long as they like.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = whole_seconds)]
    pub stream_idle_timeout: Duration,
    /// Time that a client has for a whole request, in seconds; 0 for ever. Streams of gRPC are
    /// requests as long as the client may say more.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = whole_seconds)]
    pub request_timeout: Duration,
    /// Tunnels that may come from one address; a node proxy makes a few for each pod and thread.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PEER_TUNNELS)]
    pub max_peer_tunnels: NonZeroUsize,
    /// Connections that may come from one address, in its tunnels.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PEER_CONNECTIONS)]
    pub max_peer_connections: NonZeroUsize,
    /// Address of the Prometheus metrics, at /stats/prometheus and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15020)))]
    pub metrics_address: SocketAddr,
    /// Address of the readiness probe, /healthz/ready.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 15021)))]
    pub readiness_address: SocketAddr,
    /// Address of the admin interface, which explains itself at /. It has no access control: keep
    /// it on loopback.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000)))]
    pub admin_address: SocketAddr,
    /// Form of log lines, and of the access log.
    #[arg(long, value_enum, default_value = "plain")]
    pub log_format: LogFormat,
    /// What to log: a level, or a list such as `info,access=off,fairlead_waypoint=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
    /// Time that open connections get to finish after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub drain_timeout: Duration,
    // Last: its heading would stand above what follows.
    /// The control plane, which says what the mesh is and issues the certificate.
    #[command(flatten)]
    pub control_plane: ControlPlaneArgs,
}

// === impl RunArgs ===

impl RunArgs {
    /// Returns how long clients may take.
    pub fn patience(&self) -> Patience {
        let limit = |time: Duration| Some(time).filter(|time| !time.is_zero());
        Patience {
            head: self.request_head_timeout,
            stream_idle: limit(self.stream_idle_timeout),
            request: limit(self.request_timeout),
        }
    }

    /// Returns the namespace of the waypoint.
    pub fn namespace(&self) -> Result<Namespace, mesh_api::identity::InvalidIdentity> {
        self.control_plane.pod_namespace.parse()
    }
}

fn whole_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "give a whole number of seconds".to_owned())?;
    Ok(Duration::from_secs(seconds))
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number of seconds, at least 1".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::limits::{DEFAULT_HEAD_TIMEOUT, DEFAULT_STREAM_IDLE_TIMEOUT};

    #[test]
    fn clients_have_the_time_that_is_documented_unless_told_otherwise() {
        let parse = |args: &[&str]| {
            let own = ["fairlead-waypoint", "run", "--gateway", "w", "--service-account", "w"];
            let Command::Run(args) = Cli::parse_from(own.iter().chain(args)).command;
            args.patience()
        };
        let patience = parse(&[]);
        assert_eq!(patience.head, DEFAULT_HEAD_TIMEOUT);
        assert_eq!(patience.stream_idle, Some(DEFAULT_STREAM_IDLE_TIMEOUT));
        assert_eq!(patience.request, None);
        let patience = parse(&["--stream-idle-timeout", "0", "--request-timeout", "9"]);
        assert_eq!(patience.stream_idle, None);
        assert_eq!(patience.request, Some(Duration::from_secs(9)));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
