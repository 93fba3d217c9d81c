//! Options about the kubelet's probes.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

/// How probes of the kubelet are recognised.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Probes")]
pub struct ProbeArgs {
    /// Cgroup (v2) of the kubelet, as the third field of /proc/PID/cgroup has it or as a directory.
    /// What its processes connect to a pod goes straight to the application, also where only mutual
    /// TLS is allowed; nothing else on the node may do that. It must have no other cgroups below it
    /// [default: the service of kubelet, k3s or RKE2, whichever there is].
    #[arg(long, value_name = "PATH", env = "FAIRLEAD_KUBELET_CGROUP")]
    pub kubelet_cgroup: Option<PathBuf>,
    /// Let every connection from this address of the node pass to applications like a probe. Only for
    /// nodes where the kubelet cannot be told apart, since something rewrites its connections: any
    /// process of the node's network, and whatever is masqueraded as the node, then reaches pods
    /// without mutual TLS and without policy. Give it once for each address.
    #[arg(long = "probe-source", value_name = "ADDRESS", value_delimiter = ',')]
    pub probe_sources: Vec<IpAddr>,
}
