//! Options of what becomes of datagrams.

use std::{net::IpAddr, sync::Arc};

use clap::{ArgAction, Args, ValueEnum};
use fairlead_ebpf::datagrams::DatagramRules;
use mesh_api::identity::Namespace;

use crate::state::Naming;

/// What becomes of DNS queries and other datagrams.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names and datagrams")]
pub struct DatagramArgs {
    /// Answer the DNS queries of enrolled pods for A and AAAA records of services, whatever name
    /// server they ask, and for SRV records of the named ports (`_https._tcp.api.example`) of hosts
    /// that only the mesh has; all other queries are passed on to that name server. While no proxy
    /// runs queries go to it directly. With `false` they always do.
    #[arg(
        long,
        value_name = "BOOL",
        env = "ISTIO_META_DNS_CAPTURE",
        default_value_t = true,
        action = ArgAction::Set
    )]
    pub dns_capture: bool,
    /// What becomes of datagrams (UDP, and with it QUIC) of enrolled pods, other than DNS queries.
    /// They are never encrypted, so `strict` refuses them where policy refuses plaintext; a name
    /// server in the mesh must then be PERMISSIVE. They are counted in `fairlead_pod_datagrams_total`,
    /// and what is refused is not lost in silence: the sender in an enrolled pod gets EPERM, any other
    /// one an ICMP error. Answers to what a pod has sent always reach it.
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        env = "FAIRLEAD_DATAGRAMS",
        default_value = "pass"
    )]
    pub datagrams: DatagramPolicy,
    /// Name servers that find the addresses of workloads which have a host name in place of
    /// addresses, such as endpoints of a `ServiceEntry`, or gateways of other networks. They are asked from inside the pod that
    /// connects. By default those of this process's own /etc/resolv.conf, but for loopback addresses,
    /// which pods do not reach.
    #[arg(long, value_name = "ADDRESS,...", env = "FAIRLEAD_NAME_SERVERS", value_delimiter = ',')]
    pub name_servers: Vec<IpAddr>,
    /// Domain of the cluster, which completes short names of services.
    #[arg(long, value_name = "DOMAIN", env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: Arc<str>,
    /// Namespace whose services are meant by a host name that several namespaces define, unless
    /// the client's own is one of them.
    #[arg(long, value_name = "NAMESPACE", env = "PREFERED_SERVICE_NAMESPACE")]
    pub preferred_service_namespace: Option<Namespace>,
}

/// What becomes of datagrams other than DNS queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatagramPolicy {
    /// They pass.
    Pass,
    /// They pass, but not to pods that refuse plaintext from everyone, as with a `PeerAuthentication`
    /// of mode STRICT. A pod that is just enrolled takes none before its policies are known.
    Strict,
    /// None are sent and none are taken.
    Refuse,
}

// === impl DatagramArgs ===

impl DatagramArgs {
    /// Returns how names are completed; none if queries are not answered.
    pub fn naming(&self) -> Option<Naming> {
        self.dns_capture.then(|| Naming {
            domain: self.cluster_domain.clone(),
            preferred: self.preferred_service_namespace.clone(),
        })
    }

    /// Returns what becomes of the datagrams of pods.
    pub fn rules(&self) -> DatagramRules {
        let rules = match self.datagrams {
            DatagramPolicy::Pass => DatagramRules::default(),
            DatagramPolicy::Strict => DatagramRules::BY_POLICY,
            DatagramPolicy::Refuse => {
                DatagramRules::REFUSE_SENT.with(DatagramRules::REFUSE_RECEIVED, true)
            }
        };
        rules.with(DatagramRules::RESOLVE, self.dns_capture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_say_what_becomes_of_datagrams() {
        let rules = |dns_capture, datagrams| {
            let cluster_domain = "cluster.local".into();
            DatagramArgs {
                dns_capture,
                datagrams,
                name_servers: Vec::new(),
                cluster_domain,
                preferred_service_namespace: None,
            }
            .rules()
        };
        let (sent, received) = (DatagramRules::REFUSE_SENT, DatagramRules::REFUSE_RECEIVED);
        for (policy, refuses_sent, refuses_received, by_policy) in [
            (DatagramPolicy::Pass, false, false, false),
            (DatagramPolicy::Strict, false, false, true),
            (DatagramPolicy::Refuse, true, true, false),
        ] {
            for resolves in [false, true] {
                let rules = rules(resolves, policy);
                assert_eq!(rules.has(DatagramRules::RESOLVE), resolves);
                assert_eq!(rules.has(sent), refuses_sent, "{policy:?}");
                assert_eq!(rules.has(received), refuses_received, "{policy:?}");
                assert_eq!(rules.has(DatagramRules::BY_POLICY), by_policy, "{policy:?}");
            }
        }
    }
}
